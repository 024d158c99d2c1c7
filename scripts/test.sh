#!/bin/sh
# Run by `make test` after set-up: formatting, lints, the smoke study's data, every test, the tests of set-up, the self-test of
# `make gpu-check`. All of them run even if one fails; the last line is "N passed, M failed". A failed check counts as one failure.
set -u
unset CDPATH
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT
trap 'exit 130' INT TERM HUP
passed=0
failed=0

heading() { printf '\n=== %s ===\n' "$1"; }

# check NAME COMMAND...
check() {
    heading "$1"
    shift
    "$@" || failed=$((failed + 1))
}

# logged COMMAND...: prints the output and copies it to $log; returns the command's exit status
logged() {
    { "$@"; echo $? >"$log.status"; } 2>&1 | tee "$log"
    return "$(cat "$log.status")"
}

check 'formatting' cargo fmt --all --check
check 'lints' cargo clippy --workspace --all-targets -- -D warnings
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
# It did not build, or a test program died before it reported how many failed.
if [ "$status" -ne 0 ] && [ "${counts#* }" -eq 0 ]; then failed=$((failed + 1)); fi

heading 'tests of set-up'
logged scripts/test-setup.sh
counts=$(sed -n 's/^setup: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log")
counts=${counts:-0 1}
passed=$((passed + ${counts% *}))
failed=$((failed + ${counts#* }))

heading 'self-test of the folder for CUDA machines'
if scripts/gpu-check.sh --self-test; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

# These take minutes each, and the second installs Slurm: only on request.
if [ "${LONG_TESTS:-}" = 1 ]; then
    THINET=${CARGO_TARGET_DIR:-target}/debug/thinet
    export THINET
    heading 'a sweep that is killed twenty times'
    if scripts/test-resume.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    heading 'a sweep through Slurm'
    scripts/slurm.sh install
    case $? in
        0) if scripts/test-slurm.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi ;;
        3) echo 'not run: Slurm cannot be installed here' ;;
        *) failed=$((failed + 1)) ;;
    esac
    heading 'the commands and specs of the book'
    if scripts/test-book.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    heading 'a selector in a package of its own'
    if scripts/test-example.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    heading 'the wheel in fresh environments'
    if scripts/wheel.sh --test; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
fi

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
