#!/bin/sh
# Builds examples/custom-selector as a package of its own and runs its study with two workers: its selector is listed, planned, run and in
# the table beside built-in ones. Part of the long tests. Prints "example: …" and exits with 0, or prints what does not hold and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
. scripts/checks.sh

# The versions and settings of the workspace, so that its builds of other packages serve here.
cp Cargo.lock examples/custom-selector/Cargo.lock
sed -n '/^\[profile/,$p' Cargo.toml >"$scratch/profile.toml"
target=${CARGO_TARGET_DIR:-$(pwd -P)/target}
(cd examples/custom-selector && CARGO_TARGET_DIR=$target cargo build --quiet --config "$scratch/profile.toml") || {
    echo 'FAILED: the example builds'
    exit 1
}
data=$(cd data/fashion-mnist && pwd -P)
cp examples/custom-selector/study.toml "$scratch/"
ours() { (cd "$scratch" && "$target/debug/custom-selector" "$@" 2>"$scratch/log"); }

ours list selectors >"$scratch/list"
holds 'the selector is listed' grep -q '^ *driven-weights ' "$scratch/list"
holds 'and the built-in ones' grep -q '^ *thinet ' "$scratch/list"
quietly() { "$@" >/dev/null; }
holds 'its study runs with two workers' quietly ours run study.toml --data "$data" --jobs 2
for method in driven-weights weight-sum-l2 random; do
    holds "the table has a row of $method" grep -q ",$method,.*,done," "$scratch/results/tables/custom-selector.csv"
done
[ "$failed" -eq 0 ] && echo 'example: a selector of another package runs through the whole command line' || exit 1
