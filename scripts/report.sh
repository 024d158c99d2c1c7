#!/bin/sh
# Run by `make report`, and by `make reproduce-table` after the figures: writes the page of results/tables (`thinet report`), then Vega
# beside it, which draws its figures. Without the wheel that holds Vega the page is written all the same, with its tables; one line names
# what is missing, and the exit status is 1.
#
#     scripts/report.sh [RESULTS]
#
# Uses `thinet` of the release build, or $THINET.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
if [ -z "${THINET:-}" ]; then THINET=${CARGO_TARGET_DIR:-target}/release/thinet; fi
results=${1:-results}
# Vega first: `thinet report` says so where it is missing.
vega=0
mkdir -p "$results/report"
if scripts/setup-paper.sh; then
    .venv-paper/bin/python paper/bundle.py "$results/report/vega.js" || vega=1
else
    vega=1
fi
# A table that cannot be shown leaves out its own section alone; the exit status is not 0 then.
status=0
"$THINET" report --results "$results" >/dev/null || status=$?
[ -f "$results/report/index.html" ] || exit "$status"
[ "$vega" -eq 0 ] || {
    echo 'report: tables only, or figures drawn by the Vega of an earlier run; to try again: make report' >&2
    [ "$status" -ne 0 ] || status=1
}
printf 'report: %s\n' "$results/report/index.html"
exit "$status"
