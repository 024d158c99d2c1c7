#!/bin/sh
# Run by `make test-figures`: the committed figures and the paper come out of the committed tables byte for byte, whatever fonts the
# machine has and in whichever order they are rendered; one changed cell of a table changes its pictures and the paper. Needs the wheels of
# paper/requirements.txt in .venv-paper; without them it says so and tests the specifications alone.
#
# Uses `thinet` of the release build, or $THINET.
set -u
unset CDPATH
cd "$(dirname "$0")/.." || exit 1
. scripts/program.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
. scripts/checks.sh

# same FOLDER ENDING: whether it has the committed files of that ending and no others
same() {
    status=0
    for file in results/figures/*."$2" "$1"/*."$2"; do
        name=$(basename "$file")
        cmp -s "results/figures/$name" "$1/$name" || {
            echo "differs: $name"
            status=1
        }
    done
    return $status
}

# changed FILE: whether it differs from the committed one
changed() { ! cmp -s "$1" "results/figures/$(basename "$1")"; }
changed_paper() { ! cmp -s "$work/edited/paper.pdf" paper/thinet-rs.pdf; }

"$THINET" figures --out "$work/first" >/dev/null 2>"$work/log" || cat "$work/log"
holds 'the tables give the committed specifications' same "$work/first" vl.json

figure=selectors-fashion-mnist-accuracy-flops
mkdir -p "$work/edited/tables"
cp results/tables/*.csv results/tables/*.json "$work/edited/tables"
change_cell "$work/edited/tables/selectors-fashion-mnist-summary.csv"
"$THINET" figures --results "$work/edited" >/dev/null 2>"$work/log"
holds 'a changed cell is reported' grep -q 'selectors-fashion-mnist-summary.csv has changed' "$work/log"
holds 'a changed cell changes its specification' changed "$work/edited/figures/$figure.vl.json"

# A project of its own, whose environment cannot be made.
mkdir -p "$work/without/paper" "$work/without/results"
cp -r scripts "$work/without"
cp paper/requirements.txt "$work/without/paper"
cp -r results/tables "$work/without/results"
without_wheels() {
    PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null THINET=$program "$work/without/scripts/figures.sh" >/dev/null 2>"$work/log"
    [ $? -eq 1 ] && [ "$(grep -c '^error: pip cannot install' "$work/log")" -eq 1 ] && grep -q 'specifications only' "$work/log"
}
without_vega() {
    PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null THINET=$program "$work/without/scripts/report.sh" >/dev/null 2>"$work/log"
    [ $? -eq 1 ] && [ "$(grep -c '^error: pip cannot install' "$work/log")" -eq 1 ] && [ -s "$work/without/results/report/index.html" ]
}
case $THINET in */*) program=$(realpath "$THINET") ;; *) program=$THINET ;; esac
holds 'without the wheels the exit status is 1, and a line says why' without_wheels
holds 'without the wheels the report is written, the exit status is 1, and a line says why' without_vega
holds 'without the wheels the specifications are written' same "$work/without/results/figures" vl.json

