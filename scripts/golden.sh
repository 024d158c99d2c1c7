#!/bin/sh
# Makes the golden files of the tests again: runs every script in a folder called `golden`, with a Python that has torch.
# A difference that git then shows is a change of PyTorch, of the script or of the seed: explain it before you commit it.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

needs='import torch, numpy, safetensors, PIL, scipy; assert torch.__version__.split("+")[0] == "2.11.0"'
packages='numpy==2.4.6 safetensors==0.8.0 pillow==11.3.0 scipy==1.17.1'

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
    # shellcheck disable=SC2086 # a list of packages
    .venv/bin/python -m pip install --quiet --disable-pip-version-check $packages ||
        fail "pip cannot install $packages in .venv" "check the network, then run this again"
    python=$(find_python)
fi
[ -n "$python" ] || fail "no Python with torch 2.11.0, numpy, safetensors, pillow and scipy" \
    "python3 -m pip install torch==2.11.0 $packages in an environment and activate it"

scripts=$(find crates -path '*/golden/*.py' | sort)
[ -n "$scripts" ] || fail "no script in crates/*/**/golden/" "get the whole project: git checkout -- crates"
printf '%s\n' "$scripts" | while read -r script; do
    echo "$python $script"
    "$python" "$script"
done
