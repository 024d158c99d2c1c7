#!/bin/sh
# Kills a sweep with two workers again and again and restarts it each time. It must end with the tables of an unbroken sweep and the
# same stored values in every stage, as `thinet diff --exact` compares them. Half of the kills come at seeded random moments (all
# processes, the parent alone, one worker alone), half between the last step of a training and the end of its stage.
#
#     scripts/test-resume.sh [KILLS [SEED]]      default: 20 kills, seed 1
#
# Takes about two minutes on two cores. Uses `thinet` of the release build, or $THINET. Prints "resume: …" and exits with 0, or
# prints what differs and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
kills=${1:-20}
seed=${2:-1}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

. scripts/program.sh
work=$(mktemp -d)
group=
trap '[ -z "$group" ] || kill -9 "-$group" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Dropout draws from libtorch's own generator, batch norm keeps running statistics, two seeds train at a time.
cat >"$work/sweep.toml" <<'SPEC'
name = "sweep"
table = "sweep"
seeds = 2
dataset = { kind = "fashion-mnist", train-limit = 1000, test-limit = 500 }
input.size = 32
net = { arch = "vgg16", batch-norm = true, width = 0.0625 }
dense.train = { epochs = 2, batch = 50, lr = 0.05, augment = { crop-padding = 2, mirror = true } }
dense.allow-chance = true
calibration = { images-per-class = 2, positions-per-image = 5 }
methods = [
    { selector = "thinet", reconstruction = "channel-scale" },
    { selector = "apoz" },
    { selector = "random" },
]
[prune]
layers = ["conv1_1", "conv2_2", "conv5_3"]
keep-rates = [0.5]
after-layer = { steps = 10, batch = 50, lr = 0.01 }
after-last = { epochs = 2, batch = 50, lr = 0.01 }
[from-scratch]
epochs = 2
batch = 50
lr = 0.01
SPEC

# start RESULTS SECONDS: in a process group of its own, with a checkpoint every so many seconds (0: after every step)
start() {
    setsid "$THINET" run "$work/sweep.toml" --results "$work/$1" --jobs 2 --checkpoint-every "$2" >"$work/out" 2>"$work/log" &
    group=$!
}

# sums RESULTS: checksums of tables and records of where channels stayed
sums() {
    (cd "$work/$1" && find tables -type f ! -name '*.seconds.csv' \( -name '*.csv' -o -name '*.md' -o -name '*.parquet' -o -name '*.kept.json' \) \
        -exec sha256sum {} + | sort -k 2)
}

# past_last_step RESULTS TRAINING-STEPS: whether a training is past its last step and its stage is not stored
past_last_step() {
    # shellcheck disable=SC2086 # the training is a pattern
    set -- "$work/$1"/store/*/train-$2-*
    [ -e "$1" ]
}

start unbroken 0.2
wait "$group" || fail "the unbroken run failed: $(tail -1 "$work/log")"
sums unbroken >"$work/expected"
files=$(wc -l <"$work/expected")
[ "$files" -ge 10 ] || fail "the unbroken run left $files files of tables, expected ten"

# check RESULTS: compares a finished broken run with the unbroken one
check() {
    sums "$1" >"$work/found"
    cmp -s "$work/expected" "$work/found" || {
        diff "$work/expected" "$work/found" >&2 || true
        fail "after $done_kills kills (seed $seed) the tables differ from those of the unbroken run"
    }
    "$THINET" diff sweep sweep --results "$work/unbroken" --second-results "$work/$1" --exact >"$work/diff" 2>&1 || {
        cat "$work/diff" >&2
        fail "after $done_kills kills (seed $seed) stored values differ from those of the unbroken run"
    }
    rest=$(cd "$work/$1" && find . -name '*.tmp' -o -name 'train-*' -o -name 'layers-*')
    [ -z "$rest" ] || fail "the finished run left temporary files or checkpoints: $(echo "$rest" | tr '\n' ' ')"
}

done_kills=0
run=1
ended=0
for draw in $(awk -v n=400 -v seed="$seed" 'BEGIN { srand(seed); for (i = 0; i < n; i++) printf "%.2f:%d\n", 0.3 + 4 * rand(), int(3 * rand()) }'); do
    [ "$done_kills" -lt "$kills" ] || break
    case $((done_kills % 8)) in
        1) last_step=dense-000000000040 ;;
        3) last_step='conv[12]_[12]-000000000010' ;;
        5) last_step=last-000000000040 ;;
        7) last_step=scratch-000000000040 ;;
        *) last_step= ;;
    esac
    if [ -z "$last_step" ]; then
        start "broken-$run" 0.2
        sleep "${draw%:*}"
    else
        start "broken-$run" 0
        while kill -0 "$group" 2>/dev/null && ! past_last_step "broken-$run" "$last_step"; do
            sleep 0.02
        done
    fi
    case ${draw#*:} in
        0) kill -9 "-$group" 2>/dev/null || true ;;
        1) kill -9 "$group" 2>/dev/null || true ;;
        2)
            worker=$(ps -o pid= --ppid "$group" | head -1)
            # A killed worker is replaced; the run goes on until its parent is killed, too.
            if [ -n "$worker" ]; then
                kill -9 "$worker" 2>/dev/null || true
                sleep 1
            fi
            kill -9 "-$group" 2>/dev/null || true
            ;;
    esac
    # A run may end at any moment before the signal reaches it, so its exit status alone says whether it was killed (137).
    status=0
    wait "$group" 2>/dev/null || status=$?
    case $status in
        137) done_kills=$((done_kills + 1)) ;;
        0)
            # It ended by itself: that is a result, and the next kill is for a new run.
            check "broken-$run"
            ended=$((ended + 1))
            run=$((run + 1))
            ;;
        *) fail "a restarted run failed with status $status: $(tail -1 "$work/log")" ;;
    esac
done
[ "$done_kills" -eq "$kills" ] || fail "only $done_kills kills hit a running sweep"
start "broken-$run" 0.2
wait "$group" || fail "the last start failed: $(tail -1 "$work/log")"
group=
check "broken-$run"
stages=$(tail -1 "$work/diff")
printf 'resume: %d kills (seed %d) in %d sweeps; each time %d files of tables byte-identical, %s\n' "$done_kills" "$seed" $((ended + 1)) \
    "$files" "$stages"
