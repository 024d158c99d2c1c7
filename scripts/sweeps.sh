#!/bin/sh
# Measures what sweeps cost beside the computing: workers against threads, the harness's own time, a second look at a finished
# sweep, shared work, and the status of ten thousand cells. Writes results/sweeps/sweeps.csv, with whether each figure is as
# required.
#
#     scripts/sweeps.sh        takes about fifteen minutes on two cores, which should be idle otherwise
#
# Uses `thinet` of the release build, or $THINET.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
. scripts/program.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p results/sweeps
out=results/sweeps/sweeps.csv
printf 'figure,value,required,holds,measured\n' >"$work/out"

# note FIGURE VALUE [CONDITION [MEASURED]]: the condition is one of awk, on the value v
note() {
    holds=
    [ -z "${3:-}" ] || holds=$(awk -v v="$2" "BEGIN { print ($3) ? \"yes\" : \"NO\" }")
    printf '%s,%s,%s,%s,%s\n' "$1" "$2" "$(printf '%s' "${3:-}" | sed 's/^v //')" "$holds" "${4:-}" >>"$work/out"
    printf '%-74s %8s  %-9s %-4s%s\n' "$1" "$2" "${3:-}" "$holds" "${4:-}"
}
now() { date +%s.%N; }
# timed COMMAND...: sets $seconds to its wall time
timed() {
    from=$(now)
    "$@" >"$work/last.out" 2>"$work/last.log" || {
        tail -n 3 "$work/last.log" >&2
        exit 1
    }
    seconds=$(echo "$from $(now)" | awk '{ printf "%.3f", $2 - $1 }')
}

# spec NAME SEEDS TRAIN-LIMIT THREADS MODE KEEP-RATES [NET [BATCH]]
spec() {
    net=${7:-'arch = "cifar-vgg16", width = 0.125'}
    batch=${8:-50}
    cat >"$work/$1.toml" <<SPEC
name = "$1"
table = "$1"
seeds = $2
dataset = { kind = "fashion-mnist", train-limit = $3, test-limit = 500 }
input.size = 32
net = { $net }
compute.threads = $4
dense.train = { epochs = 1, batch = $batch, lr = 0.02 }
dense.allow-chance = true
calibration = { images-per-class = 2, positions-per-image = 5 }
methods = [
    { selector = "thinet", reconstruction = "channel-scale" },
    { selector = "thinet" },
    { selector = "thinet-omp", reconstruction = "channel-scale" },
    { selector = "apoz" },
    { selector = "weight-sum-l1" },
    { selector = "random" },
]
[prune]
mode = "$5"
keep-rates = [$6]
after-last = { epochs = 2, batch = $batch, lr = 0.01 }
SPEC
}
# run SPEC RESULTS JOBS; fails if a cell diverged, which would shorten the sweep
run() {
    "$THINET" run "$work/$1.toml" --results "$work/$2" --jobs "$3" || return 1
    ! grep -l '"status": "diverged"' "$work/$2"/store/*/result.json >&2
}

# compare NAME TRAIN-LIMIT NET BATCH: in turn, twice, so that all run under the same conditions; the best of each counts. The time
# of one worker with one thread shows how well two workers use the cores, independently of libtorch's threads.
compare() {
    name=$1
    spec workers 2 "$2" 1 layer-by-layer 0.5 "$3" "$4"
    spec threads 2 "$2" 2 layer-by-layer 0.5 "$3" "$4"
    of_workers=1e9 of_threads=1e9 of_one=1e9
    for turn in 1 2; do
        timed run threads "threads-$name-$turn" 1
        of_threads=$(least "$of_threads" "$seconds")
        timed run workers "workers-$name-$turn" 2
        of_workers=$(least "$of_workers" "$seconds")
        timed run workers "one-$name-$turn" 1
        of_one=$(least "$of_one" "$seconds")
    done
    note "$name: two workers over one worker with two threads" "$(ratio "$of_threads" "$of_workers")" 'v >= 1.3' \
        "$of_threads s and $of_workers s"
    note "$name: two workers over one worker" "$(ratio "$of_one" "$of_workers")" '' "$of_one s and $of_workers s"
}
least() { echo "$1 $2" | awk '{ print ($2 < $1) ? $2 : $1 }'; }
ratio() { echo "$1 $2" | awk '{ printf "%.2f", $1 / $2 }'; }

note 'machine' "$(grep -c '^processor' /proc/cpuinfo) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
# The smaller a step, the less of it two threads can share.
compare 'tiny at batch 16' 4000 'arch = "tiny"' 16
compare 'tiny at batch 50' 8000 'arch = "tiny"' 50
compare 'cifar-resnet20 x 1/4 at batch 16' 1000 'arch = "cifar-resnet20", width = 0.25' 16
compare 'cifar-resnet20 x 1/4 at batch 50' 1500 'arch = "cifar-resnet20", width = 0.25' 50
compare 'cifar-vgg16 x 1/8 at batch 16' 1000 'arch = "cifar-vgg16", width = 0.125' 16
compare 'cifar-vgg16 x 1/8 at batch 50' 2000 'arch = "cifar-vgg16", width = 0.125' 50

# A study as a user runs it: a small net, thousands of images.
spec usual 1 20000 1 layer-by-layer '0.5'
timed run usual usual 1
overhead=$(cat "$work"/usual/store/cell-*/result.json | awk -F '[:,]' '/^  "seconds"/ { all += $2 } /^  "busy_seconds"/ { busy += $2 } END { printf "%.2f", 100 * (1 - busy / all) }')
note 'cell time outside libtorch and decoding, per cent' "$overhead" 'v < 2'

