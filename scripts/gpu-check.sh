#!/bin/sh
# What `make gpu-check` runs: builds results/gpu-check-folder, which runs on a CUDA machine that has Python's torch 2.11.0 and
# neither cargo nor a network; then tries it on the CPU at tiny size.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
folder=results/gpu-check-folder
most_kib=$((60 * 1024))

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

cargo build --quiet --release --package thinet-bench --bin gpu-check
rm -rf "$folder"
mkdir -p "$folder/experiments"
strip -o "$folder/gpu-check" "${CARGO_TARGET_DIR:-target}/release/gpu-check"
if [ -e .libtorch/lib/libtorch_cuda.so ]; then
    # Without it the program would find no GPU, however good the machine.
    readelf -d "$folder/gpu-check" | grep -q 'NEEDED.*libtorch_cuda' || fail "gpu-check does not link libtorch_cuda"
else
    echo "note: this libtorch has no CUDA; a program built with it finds no GPU" >&2
fi
cp crates/bench/gpu-check/README crates/bench/gpu-check/run.sh crates/bench/gpu-check/eager.py "$folder/"
cp -R experiments/imagenet experiments/cub200 "$folder/experiments/"
{
    git rev-parse HEAD 2>/dev/null || echo 'no commit'
    git diff --quiet HEAD -- . ':(exclude)results' 2>/dev/null || echo 'with changes since'
    rustc --version
    printf 'needs %s\n' "$(readelf -V "$folder/gpu-check" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)"
} >"$folder/built.txt"
size=$(du -sk "$folder" | awk '{ print $1 }')
[ "$size" -le "$most_kib" ] || fail "$folder has $size KiB, allowed are $most_kib"

python=$PWD/.venv/bin/python
[ -x "$python" ] || python=python3
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# A copy elsewhere and an environment as bare as another machine's: libraries and files must be found through run.sh.
cp -R "$folder" "$out/folder"
env -i PATH="$PATH" HOME="$HOME" PYTHON="$python" GPU_CHECK_TINY=1 \
    sh "$out/folder/run.sh" "$out/report" cpu >"$out/log" 2>&1 || {
    tail -5 "$out/log" >&2
    fail "the folder does not work on the CPU of this machine"
}
rows=$(($(wc -l <"$out/report/gpu-check.csv") - 1))
printf '%s: %d KiB; tried on the CPU: %d rows, %d of them not run (a GPU alone has them)\n' \
    "$folder" "$size" "$rows" "$(grep -c ',not run,' "$out/report/gpu-check.csv")"
printf 'on the CUDA machine: sh gpu-check-folder/run.sh OUT cuda:0\n'
