#!/bin/sh
# Run by `make parity`: compares this project with Pillow, torchvision and PyTorch. IMAGES names a folder with JPEG files.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

needs='import torch, torchvision, numpy, safetensors, PIL
assert torch.__version__.split("+")[0] == "2.11.0" and int(PIL.__version__.split(".")[0]) < 13'
packages='torchvision==0.26.0 numpy==2.4.6 safetensors==0.8.0 pillow==11.3.0'

. scripts/python.sh

if [ -n "${IMAGES:-}" ] && [ ! -d "$IMAGES" ]; then
    fail "IMAGES=$IMAGES is no folder" "give a folder with JPEG files anywhere below it"
fi
cargo build --quiet --release --package thinet-bench --bin parity
exec "$python" crates/bench/parity/parity.py "${CARGO_TARGET_DIR:-target}/release/parity" results/parity/parity.csv \
    ${IMAGES:+"$IMAGES"}
