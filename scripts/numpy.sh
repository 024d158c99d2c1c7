#!/bin/sh
# Run by `make test`: looks for a Python with NumPy, for the tests of selectors in Python, and installs it into the environment that set-up
# created if there is none.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
needs='import numpy'
packages=numpy
. scripts/python.sh
echo "the tests of selectors in Python run with $python"
