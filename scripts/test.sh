#!/bin/sh
# Run by `make test` after set-up: formatting, lints, NumPy, the smoke study's data, every test, the tests of set-up, the self-test of
# `make gpu-check`. All of them run even if one fails; the last line is "N passed, M failed", after the names of what failed. A failed
# check counts as one failure.
set -u
unset CDPATH
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log" "$log.status" "$log.failed"' EXIT
trap 'exit 130' INT TERM HUP
passed=0
failed=0
: >"$log.failed"

heading() { printf '\n=== %s ===\n' "$1"; }

# fail NAME: counts one failure, and keeps its name for the end
fail() {
    failed=$((failed + 1))
    echo "failed: $1" >>"$log.failed"
}

# check NAME COMMAND...: counts as one failure, or as nothing
check() {
    name=$1
    shift
    heading "$name"
    "$@" || fail "$name"
}

# test_of NAME COMMAND...: counts as one failure, or as one that passed
test_of() {
    name=$1
    shift
    heading "$name"
    if "$@"; then passed=$((passed + 1)); else fail "$name"; fi
}

# logged COMMAND...: prints the output and copies it to $log; returns the command's exit status
logged() {
    { "$@"; echo $? >"$log.status"; } 2>&1 | tee "$log"
    return "$(cat "$log.status")"
}

check 'formatting' cargo fmt --all --check
check 'lints' cargo clippy --workspace --all-targets -- -D warnings
check 'NumPy' scripts/numpy.sh
check 'data of the smoke study' cargo run --package thinet-cli -- data fetch --for experiments/smoke.toml

heading 'tests'
if cargo test --workspace --no-run && logged cargo test --workspace --no-fail-fast --quiet; then
    status=0
else
    status=1
fi
counts=$(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
passed=$((passed + ${counts% *}))
failed=$((failed + ${counts#* }))
# A test program prints "failures:" twice: above their outputs, and above their names.
awk '/^failures:$/ { names = "" } /^    [^ ]+$/ { names = names "failed: " $1 "\n" } /^test result:/ { printf "%s", names; names = "" }' \
    "$log" >>"$log.failed"
# It did not build, or a test program died before it reported how many failed.
if [ "$status" -ne 0 ] && [ "${counts#* }" -eq 0 ]; then fail 'tests'; fi

heading 'tests of set-up'
logged scripts/test-setup.sh
counts=$(sed -n 's/^setup: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log")
counts=${counts:-0 1}
passed=$((passed + ${counts% *}))
failed=$((failed + ${counts#* }))
[ "${counts#* }" -eq 0 ] || echo 'failed: tests of set-up' >>"$log.failed"

test_of 'self-test of the folder for CUDA machines' scripts/gpu-check.sh --self-test

# These take minutes, and one installs Slurm: only on request.
if [ "${LONG_TESTS:-}" = 1 ]; then
    THINET=${CARGO_TARGET_DIR:-target}/debug/thinet
    export THINET
    test_of 'a sweep that is killed twenty times' scripts/test-resume.sh
    heading 'installation of Slurm'
    scripts/slurm.sh install
    case $? in
        0) test_of 'a sweep through Slurm' scripts/test-slurm.sh ;;
        3) echo 'not run: Slurm cannot be installed here' ;;
        *) fail 'installation of Slurm' ;;
    esac
    if scripts/setup-paper.sh; then
        test_of 'figures, paper and findings of the committed tables' scripts/test-figures.sh
    else
        fail 'set-up of figures and paper'
    fi
    test_of 'the commands and specs of the book' scripts/test-book.sh
    test_of 'a selector in a package of its own' scripts/test-example.sh
    test_of 'the wheel in fresh environments' scripts/wheel.sh --test
fi

echo
cat "$log.failed"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
