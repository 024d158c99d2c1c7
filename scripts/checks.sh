# Sourced by tests that continue after a failed check and count it in `failed`.
failed=0

# holds WHAT COMMAND...
holds() {
    what=$1
    shift
    if "$@"; then
        printf 'ok: %s\n' "$what"
    else
        printf 'FAILED: %s\n' "$what"
        failed=$((failed + 1))
    fi
}

# change_cell SUMMARY: takes a point off the first method's tuned top-1 in a table of means
change_cell() {
    "${PYTHON:-python3}" - "$1" <<'CODE'
import csv, sys
rows = list(csv.reader(open(sys.argv[1])))
at = rows[0].index("after_fine_tune_top1_mean")
row = next(row for row in rows[1:] if row[at])
row[at] = str(float(row[at]) - 1)
csv.writer(open(sys.argv[1], "w"), lineterminator="\n").writerows(rows)
CODE
}
