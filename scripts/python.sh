# shellcheck shell=sh
# Sourced by golden.sh, numpy.sh, parity.sh and test-book.sh. Sets `python` to a Python that runs `needs`, statements that fail where
# something is missing, and installs `packages` into the environment that set-up created if need be.

fail() {
    printf 'error: %s — fix: %s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    for candidate in .venv/bin/python ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} python3 python; do
        if "$candidate" -c "$needs" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

python=$(find_python)
# The environment that set-up created has torch alone; any other environment is left as it is.
if [ -z "$python" ] && [ -f .venv/thinet-setup ]; then
    # shellcheck disable=SC2086 # a list of packages; without their dependencies, so that torch stays as it is
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $packages ||
        fail "pip cannot install $packages in .venv" "check the network, then run this again"
    python=$(find_python)
fi
case $needs in *torch*) packages="torch==2.11.0 $packages" ;; esac
[ -n "$python" ] || fail "no Python with $packages" "python3 -m pip install $packages in an environment and activate it"
