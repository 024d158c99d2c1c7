#!/bin/sh
# Run by `make figures`, and by `make reproduce-table` after the studies: draws the figures of results/tables (`thinet figures`), then turns each
# specification into SVG and PNG. Without the wheels for that the specifications are written all the same; one line names what is
# missing, and the exit status is 1.
#
#     scripts/figures.sh [RESULTS [TABLE ...]]
#
# Uses `thinet` of the release build, or $THINET.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
if [ -z "${THINET:-}" ]; then THINET=${CARGO_TARGET_DIR:-target}/release/thinet; fi
results=${1:-results}
[ $# -eq 0 ] || shift
# A table that cannot be read leaves out its own figures alone; the others are drawn, and the exit status is not 0.
status=0
drawn=$("$THINET" figures --results "$results" "$@") || status=$?
printf 'drawn: %d figures as specifications in %s\n' "$(printf '%s' "$drawn" | grep -c '^')" "$results/figures"
scripts/setup-paper.sh || {
    echo 'figures: specifications only; pictures beside them, if any, are of an earlier run; to try again: make figures' >&2
    exit 1
}
.venv-paper/bin/python paper/render.py "$results/figures"
exit "$status"
