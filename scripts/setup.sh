#!/bin/sh
# Links `.libtorch` to a libtorch 2.11.0 (the folder with lib/ and include/), the one thing that cargo cannot fetch.
#
# Uses the first of: $LIBTORCH; the target of an existing `.libtorch`; an active Python that has the right torch;
# `.venv` in the project, created here from the pinned wheel. A second run changes nothing and takes a moment.
# If a prerequisite is missing, prints one line that names it and the fix, and exits with 1.
set -eu
unset CDPATH

torch_version=2.11.0
root=$(cd "$(dirname "$0")/.." && pwd -P)
here=$(pwd -P)
link=$root/.libtorch
venv=$root/.venv
stamp=$venv/thinet-setup # "started" or "complete": marks whether an environment is complete, and that it is ours

say() { printf 'setup: %s\n' "$1"; }

# fail WHAT FIX
fail() {
    printf 'error: %s — fix: %s\n' "$1" "$2" >&2
    exit 1
}

# at_least MAJOR.MINOR MAJOR.MINOR: whether the first version is the second or later
at_least() {
    [ "${1%%.*}" -gt "${2%%.*}" ] || { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "${1#*.}" -ge "${2#*.}" ]; }
}

# --- what every build needs -------------------------------------------------------------------------------------

check_platform() {
    platform=$(uname -s)/$(uname -m)
    case $platform in
    Linux/x86_64 | Linux/aarch64) ;;
    *) fail "libtorch $torch_version is set up for Linux on x86_64 or aarch64 only, this is $platform" \
        "use such a machine, or a Linux container on this one" ;;
    esac
}

check_rust() {
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
    for tool in cargo rustc; do
        command -v "$tool" >/dev/null 2>&1 ||
            fail "$tool was not found" "install Rust $wanted or later (https://rustup.rs) and put ~/.cargo/bin on PATH"
    done
    found=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ -n "$found" ] || fail "rustc does not run" "rustup toolchain install stable"
    at_least "$found" "$wanted" || fail "rustc $found is too old, $wanted or later is needed" "rustup update stable"
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null 2>&1 || fail "no C++ compiler: ${CXX:-c++} was not found" \
        "install g++ (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++) or set CXX"
    command -v cc >/dev/null 2>&1 || fail "no linker: cc was not found" \
        "install gcc (Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc)"
    # A compiler without its headers is common in containers; the libtorch bindings link to libgomp.
    printf '#include <vector>\nint main() { return (int)std::vector<int>().size(); }\n' |
        "${CXX:-c++}" -std=c++17 -x c++ - -o "$scratch/probe" -lgomp 2>"$scratch/log" ||
        fail "${CXX:-c++} cannot build a small C++17 program ($(first_error))" \
            "install g++ with its standard library (Debian, Ubuntu: apt-get install g++), or set CXX to a compiler that works"
}

fetch_crates() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo fetch --target "$host" --manifest-path "$root/Cargo.toml" 2>"$scratch/log" ||
        fail "cargo cannot get the Rust crates ($(first_error))" "check the network (and the proxy, if there is one), then run this again"
}

first_error() {
    line=$(grep -i -m 1 'error' "$scratch/log" || tail -n 1 "$scratch/log")
    printf '%s' "${line:-no message}" | tr -d '\r' | cut -c 1-160
}

# --- libtorch ---------------------------------------------------------------------------------------------------

