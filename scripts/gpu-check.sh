#!/bin/sh
# Run by `make gpu-check`: builds results/gpu-check-folder, which runs on a CUDA machine that has Python's torch 2.11.0 but
# neither cargo nor a network; then tries it on the CPU for a few seconds.
# With --self-test, part of `make test`: the same with debug programs, in a temporary folder of any size.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
most_kib=$((60 * 1024))
case ${1:-} in
    --self-test) profile=debug folder=$scratch/gpu-check-folder ;;
    '') profile=release folder=results/gpu-check-folder ;;
    *)
        echo 'usage: scripts/gpu-check.sh [--self-test]' >&2
        exit 2
        ;;
esac
data=data/fashion-mnist

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

kib() { du -sk "$1" | awk '{ print $1 }'; }

release=
[ "$profile" = debug ] || release=--release
cargo build --quiet $release --package thinet-cli
cargo build --quiet $release --package thinet-bench --bin gpu-check
built=${CARGO_TARGET_DIR:-target}/$profile
rm -rf "$folder"
mkdir -p "$folder/experiments"
for name in thinet gpu-check; do
    cp "$built/$name" "$folder/$name"
    [ "$profile" = debug ] || strip "$folder/$name"
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
cp -R experiments/smoke.toml experiments/fashion-mnist-selectors.toml experiments/imagenet experiments/cub200 \
    "$folder/experiments/"
{ git rev-parse HEAD 2>/dev/null || echo 'no commit'; rustc --version; } >"$folder/built.txt"
# Fashion-MNIST, if the folder has room for it.
has_data=no
if [ -d "$data" ] && { [ "$profile" = debug ] || [ $(($(kib "$folder") + $(kib "$data/"))) -le "$most_kib" ]; }; then
    mkdir -p "$folder/data/fashion-mnist"
    cp "$data"/*.gz "$folder/data/fashion-mnist/"
    has_data=yes
else
    echo "note: $data is missing or does not fit; the folder runs no studies" >&2
fi
size=$(kib "$folder")
[ "$profile" = debug ] || [ "$size" -le "$most_kib" ] || fail "$folder has $size KiB, allowed are $most_kib"

python=.venv/bin/python
[ -x "$python" ] || python=python3

# try OUT OPTION...: runs the folder on the CPU in a bare environment, as on another machine: the library path must come from run.sh.
try() {
    out=$1
    shift
    env -i PATH="$PATH" HOME="$HOME" PYTHON="$python" sh "$folder/run.sh" "$out" cpu --tiny "$@" >"$out.log" 2>&1 || {
        tail -5 "$out.log" >&2
        fail "the folder does not work on the CPU of this machine"
    }
}

# has OUT TEXT: a row of the table
has() { grep -q "$2" "$1/gpu-check.csv" || fail "the folder's table has no row \"$2\""; }

try "$scratch/out" --budget 300
for section in training inference calibration loader; do
    has "$scratch/out" "^$section,.*,ours,[0-9]"
done
has "$scratch/out" '^self-test,'
has "$scratch/out" '^latency,'
if [ "$has_data" = yes ]; then
    has "$scratch/out" '^study,.*the same bytes in a second run,True'
    has "$scratch/out" '^study,.*the same bytes when killed and resumed,True'
    has "$scratch/out" '^study,default.*tables written,True'
    ls "$scratch"/out/default/tables/*.csv >/dev/null 2>&1 || fail 'the default study left no table'
fi
# Out of time, every section says so, and the folder still ends well.
try "$scratch/late" --budget 0
for section in training inference calibration loader latency; do
    has "$scratch/late" "^$section,.*not run,,out of time"
done
rows=$(($(wc -l <"$scratch/out/gpu-check.csv") - 1))
if [ "$profile" = debug ]; then
    printf 'gpu-check: the folder works on the CPU (%d rows)\n' "$rows"
    exit
fi
printf '%s: %d KiB, tried on the CPU (%d rows)\n' "$folder" "$size" "$rows"
printf 'on the CUDA machine: sh gpu-check-folder/run.sh OUT cuda:0; then commit OUT as results/gpu/<card>\n'
