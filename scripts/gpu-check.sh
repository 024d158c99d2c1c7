#!/bin/sh
# Run by `make gpu-check`: builds results/gpu-check-folder, which runs on a CUDA machine that has Python's torch 2.11.0 but
# neither cargo nor a network; then tries it on the CPU for a few seconds.
# With --self-test, part of `make test`: the same with debug programs, in a temporary folder of any size; then the folder is tried with
# no time and with a program that does not work.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
most_kib=$((60 * 1024))
case ${1:-} in
    --self-test) profile=debug folder=$scratch/gpu-check-folder release= ;;
    '') profile=release folder=results/gpu-check-folder release=--release ;;
    *)
        echo 'usage: scripts/gpu-check.sh [--self-test]' >&2
        exit 2
        ;;
esac
data=data/fashion-mnist
sections='parity training study inference calibration loader latency'

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

kib() { du -sk "$1" | awk '{ print $1 }'; }

cargo build --quiet $release --package thinet-bench --bin gpu-check
rm -rf "$folder"
mkdir -p "$folder/experiments" "$folder/data/fashion-mnist"
cp "${CARGO_TARGET_DIR:-target}/$profile/gpu-check" "$scratch/program"
strip "$scratch/program"
if [ -e .libtorch/lib/libtorch_cuda.so ]; then
    # Without it a release program would find no GPU on any machine; a debug one loads it when a GPU is named.
    [ "$profile" = debug ] || readelf -d "$scratch/program" | grep -q 'NEEDED.*libtorch_cuda' || fail 'the program does not link libtorch_cuda'
else
    echo "note: this libtorch has no CUDA; a program built with it finds no GPU" >&2
fi
# Compressed, the program leaves room for the data. A debug program is only tried.
level=-9
[ "$profile" = release ] || level=-1
gzip "$level" -c "$scratch/program" >"$folder/gpu-check.gz"
cp crates/bench/gpu-check/run.sh crates/bench/gpu-check/*.py "$folder/"
cp experiments/smoke.toml experiments/fashion-mnist-selectors.toml "$folder/experiments/"
{ git rev-parse HEAD 2>/dev/null || echo 'no commit'; rustc --version; } >"$folder/built.txt"
for file in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
    [ -e "$data/$file.gz" ] || fail "$data/$file.gz is missing, and the folder runs studies on it: make data"
    cp "$data/$file.gz" "$folder/data/fashion-mnist/"
done
size=$(kib "$folder")
[ "$profile" = debug ] || [ "$size" -le "$most_kib" ] || fail "$folder has $size KiB, allowed are $most_kib"

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3

# A card that says how busy it is.
mkdir "$scratch/bin"
cat >"$scratch/bin/nvidia-smi" <<'END'
#!/bin/sh
case "$*" in *--query-gpu=utilization.gpu*--loop-ms=100*) while sleep 0.1; do echo 73; done ;; esac
exit 1
END
chmod 755 "$scratch/bin/nvidia-smi"

# run FOLDER OUT OPTION...: runs a folder on the CPU in a bare environment, as on another machine: the library path must come from run.sh.
run() {
    tried=$1
    out=$2
    shift 2
    env -i PATH="$scratch/bin:$PATH" HOME="$HOME" PYTHON="$python" sh "$tried/run.sh" "$out" cpu --tiny "$@" >"$out.log" 2>&1
}

# try OUT OPTION...
try() {
    run "$folder" "$@" || {
        grep 'DOES NOT HOLD' "$1.log" >&2 || tail -5 "$1.log" >&2
        fail "the folder does not work on the CPU of this machine"
    }
}

# has OUT TEXT: a row of the table
has() { grep -q "$2" "$1/gpu-check.csv" || fail "the table of $(basename "$1") has no row \"$2\""; }

# ended OUT: all sections are in it, and the report is whole
ended() {
    for section in $sections; do
        has "$1" "^$section,"
    done
    for file in gpu-check.md env.json; do
        [ -s "$1/$file" ] || fail "$(basename "$1") has no $file"
    done
    [ ! -e "$1/gpu-check" ] || fail "$(basename "$1") still holds the program"
}

try "$scratch/out" --budget 1200
ended "$scratch/out"
for section in training inference calibration loader; do
    has "$scratch/out" "^$section,.*,ours,[0-9]"
done
has "$scratch/out" '^training,.*,time in which the card is busy,73,%'
has "$scratch/out" '^loader,.*,what feeding costs,'
has "$scratch/out" '^latency,.*,ms,'
for name in 'bytes to the device' 'set on the device' dropout; do
    has "$scratch/out" "^self-test,$name,.*,True"
done
has "$scratch/out" '^self-test,SGD,.*neither.*,holds'
has "$scratch/out" '^self-test,thinet-30,.*the same with the batch.s statistics.*,holds'
has "$scratch/out" '^self-test,resnet50 layer2.0.conv1,.*batch-norm scales.*,holds'
has "$scratch/out" '^study,smoke.*the same bytes in a second run,True'
has "$scratch/out" '^study,smoke.*killed and resumed,True,,.*dense-.*: train-.*, step.*cell-.*: train-'
has "$scratch/out" '^study,smoke (dropout).*killed and resumed,True'
has "$scratch/out" '^study,default.*cells,[1-9]'
has "$scratch/out" '^study,default.*tables written,True'
ls "$scratch"/out/default/tables/*.csv >/dev/null 2>&1 || fail 'the default study left no table'

if [ "$profile" = debug ]; then
    # Out of time, every section says so, and the folder still ends well.
    try "$scratch/late" --budget 0
    ended "$scratch/late"
    for section in $sections; do
        has "$scratch/late" "^$section,.*not run,,out of time"
    done
    # With a program that does not work every row says so, and the report is whole.
    cp -R "$folder" "$scratch/broken-folder"
    printf '#!/bin/sh\necho x\n' | gzip >"$scratch/broken-folder/gpu-check.gz"
    if run "$scratch/broken-folder" "$scratch/broken"; then fail 'a program that does not work is no failure'; fi
    ended "$scratch/broken"
    for section in $sections; do
        has "$scratch/broken" "^$section,.*not run,,DOES NOT HOLD"
    done
fi
rows=$(($(wc -l <"$scratch/out/gpu-check.csv") - 1))
if [ "$profile" = debug ]; then
    printf 'gpu-check: the folder works on the CPU (%d rows)\n' "$rows"
    exit
fi
printf '%s: %d KiB, tried on the CPU (%d rows)\n' "$folder" "$size" "$rows"
printf 'on the CUDA machine: sh gpu-check-folder/run.sh OUT cuda:0; then commit OUT as results/gpu/<card>/check\n'