if [ -x .venv-paper/bin/python ]; then
    render() { .venv-paper/bin/python paper/render.py "$@" >/dev/null; }
    # A home with a font of the same name, which a renderer that looks at the machine's fonts would find.
    fonts=$work/home/.local/share/fonts
    mkdir -p "$fonts"
    other=$(find /usr/share/fonts /usr/local/share/fonts -name '*.ttf' 2>/dev/null | head -n 1)
    [ -z "$other" ] || cp "$other" "$fonts/LiberationSans-Regular.ttf"
    HOME=$work/home render "$work/first"
    for ending in svg png; do holds "the committed $ending files" same "$work/first" "$ending"; done
    mkdir "$work/alone"
    cp "$work/first/$figure.vl.json" "$work/alone"
    render "$work/alone" "$figure"
    for ending in svg png; do
        holds "a figure rendered alone, $ending" cmp -s "$work/alone/$figure.$ending" "results/figures/$figure.$ending"
    done
    render "$work/edited/figures" "$figure"
    for ending in svg png; do holds "a changed cell changes its $ending" changed "$work/edited/figures/$figure.$ending"; done
    sed 's/"font": "Liberation Sans/"font": "Some Other Sans/' "$work/first/$figure.vl.json" >"$work/alone/$figure.vl.json"
    refused() { ! render "$work/alone" 2>"$work/log" && grep -q 'asks for the font Some Other Sans' "$work/log"; }
    holds 'another font is refused' refused

    # paper FOLDER: typesets the text there, from the tables and figures beside it
    paper() { .venv-paper/bin/python "$1/paper/build.py" "$1/paper.pdf" >"$work/log" 2>&1 || cat "$work/log"; }
    for copy in as-it-is edited; do
        mkdir -p "$work/$copy/results/tables"
        cp -r paper "$work/$copy/paper"
        cp results/tables/*.csv results/tables/*.toml results/tables/*.json "$work/$copy/results/tables"
        cp -r results/figures "$work/$copy/results/figures"
    done
    cp "$work/edited/tables/"*.csv "$work/edited/results/tables"
    paper "$work/as-it-is"
    holds 'the committed paper' cmp -s "$work/as-it-is/paper.pdf" paper/thinet-rs.pdf
    paper "$work/edited"
    holds 'a changed cell is typeset' test -s "$work/edited/paper.pdf"
    holds 'a changed cell changes the paper' changed_paper

    # check: the numbers of the text there; finds PATTERN: it fails and names that
    cp README.md "$work/as-it-is"
    cp -r docs "$work/as-it-is"
    check() { .venv-paper/bin/python "$work/as-it-is/paper/check.py" >"$work/log" 2>&1; }
    finds() { ! check && grep -q "$1" "$work/log"; }
    holds 'the numbers of the paper and the findings equal their cells' check
    text=$work/as-it-is/paper/sections/setup.typ
    cp "$text" "$work/setup.typ"
    echo 'The nets reach 91.3 per cent.' >>"$text"
    holds 'a digit that is typed into the paper is found' finds "'91.3' is typed"
    mv "$work/setup.typ" "$text"
    sed 's/ThiNet leaves 73.9 %/ThiNet leaves 73.8 %/' docs/findings.md >"$work/as-it-is/docs/findings.md"
    holds 'a finding that differs from its cell is found' finds 'docs/findings.md: .*73.8.* instead of .*73.9'
    sed 's/ThiNet w\/o w below at none; APoZ below at 0.6/ThiNet w\/o w below at 0.6; APoZ below at 0.6/' docs/findings.md >"$work/as-it-is/docs/findings.md"
    holds 'a finding that differs from its verdict is found' finds 'ThiNet w/o w below at 0.6.* says below at \[\]'
    sed 's/ThiNet w\/o w below at none; APoZ below at 0.6/ThiNet wo w below at none; APoZ below at 0.6/' docs/findings.md >"$work/as-it-is/docs/findings.md"
    holds 'a verdict of an unknown method is found' finds "'ThiNet wo w below at none' is of no row"
    sed 's/^  <!-- verdicts selection-fashion-mnist.*//; s/^  <!-- verdicts seeds-fashion-mnist.*//' docs/findings.md >"$work/as-it-is/docs/findings.md"
    holds 'a finding that says what is shown without verdicts is found' finds 'without verdicts: - \*\*Twenty nets'
    cp docs/findings.md "$work/as-it-is/docs"
    cells=$work/as-it-is/results/tables/seeds-fashion-mnist.seconds.csv
    awk -F, -v OFS=, 'NR == 2 { $(NF - 2) += 36000 } 1' "$cells" >"$work/seconds.csv" && mv "$work/seconds.csv" "$cells"
    holds 'the paper follows its hours' check
else
    echo 'not run: pictures, as .venv-paper does not exist (scripts/setup-paper.sh creates it)'
fi
[ "$failed" -eq 0 ]
