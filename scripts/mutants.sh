#!/bin/sh
# Mutation tests: changes the code in one place at a time and asks whether a test notices. Ends with 0 if each change was noticed.
#
#     CRATES='graph seed' scripts/mutants.sh                      whole crates, one after the other
#     FILES='crates/harness/src/check.rs' scripts/mutants.sh      single files
#
# Two to ten seconds a change where the crate is small: the default crates take about an hour on two quiet cores, `data` as
# long again. Of the harness, whose tests link libtorch and train nets, take single files and the tests beside the code
# (ARGS='-- --lib'). Works on a copy below `target/mutants`, which keeps its build; the changes that survived and what
# each test said stand in `target/mutants/<crate>/mutants.out`. What cannot be noticed is listed in `.cargo/mutants.toml`.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
version=27.1.0
crates=${CRATES:-graph seed reconstruction selectors metrics}
work=$PWD/target/mutants

# $MUTANTS: another cargo-mutants than the one on PATH
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
        # 3: none survived, but some made a test run for ever, which is noticed as well
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
