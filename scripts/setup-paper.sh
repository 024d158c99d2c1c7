#!/bin/sh
# Creates `.venv-paper`, a small Python environment that draws figures and typesets the paper, from the pinned wheels of
# paper/requirements.txt. A second run changes nothing and takes a moment; another list of wheels creates it again.
# If it cannot be created, prints one line that names what is missing and the fix, and exits with 1.
set -eu
unset CDPATH

root=$(cd "$(dirname "$0")/.." && pwd -P)
venv=$root/.venv-paper
wheels=$root/paper/requirements.txt
stamp=$venv/thinet-setup # a copy of the list that was installed; marks that the environment is complete, and ours
names=$(sed -n 's/^\([a-z][a-z-]*==[^ ]*\).*/\1/p' "$wheels" | tr '\n' ' ')
names=${names% }

# fail WHAT FIX
fail() {
    printf 'error: %s — fix: %s\n' "$1" "$2" >&2
    exit 1
}

# Whether a Python can load these wheels and create an environment.
is_usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
    for python in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        if is_usable "$python"; then
            command -v "$python"
            return
        fi
    done
    fail "no Python 3.10 or later with its venv module was found" \
        "install it (Debian, Ubuntu: apt-get install python3-venv), then scripts/setup-paper.sh"
}

pip_failed() {
    reason=$(grep -oiE 'cannot connect to proxy|name or service not known|name resolution|timed out|connection refused|unreachable|certificate verify failed|no matching distribution[^(]*|do not match the hashes|no space left' "$scratch/log" | head -n 1)
    [ -n "$reason" ] || reason=$(grep -i -m 1 'error' "$scratch/log" | tr -d '\r' | cut -c 1-160)
    fail "pip cannot install $names (${reason:-no message})" \
        "check the network (and the proxy, if there is one), then scripts/setup-paper.sh"
}

# The list is the last file that is written, so an environment without it is not complete.
if [ -f "$stamp" ] && cmp -s "$wheels" "$stamp"; then exit 0; fi
if [ -e "$venv" ] && [ ! -e "$venv/thinet-setup" ] && [ ! -e "$venv/thinet-started" ]; then
    fail ".venv-paper exists and was not created by this script" "move it away, then scripts/setup-paper.sh"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
# Two set-ups in one clone take turns, unless flock (util-linux) is missing.
exec 9<"$wheels"
if command -v flock >/dev/null 2>&1; then flock 9; fi
if [ -f "$stamp" ] && cmp -s "$wheels" "$stamp"; then exit 0; fi
python=$(find_python)
rm -rf "$venv"
mkdir "$venv"
: >"$venv/thinet-started"
unset PYTHONPATH PYTHONHOME # packages on such a path would count as installed
"$python" -m venv "$venv" 2>"$scratch/log" || fail "$python cannot create .venv-paper" \
    "install its venv module (Debian, Ubuntu: apt-get install python3-venv), then scripts/setup-paper.sh"
printf 'setup: installing %s in .venv-paper (about 70 MB, once)\n' "$names"
PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: \
    --require-hashes --requirement "$wheels" 2>"$scratch/log" || pip_failed
cp "$wheels" "$stamp"