# The version a libtorch folder states, without its build tag (2.11.0+cu130 is 2.11.0); nothing if it states none.
version_of() {
    if [ -f "$1/build-version" ]; then
        head -n 1 "$1/build-version"
    elif [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ *= *['\"]\([^'\"]*\)['\"].*/\1/p" "$1/version.py"
    fi | sed 's/+.*//' | tr -d ' \r'
}

has_files() { [ -e "$1/lib/libtorch_cpu.so" ] && [ -e "$1/lib/libc10.so" ] && [ -d "$1/include/torch/csrc/api/include" ]; }

fits() { has_files "$1" && [ "$(version_of "$1")" = "$torch_version" ]; }

# The folder that $LIBTORCH names, absolute and without links; refused unless it fits.
given_libtorch() {
    case $LIBTORCH in
    /*) given=$LIBTORCH ;;
    *) given=$here/$LIBTORCH ;;
    esac
    unset_it="unset LIBTORCH to let set-up find or install it, or point it to a libtorch $torch_version"
    [ -d "$given" ] || fail "LIBTORCH=$LIBTORCH is not a folder" "$unset_it"
    has_files "$given" || fail "LIBTORCH=$LIBTORCH holds no libtorch (lib/libtorch_cpu.so and include/torch)" "$unset_it"
    found=$(version_of "$given")
    [ "$found" = "$torch_version" ] ||
        fail "LIBTORCH=$LIBTORCH is version ${found:-unknown}, exactly $torch_version is needed" "$unset_it"
    (cd "$given" && pwd -P)
}

# The torch folder of the first active Python that has the right version. torch itself is not imported: that takes seconds.
active_torch() {
    for python in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} python3 python; do
        folder=$("$python" -c '
import importlib.util
spec = importlib.util.find_spec("torch")
print(spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else "")
' 2>/dev/null) || continue
        if [ -n "$folder" ] && fits "$folder"; then
            (cd "$folder" && pwd -P)
            return
        fi
    done
}

venv_torch() {
    for folder in "$venv"/lib/python3.*/site-packages/torch; do
        # pip writes INSTALLER after a package's other files, so it is not there in a half-unpacked one.
        if fits "$folder" && [ -f "$folder-$torch_version.dist-info/INSTALLER" ]; then
            printf '%s' ".venv/${folder#"$venv"/}"
            return
        fi
    done
}

# A Python that can create an environment and for which the pinned wheel exists.
venv_python() {
    seen=
    for python in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        command -v "$python" >/dev/null 2>&1 || continue
        found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if ! at_least "$found" 3.10 || at_least "$found" 3.15; then
            seen=${seen:-"$python is Python $found, and torch $torch_version has wheels for 3.10 to 3.14"}
            continue
        fi
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            seen="$python has no venv module"
            fix="install it (Debian, Ubuntu: apt-get install python3-venv), or set LIBTORCH to a libtorch $torch_version"
            continue
        fi
        command -v "$python"
        return
    done
    fail "${seen:-no python3 was found}" \
        "${fix:-install Python 3.10 to 3.14 with its venv module (Debian, Ubuntu: apt-get install python3-venv), or set LIBTORCH to a libtorch $torch_version}"
}

create_venv() {
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = started ]; then
        say "an earlier run did not finish: creating .venv again"
        rm -rf "$venv"
    elif [ -e "$venv" ] || [ -L "$venv" ]; then
        fail ".venv exists and holds no complete torch $torch_version" \
            "move it away, or '$venv/bin/python -m pip install --force-reinstall torch==$torch_version'"
    fi
    python=$(venv_python)
    # pip's warnings and errors go to the log: a failure must end in one line.
    say "no libtorch $torch_version here: installing torch $torch_version in .venv (about 5 GB, once)"
    mkdir "$venv"
    echo started >"$stamp"
    unset PYTHONPATH PYTHONHOME # a torch on such a path would count as installed
    "$python" -m venv "$venv" 2>"$scratch/log" || fail "$python cannot create .venv ($(first_error))" \
        "install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
    PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$venv/bin/python" -m pip install "torch==$torch_version" 2>"$scratch/log" || pip_failed
    [ -n "$(venv_torch)" ] || fail "pip succeeded, yet .venv holds no complete torch $torch_version" "remove .venv and run this again"
    echo complete >"$stamp"
}

pip_failed() {
    if grep -qi 'no space left' "$scratch/log"; then
        fail "the disk is full: torch $torch_version needs about 10 GB while it is installed" "free space, then run this again"
    elif grep -qiE 'connection|resolution|resolve|timed out|unreachable|proxy|ssl|http error' "$scratch/log"; then
        reason=$(grep -oiE 'cannot connect to proxy|name or service not known|name resolution|timed out|connection refused|unreachable|certificate verify failed' "$scratch/log" | head -n 1)
        fail "pip cannot reach the package index (${reason:-no connection})" \
            "check the network (and the proxy, if there is one), then run this again; or set LIBTORCH to a libtorch $torch_version"
    fi
    fail "pip cannot install torch $torch_version ($(first_error))" \
        "see '$venv/bin/python -m pip install torch==$torch_version', or set LIBTORCH to a libtorch $torch_version"
}

# point_link_to TARGET BEFORE: in one step, so that a concurrent build always sees a link
point_link_to() {
    ln -s "$1" "$link.$$.tmp"
    mv -fT "$link.$$.tmp" "$link"
    say "using libtorch $torch_version in $1"
    # cargo sees the same path as before, but its builds are for the contents of the other folder (CUDA or not).
    if [ -n "$2" ] && [ "$2" != "$1" ]; then
        cargo clean --quiet --package torch-sys 2>/dev/null || :
        cargo clean --quiet --package torch-sys --release 2>/dev/null || :
        touch "$root/crates/link_torch.rs"
    fi
}

link_libtorch() {
    before=$(readlink "$link" || :)
    if [ -e "$link" ] && [ ! -L "$link" ] && ! fits "$link"; then
        fail ".libtorch is a folder, and not a libtorch $torch_version" "move it away and run this again"
    fi
    if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$link" ]; then
        target=$(given_libtorch)
        if [ ! -d "$link" ] || [ "$target" != "$(cd "$link" && pwd -P)" ]; then
            point_link_to "$target" "$before"
        fi
        return
    fi
    if fits "$link"; then
        return
    fi
    # A dangling link would become valid in the middle of an installation.
    rm -f "$link"
    target=$(active_torch)
    [ -n "$target" ] || target=$(venv_torch)
    if [ -z "$target" ]; then
        create_venv
        target=$(venv_torch)
    fi
    point_link_to "$target" "$before"
}

# cargo distinguishes the crates of two clones that share a build folder by the times of their files alone, and mistakes one
# for the other if its files are older than the other's build. So a clone touches its files when it takes the folder over.
claim_build_folder() {
    [ -n "${CARGO_TARGET_DIR:-}" ] || return 0
    owner=$CARGO_TARGET_DIR/thinet-clone
    if [ ! -f "$owner" ] || [ "$(cat "$owner")" != "$root" ]; then
        find "$root/crates" -type f \( -name '*.rs' -o -name '*.cpp' -o -name '*.toml' -o -name '*.txt' \) -exec touch {} +
        mkdir -p "$CARGO_TARGET_DIR"
        echo "$root" >"$owner"
    fi
}

cd "$root"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
check_platform
check_rust
check_compiler
# Two set-ups in one clone take turns, unless flock (util-linux) is missing.
exec 9<"$root"
if command -v flock >/dev/null 2>&1; then flock 9; fi
fetch_crates
link_libtorch
claim_build_folder
