#!/bin/sh
# Run by `make test-report`: the report of the committed tables alone is the same twice, changes with one cell, is written without the wheel
# that draws its figures, and can be used in headless Chromium. Where Chromium is missing, root on Debian or Ubuntu installs the package; else the
# last part is not run, and a line says why. Never a part of `make test`.
#
#     scripts/test-report.sh [SCREENSHOTS]    also writes pictures of the page to that folder
#
# Uses `thinet` of the release build, or $THINET.
set -u
unset CDPATH
cd "$(dirname "$0")/.." || exit 1
if [ -z "${THINET:-}" ]; then THINET=${CARGO_TARGET_DIR:-target}/release/thinet; fi
THINET=$(realpath "$THINET") || exit 1
export THINET
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
. scripts/checks.sh
differs() { ! cmp -s "$1" "$2"; }

mkdir "$work/first" "$work/edited"
cp -r results/tables "$work/first"
cp -r results/tables "$work/edited"
scripts/report.sh "$work/first" 2>"$work/log"
status=$?
page=$work/first/report/index.html
cp "$page" "$work/page.html"
"$THINET" report --results "$work/first" >/dev/null 2>&1
holds 'the same tables give the same page' cmp -s "$page" "$work/page.html"

change_cell "$work/edited/tables/selectors-fashion-mnist-summary.csv"
"$THINET" report --results "$work/edited" >/dev/null 2>"$work/edited.log"
holds 'a changed cell changes the page' differs "$page" "$work/edited/report/index.html"
holds 'a changed cell is reported' grep -q 'selectors-fashion-mnist-summary.csv has changed' "$work/edited.log"

# A clone in which pip finds nothing.
mkdir -p "$work/clone/results"
cp -r scripts paper "$work/clone"
cp -r results/tables "$work/clone/results"
PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null "$work/clone/scripts/report.sh" >"$work/out" 2>"$work/clone.log"
wheelless=$?
holds 'without the wheel the exit status is 1' test "$wheelless" -eq 1
holds 'without the wheel one line names what is missing' test "$(grep -c '^error: pip cannot install .*vl-convert-python' "$work/clone.log")" -eq 1
holds 'without the wheel the page is the same' cmp -s "$page" "$work/clone/results/report/index.html"

if [ "$status" -ne 0 ]; then
    cat "$work/log"
    echo 'FAILED: the report with its figures'
    exit 1
fi

find_chromium() {
    for program in chromium chromium-browser google-chrome; do
        if command -v "$program"; then return 0; fi
    done
    return 1
}
chromium=$(find_chromium) || {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo 'installing the package chromium'
        { apt-get update && apt-get install -y --no-install-recommends chromium; } >"$work/apt.log" 2>&1 || tail -n 3 "$work/apt.log"
    fi
    chromium=$(find_chromium) || chromium=
}
if [ -z "$chromium" ]; then
    echo 'not run: the page in a browser, as Chromium is missing and cannot be installed here (Debian, Ubuntu: apt-get install chromium)'
else
    "${PYTHON:-python3}" scripts/test_report.py "$chromium" "$page" || failed=$((failed + 1))
    if [ $# -gt 0 ]; then "${PYTHON:-python3}" scripts/test_report.py "$chromium" "$page" "$1"; fi
fi
[ "$failed" -eq 0 ]
