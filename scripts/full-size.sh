#!/bin/sh
# A study at full size on a CPU: VGG-16 and ResNet-50 with all their channels on photographs of 224×224, random weights, two
# layers (one block) pruned by every selector; killed half-way and started again; its peak of memory.
#
#     scripts/full-size.sh FOLDER      FOLDER holds photographs as val/<WordNet id>/*.JPEG, 20 classes or more
#
# Takes about 15 minutes on two cores. Prints the figures and exits with 0, or prints what does not hold and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
most_kib=$((6 * 1000 * 1000))

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

[ $# -eq 1 ] && [ -d "$1/val" ] || fail "usage: scripts/full-size.sh FOLDER (with val/<WordNet id>/*.JPEG)"
photos=$(cd "$1" && pwd)
cargo build --quiet --release --package thinet-cli
thinet=${CARGO_TARGET_DIR:-target}/release/thinet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Twenty classes; every photograph is used for training and for testing.
ls "$photos/val" | sort | head -20 | while read -r class; do
    mkdir -p "$work/data/train/$class" "$work/data/val/$class"
    for split in train val; do
        for image in "$photos/val/$class"/*; do ln -s "$image" "$work/data/$split/$class/"; done
    done
done

# spec NAME NET LAYERS
spec() {
    cat >"$work/$1.toml" <<SPEC
name = "$1"
table = "$1"
methods = [
    { selector = "thinet", reconstruction = "channel-scale" },
    { selector = "thinet" },
    { selector = "thinet-omp", reconstruction = "channel-scale" },
    { selector = "apoz" },
    { selector = "weight-sum-l1" },
    { selector = "weight-sum-l2" },
    { selector = "random" },
]
[dataset]
kind = "imagenet"
classes = 20
protocol = "caffe-short"
calibration-protocol = "caffe-squash"
[net]
$2
[dense]
allow-chance = true
[dense.train]
steps = 1
batch = 4
lr = 1e-6
augment = { random-crop = true, mirror = true }
[prune]
layers = [$3]
keep-rates = [0.5]
[prune.after-last]
steps = 1
batch = 4
lr = 1e-6
augment = { random-crop = true, mirror = true }
[calibration]
images-per-class = 1
positions-per-image = 10
SPEC
}

# run NAME [KILL-AFTER]: one job, so that the peak is that of one worker; killed once so many cells are begun
run() {
    "$thinet" run "$work/$1.toml" --data "$work/data" --results "$work/results" --jobs 1 >"$work/$1.out" 2>"$work/$1.log" &
    pid=$!
    peak=0
    while kill -0 "$pid" 2>/dev/null; do
        for process in "$pid" $(pgrep -P "$pid"); do
            now=$(awk '/^VmHWM/ { print $2 }' "/proc/$process/status" 2>/dev/null || echo 0)
            if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
        done
        if [ "${2:-0}" -gt 0 ] && [ "$(ls "$work/results/store" 2>/dev/null | grep -c '^cell')" -ge "$2" ]; then
            kill -9 "$pid"
        fi
        sleep 0.2
    done
    wait "$pid"
}

spec full-size-vgg16 'arch = "vgg16"' '"conv3_1", "conv3_2"'
spec full-size-resnet50 'arch = "resnet50"' '"layer2.0.conv1", "layer2.0.conv2"'
for name in full-size-vgg16 full-size-resnet50; do
    start=$(date +%s)
    run "$name" 4 && fail "$name was to be killed while its fourth cell ran, and ended before"
    killed=$(ls -d "$work"/results/store/cell-*/result.json 2>/dev/null | wc -l)
    first=$peak
    run "$name" || fail "$name: $(tail -1 "$work/$name.log")"
    if [ "$first" -gt "$peak" ]; then peak=$first; fi
    rows=$(tail -n +2 "$work/results/tables/$name.csv" | wc -l)
    [ "$rows" -eq 7 ] || fail "$name: $rows rows, expected 7"
    if grep -q 'not-run\|diverged' "$work/results/tables/$name.csv"; then fail "$name: not every cell is done"; fi
    [ "$peak" -gt 0 ] && [ "$peak" -lt "$most_kib" ] || fail "$name: peak of $peak KiB, allowed $most_kib"
    printf '%s: 7 selectors, killed with %d cells stored and finished, peak %d MiB, %d s\n' \
        "$name" "$killed" $((peak / 1024)) $(($(date +%s) - start))
    # So that the second study counts only its own cells.
    mkdir -p "$work/done" && mv "$work"/results/store/cell-* "$work/done/"
done