# Six methods, four rates, three seeds, all layers from one calibration.
spec grid 3 1000 1 one-shot '0.7, 0.5, 0.4, 0.3'
timed run grid grid 2
stages() { ls "$work/grid/store" | grep -c "^$1-"; }
computed() { cat "$work"/grid/runs/*/log.jsonl | grep '"event":"stage-finished"' | grep -c "\"id\":\"$1-"; }
note '6 methods x 4 rates x 3 seeds: dense nets made' "$(computed dense)" 'v == 3'
note '6 methods x 4 rates x 3 seeds: calibrations made' "$(computed '\(zeros\|moments\)')" 'v == 6'
note '6 methods x 4 rates x 3 seeds: cells made' "$(computed cell)" 'v == 72'
[ "$(stages cell)" -eq 72 ] || exit 1

# More than a hundred cells, run again when finished.
spec hundred 5 100 1 one-shot '0.7, 0.5, 0.4, 0.3'
timed run hundred hundred 2
timed run hundred hundred 2
note "a finished sweep of $(ls "$work/hundred/store" | grep -c '^cell-') cells looked at again, seconds" "$seconds" 'v < 1'

# Ten thousand cells: the list of stages from a dry submission, with copies of one record, as only their number matters.
rates=$(awk 'BEGIN { for (i = 0; i < 40; i++) printf "%s%.3f", i ? ", " : "", 0.5 + i * 0.01 }')
spec large 42 1000 1 layer-by-layer "$rates"
"$THINET" submit "$work/large.toml" --results "$work/large" --dry-run >/dev/null 2>&1
record=$(cat "$(ls -d "$work"/usual/store/cell-*/result.json | head -1)")
tr '{' '\n' <"$(ls "$work"/large/runs/*/stages.json)" | sed -n 's/.*"id":"\([a-z0-9-]*\)".*/\1/p' | while read -r id || [ -n "$id" ]; do
    mkdir -p "$work/large/store/$id"
    printf '%s' "$record" >"$work/large/store/$id/result.json"
done
timed "$THINET" status "$work/large.toml" --results "$work/large"
grep -q 'cells: 10080 of 10080' "$work/last.out" || {
    cat "$work/last.out" >&2
    exit 1
}
note 'thinet status of 10,080 finished cells, seconds' "$seconds" 'v < 1'

cp "$work/out" "$out"
printf '%d figures, %d not as required: %s\n' "$(grep -c ',yes,\|,NO,' "$out")" "$(grep -c ',NO,' "$out")" "$out"
