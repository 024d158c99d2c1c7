#!/bin/sh
# Mutation tests: changes the code in one place at a time and runs the tests. Exits with 0 if they notice every change.
#
#     CRATES='graph seed' scripts/mutants.sh                      whole crates, one after the other
#     FILES='crates/harness/src/study/check.rs' ARGS='-C --lib' scripts/mutants.sh      single files
#
# A change takes two to ten seconds in a small crate: the default crates take about an hour on two quiet cores, `data` about
# two more. The tests of the harness link libtorch and train nets: take single files of it and the tests beside the code only,
# with ARGS='-C --lib', which cargo-mutants passes to the build as well as to the tests. The tests of `tables/paper.rs` in
# `report` lie with the harness (`tests/it/paper_tables.rs`) and are not run for `report` alone: its changes seem unnoticed.
# Works on a copy below `target/mutants`, which keeps its build; surviving changes and the output of the tests are in
# `target/mutants/<crate>/mutants.out`. Changes that no test can notice are listed in `.cargo/mutants.toml`.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
version=27.1.0
crates=${CRATES:-graph seed reconstruction selectors metrics}
work=$PWD/target/mutants

# $MUTANTS: a cargo-mutants to use instead of the one on PATH
if [ -z "${MUTANTS:-}" ]; then
    command -v cargo-mutants >/dev/null 2>&1 || cargo install cargo-mutants --locked --version "$version"
    MUTANTS=cargo-mutants
fi

# Tracked and new files as they are now; git's ignored ones (data, results, builds) are not needed.
rm -rf "$work/tree"
mkdir -p "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar -cf - --null --ignore-failed-read -T - 2>/dev/null |
    tar -xf - -C "$work/tree"
[ ! -e .libtorch ] || ln -s "$PWD/.libtorch" "$work/tree/.libtorch"
export CARGO_TARGET_DIR="$work/build"

status=0
# mutate NAME OPTIONS...
mutate() {
    name=$1
    shift
    printf '\n=== %s ===\n' "$name"
    mkdir -p "$work/$name"
    # shellcheck disable=SC2086 # ARGS are several words
    nice "$MUTANTS" mutants --dir "$work/tree" --in-place --output "$work/$name" --timeout "${TIMEOUT:-60}" \
        --no-shuffle --colors never "$@" ${ARGS:-} || {
        # 3: none survived, but some let a test run for ever, which counts as noticed
        [ $? -eq 3 ] || status=1
    }
}
if [ -n "${FILES:-}" ]; then
    for file in $FILES; do
        mutate "$(printf '%s' "${file#crates/}" | tr / -)" --file "$file"
    done
else
    for crate in $crates; do
        mutate "$crate" --package "thinet-$crate"
    done
fi
exit "$status"
