#!/bin/sh
# Runs a sweep, one of its selectors a program, through a real Slurm on this machine: submits it as arrays, kills a node half-way,
# signals the end of its time to one task and cancels another; then submits what is missing again. The tables must equal those of a
# local run.
#
#     scripts/test-slurm.sh        as root; installs Slurm from Debian's packages if it is missing (3: cannot)
#
# Takes about two minutes on two cores. Uses `thinet` of the release build, or $THINET. Prints "slurm: …" and exits with 0, or
# prints what does not hold and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
scripts/slurm.sh install
. scripts/program.sh
work=$(mktemp -d)
cluster=$work/cluster
trap 'scripts/slurm.sh stop "$cluster" || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

fail() {
    printf 'error: %s\n' "$1" >&2
    squeue --array >&2 || true
    tail -n 5 "$work"/results/runs/*/slurm/*.out >&2 2>/dev/null || true
    exit 1
}

# A selector that is a program: weight sums, without NumPy.
cat >"$work/l1.py" <<'PROGRAM'
import json, struct, sys

print('{"protocol": 1, "name": "l1", "needs": ["filters"]}', flush=True)
for line in sys.stdin:
    question = json.loads(line)
    content = open(question["evidence"], "rb").read()
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8 : 8 + length])[question["layer"] + ".filters"]
    start, end = (8 + length + at for at in entry["data_offsets"])
    weights = [abs(weight) for (weight,) in struct.iter_unpack("<f", content[start:end])]
    n = entry["shape"][1]
    print(json.dumps({"scores": [sum(weights[c * n : (c + 1) * n]) for c in range(question["channels"])]}), flush=True)
PROGRAM

cat >"$work/sweep.toml" <<'SPEC'
name = "sweep"
table = "sweep"
seeds = 2
dataset = { kind = "fashion-mnist", train-limit = 1000, test-limit = 500 }
input.size = 32
net = { arch = "cifar-vgg16", width = 0.125 }
dense.train = { epochs = 2, batch = 50, lr = 0.05 }
dense.allow-chance = true
calibration = { images-per-class = 2, positions-per-image = 5 }
methods = [
    { selector = "thinet", reconstruction = "channel-scale" },
    { selector = "thinet" },
    { selector = "apoz" },
    { selector = { command = ["python3", "l1.py"], needs = ["filters"] } },
    { selector = "random" },
]
[prune]
layers = ["conv1_1", "conv2_2"]
keep-rates = [0.5]
after-last = { epochs = 15, batch = 50, lr = 0.01 }
SPEC

"$THINET" run "$work/sweep.toml" --allow-commands --results "$work/local" --jobs 2 >/dev/null 2>"$work/log" || fail "the local run failed: $(tail -1 "$work/log")"

scripts/slurm.sh start "$cluster" 2
. "$cluster/env.sh"

# asked WHAT: a number from `thinet status`
asked() { "$THINET" status "$work/sweep.toml" --results "$work/results" --json | python3 -c "import json, sys; s = json.load(sys.stdin); print($1)"; }
submit() { "$THINET" submit "$work/sweep.toml" --allow-commands --results "$work/results" --partition test --checkpoint-every 0.2; }

# until_queue SECONDS CONDITION: waits for a condition on the queue; requeued jobs may start at once
until_queue() {
    end=$(($(date +%s) + $1))
    until eval "$2"; do
        [ "$(date +%s)" -lt "$end" ] || fail "not true after $1 s: $2"
        scripts/slurm.sh hurry "$cluster"
        sleep 0.5
    done
}
stored() { find "$work/results/store" -path '*/cell-*/result.json' 2>/dev/null | wc -l; }
# running NODE: job and task of an array on this node whose cell began at most four seconds ago. Before its first line the task's
# shell may not handle signals yet; later the cell may end before it is killed.
running() {
    task=$(squeue --noheader --array --states=RUNNING --nodelist="$1" --name="$cells" --format=%i | head -1)
    [ -n "$task" ] || return 0
    out=$(find "$work/results/runs" -path "*/slurm/$task.out" -newermt '4 seconds ago')
    if [ -n "$out" ] && [ "$(tail -1 "$out" | cut -d ' ' -f 1)" = start ]; then echo "$task"; fi
}
cells=thinet-sweep-001-cells-0

first=$(submit)
printf '%s\n' "$first"
printf '%s\n' "$first" | grep -q '10 tasks' || fail 'the first submission should send ten cells'
squeue --noheader --name="$cells" --format=%E | grep -q afterany || fail 'cells should wait for the dense nets'
[ -z "$(submit)" ] || fail 'a second submission should send nothing, as everything is in the queue'

# Both tasks from the same moment: between two moments one may end.
until_queue 400 '[ "$(stored)" -ge 2 ] && again=$(running n1) && lost=$(running n2) && [ -n "$again" ] && [ -n "$lost" ]'
cancelled=$(squeue --noheader --array --states=PENDING --name="$cells" --format=%i | tail -1)
[ -n "$cancelled" ] || fail 'a cell should wait'
scancel "$cancelled"
# Two minutes before its time is over, Slurm sends this signal. The task is queued again at once, and scancel would go on
# trying until it reached the new one.
timeout 2 scancel --signal=USR1 --batch "$again" || true
scripts/slurm.sh kill-node "$cluster" n2
sleep 2
scripts/slurm.sh start-node "$cluster" n2
until_queue 400 '[ "$(squeue --noheader --name="$cells" --states=PENDING,RUNNING,COMPLETING | wc -l)" -eq 0 ]'
until_queue 60 '[ "$(squeue --noheader --states=PENDING,RUNNING,COMPLETING | wc -l)" -eq 0 ]'

grep -q 'is to be queued again' "$work"/results/runs/*/slurm/*_"${again#*_}".out || fail "task $again should queue itself again"
[ "$(asked 's["tally"]["missing"]')" -eq 1 ] || fail "one cell should be missing, the cancelled $cancelled"
second=$(submit)
printf '%s\n' "$second"
printf '%s\n' "$second" | grep -q '1 task ' || fail 'the second submission should send one cell'
until_queue 200 '[ "$(squeue --noheader --states=PENDING,RUNNING,COMPLETING | wc -l)" -eq 0 ]'
[ "$(asked 's["tally"]["done"]')" -eq 12 ] || fail 'twelve stages should be stored'

for table in "$work"/local/tables/*; do
    name=${table##*/}
    case $name in *.env.json | *.seconds.csv) continue ;; esac
    cmp -s "$table" "$work/results/tables/$name" || fail "$name differs from the local run's"
done
files=$(find "$work/local/tables" -type f ! -name '*.env.json' ! -name '*.seconds.csv' | wc -l)
printf 'slurm: 10 cells in an array, two of them with a program as selector, node n2 killed under task %s, task %s queued again at its notice, %s cancelled and sent again, %d files as of a local run\n' \
    "$lost" "$again" "$cancelled" "$files"
