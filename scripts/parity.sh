#!/bin/sh
# What `make parity` runs: this project beside Pillow, torchvision and PyTorch. IMAGES names a folder with JPEG files.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

needs='import torch, torchvision, numpy, safetensors, PIL
assert torch.__version__.split("+")[0] == "2.11.0" and int(PIL.__version__.split(".")[0]) < 13'
packages='torchvision==0.26.0 numpy==2.4.6 safetensors==0.8.0 pillow==11.3.0'

fail() {
    printf 'error: %s — fix: %s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    for candidate in .venv/bin/python ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} python3 python; do
        if "$candidate" -c "$needs" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

python=$(find_python)
# The environment that set-up made has torch alone; one from elsewhere is not ours to change.
if [ -z "$python" ] && [ -f .venv/thinet-setup ]; then
    # shellcheck disable=SC2086 # a list of packages; without their dependencies, so that torch stays as it is
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $packages ||
        fail "pip cannot install $packages in .venv" "check the network, then run this again"
    python=$(find_python)
fi
[ -n "$python" ] || fail "no Python with torch 2.11.0, torchvision, numpy, safetensors and pillow below 13" \
    "python3 -m pip install torch==2.11.0 $packages in an environment and activate it"

if [ -n "${IMAGES:-}" ] && [ ! -d "$IMAGES" ]; then
    fail "IMAGES=$IMAGES is no folder" "give a folder with JPEG files anywhere below it"
fi
cargo build --quiet --release --package thinet-bench --bin parity
exec "$python" crates/bench/parity/parity.py "${CARGO_TARGET_DIR:-target}/release/parity" results/parity/parity.csv \
    ${IMAGES:+"$IMAGES"}
