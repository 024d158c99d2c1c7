#!/bin/sh
# Runs every command and checks every spec of the pages in docs/, in the order of docs/SUMMARY.md, in a scratch copy of the project in which
# the default study is a small one. Part of the long tests. Uses `thinet` of the release build, or $THINET. Prints "book: …" and exits with 0, or
# prints what failed and exits with 1.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
. scripts/program.sh
THINET=$(realpath "$THINET")
export THINET
needs='import numpy'
packages=numpy
. scripts/python.sh
exec "$python" scripts/test_book.py
