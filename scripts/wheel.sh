#!/bin/sh
# Run by `make wheel`: builds results/wheel/thinet-*.whl, a wheel of the `thinet` program. It is installed beside torch 2.11.0, whose
# libtorch it uses, with or without CUDA.
#
# With --test, part of the long tests: installs the wheel in fresh environments, with all of torch and without its CUDA libraries, and
# runs `thinet count --all` and the smoke study there, in a folder of its own. Takes some minutes. Prints "wheel: …" and exits with 0, or
# prints what does not hold and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
case ${1:-} in
    '' | --test) ;;
    *)
        echo 'usage: scripts/wheel.sh [--test]' >&2
        exit 2
        ;;
esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP

# fail WHAT FIX
fail() {
    printf 'error: %s — fix: %s\n' "$1" "$2" >&2
    exit 1
}

# Python 3.10 to 3.14: that of set-up's own environment, else of the system.
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null ||
    fail 'no Python 3.10 to 3.14 with its venv module' 'install it (Debian, Ubuntu: apt-get install python3-venv)'
unset PYTHONPATH PYTHONHOME

profile=release
[ -z "${1:-}" ] || profile=dev # what the tests before it have built
"$python" -m venv "$scratch/build"
"$scratch/build/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r python/wheel/requirements.txt ||
    fail 'pip cannot install maturin' 'check the network (and the proxy, if there is one), then run this again'
(cd python/wheel && THINET_WHEEL=1 "$scratch/build/bin/maturin" build --profile "$profile" --out "$scratch/wheel") >"$scratch/log" 2>&1 || {
    tail -n 20 "$scratch/log" >&2
    fail 'maturin cannot build the wheel' 'see the lines above'
}
# The program in the build folder is that of the wheel now, which finds no libtorch there.
cargo build --quiet --profile "$profile" --package thinet-cli
wheel=$(ls "$scratch"/wheel/thinet-*.whl)

if [ -z "${1:-}" ]; then
    mkdir -p results/wheel
    rm -f results/wheel/thinet-*.whl
    mv "$wheel" results/wheel/
    printf '%s: %s\n' "results/wheel/$(basename "$wheel")" "$(du -h "results/wheel/$(basename "$wheel")" | cut -f 1)"
    echo 'install it with: pip install results/wheel/*.whl   (which installs torch 2.11.0, unless it is there)'
    exit
fi

. scripts/checks.sh
packages=$(ls -d .venv/lib/python3.*/site-packages 2>/dev/null | head -n 1)
if [ -z "$packages" ] || [ ! -e "$packages/torch/lib/libtorch_cpu.so" ]; then
    echo 'wheel: not run: set-up uses another libtorch than that of .venv, so there is no environment to copy'
    exit
fi

# environment NAME: with the packages of set-up's own, by links where that is possible
environment() {
    "$python" -m venv "$scratch/$1"
    to=$(ls -d "$scratch/$1"/lib/python3.*/site-packages)
    for package in "$packages"/*; do
        case $(basename "$package") in pip | pip-* | setuptools | setuptools-* | thinet-*) continue ;; esac
        cp -al "$package" "$to/" 2>/dev/null || cp -a "$package" "$to/"
    done
}

# in_environment NAME COMMAND...: in an empty folder, with nothing of this one's variables but the data's folder
in_environment() {
    name=$1
    shift
    (cd "$scratch/$name-work" && env -i HOME="$scratch" PATH="$scratch/$name/bin:/usr/bin:/bin" "$@" >"$scratch/$name.log" 2>&1)
}

data=$(cd data/fashion-mnist && pwd -P)
for name in whole cuda-free; do
    environment "$name"
    mkdir "$scratch/$name-work"
    cp experiments/smoke.toml "$scratch/$name-work/"
done
# As in a torch that was built without CUDA.
rm "$scratch"/cuda-free/lib/python3.*/site-packages/torch/lib/libtorch_cuda*.so "$scratch"/cuda-free/lib/python3.*/site-packages/torch/lib/libc10_cuda.so
for name in whole cuda-free; do
    holds "$name: pip installs the wheel beside torch, without a network" \
        in_environment "$name" pip install --no-index --disable-pip-version-check "$wheel"
    holds "$name: thinet count --all" in_environment "$name" thinet count --all
    holds "$name: thinet run smoke.toml" in_environment "$name" thinet run smoke.toml --data "$data"
    holds "$name: the study has its table" test -s "$scratch/$name-work/results/tables/smoke.csv"
done
refused() { ! in_environment "$1" thinet run smoke.toml --data "$data" --device cuda:0 && grep -q "$2" "$scratch/$1.log"; }
holds 'cuda-free: a GPU is refused, and the reason is libtorch' refused cuda-free 'this libtorch is built without CUDA'
# On a machine with a GPU there is nothing to refuse.
[ -e /dev/nvidia0 ] || holds 'whole: a GPU is refused, and the reason is the driver' refused whole 'no NVIDIA driver is installed'
[ "$failed" -eq 0 ] && echo 'wheel: works with and without CUDA libraries' || exit 1
