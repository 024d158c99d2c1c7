#!/bin/sh
# Computes the golden files of the tests again: runs every script in a folder called `golden`, with a Python that has torch.
# A difference that git then shows is a change of PyTorch, of the script or of the seed: explain it before you commit it.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

needs='import torch, numpy, safetensors, PIL, scipy; assert torch.__version__.split("+")[0] == "2.11.0"'
packages='numpy==2.4.6 safetensors==0.8.0 pillow==11.3.0 scipy==1.17.1'

. scripts/python.sh

scripts=$(find crates -path '*/golden/*.py' | sort)
[ -n "$scripts" ] || fail "no script in crates/*/**/golden/" "get the whole project: git checkout -- crates"
printf '%s\n' "$scripts" | while read -r script; do
    echo "$python $script"
    "$python" "$script"
done
