#!/bin/sh
# Run by `make gpu-check`: builds results/gpu-check-folder, which runs on a CUDA machine that has Python's torch 2.11.0 but
# neither cargo nor a network; then tries it on the CPU for a few seconds.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
folder=results/gpu-check-folder
most_kib=$((60 * 1024))

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

cargo build --quiet --release --package thinet-cli
cargo build --quiet --release --package thinet-bench --bin gpu-check
built=${CARGO_TARGET_DIR:-target}/release
rm -rf "$folder"
mkdir -p "$folder/experiments"
for name in thinet gpu-check; do
    cp "$built/$name" "$folder/$name"
    strip "$folder/$name"
done
if [ -e .libtorch/lib/libtorch_cuda.so ]; then
    # Without it the program would find no GPU on any machine.
    for name in thinet gpu-check; do
        readelf -d "$folder/$name" | grep -q 'NEEDED.*libtorch_cuda' || fail "$name does not link libtorch_cuda"
    done
else
    echo "note: this libtorch has no CUDA; programs built with it find no GPU" >&2
fi
cp crates/bench/gpu-check/run.sh crates/bench/gpu-check/gpu_check.py "$folder/"
cp -R experiments/imagenet experiments/cub200 "$folder/experiments/"
{ git rev-parse HEAD 2>/dev/null || echo 'no commit'; rustc --version; } >"$folder/built.txt"
size=$(du -sk "$folder" | awk '{ print $1 }')
[ "$size" -le "$most_kib" ] || fail "$folder has $size KiB, allowed are $most_kib"

python=.venv/bin/python
[ -x "$python" ] || python=python3
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# A bare environment, as on another machine: the library path must come from run.sh.
env -i PATH="$PATH" HOME="$HOME" PYTHON="$python" sh "$folder/run.sh" "$out" cpu --tiny >"$out/log" 2>&1 || {
    tail -5 "$out/log" >&2
    fail "the folder does not work on the CPU of this machine"
}
rows=$(($(wc -l <"$out/gpu-check.csv") - 1))
printf '%s: %d KiB, tried on the CPU (%d rows)\n' "$folder" "$size" "$rows"
printf 'on the CUDA machine: sh gpu-check-folder/run.sh OUT cuda:0; then commit OUT as results/gpu/<card>\n'
