#!/bin/sh
# Runs setup.sh in temporary projects with a PATH of fake tools: each missing prerequisite must print its one line, and
# each way to a libtorch must create the right link. Uses no network, and nothing outside a temporary folder.
# Last line: "setup: N passed, M failed".
set -u
unset CDPATH
scripts=$(cd "$(dirname "$0")" && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# --- fake tools -------------------------------------------------------------------------------------------------

# fake NAME: a tool on the fake PATH whose text comes from standard input
fake() {
    rm -f "$bin/$1"
    { echo '#!/bin/sh' && cat; } >"$bin/$1"
    chmod +x "$bin/$1"
}

# fake_torch FOLDER VERSION: the files that set-up looks at in the torch folder of a wheel
fake_torch() {
    mkdir -p "$1/lib" "$1/include/torch/csrc/api/include"
    : >"$1/lib/libtorch_cpu.so"
    : >"$1/lib/libc10.so"
    echo "__version__ = '$2'" >"$1/version.py"
}

# A project without any set-up, on a machine with everything that set-up needs except torch.
fresh() {
    rm -rf "$work/case"
    project=$work/case/project
    bin=$work/case/bin
    site=$project/.venv/lib/python3.12/site-packages
    mkdir -p "$project/scripts" "$project/crates/some/src" "$bin" "$work/case/home"
    cp "$scripts/setup.sh" "$project/scripts/"
    echo 'rust-version = "1.89"' >"$project/Cargo.toml"
    : >"$project/crates/link_torch.rs"
    : >"$project/crates/some/src/lib.rs"
    for tool in sh cat cp cut dirname env find flock grep head ln mkdir mktemp mv readlink rm sed tail touch tr; do
        path=$(command -v "$tool") && ln -s "$path" "$bin/$tool"
    done
    fake uname <<'TOOL'
case $1 in -s) echo Linux ;; -m) echo x86_64 ;; esac
TOOL
    fake cargo <<TOOL
echo "\$1" >>"$work/case/cargo-calls"
TOOL
    fake rustc <<'TOOL'
echo 'rustc 1.90.0 (abc 2025-09-14)'
echo 'host: x86_64-unknown-linux-gnu'
TOOL
    echo 'exit 0' | fake cc
    echo 'exit 0' | fake c++
    fake python3 <<'TOOL'
case "$*" in
*find_spec*) echo "${FAKE_TORCH:-}" ;;
*version_info*) echo "${FAKE_PYTHON:-3.12}" ;;
*ensurepip*) exit "${FAKE_NO_VENV:-0}" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install torch==2.11.0")
    site=$(dirname "$0")/../lib/python3.12/site-packages
    mkdir -p "$site/torch/lib" "$site/torch/include/torch/csrc/api/include" "$site/torch-2.11.0.dist-info"
    echo "__version__ = '2.11.0+cu130'" >"$site/torch/version.py"
    : >"$site/torch/lib/libtorch_cpu.so"
    : >"$site/torch/lib/libc10.so"
    if [ -n "${FAKE_PIP_ERROR:-}" ]; then
        echo "$FAKE_PIP_ERROR" >&2
        exit 1
    fi
    : >"$site/torch-2.11.0.dist-info/INSTALLER"
    ;;
*) echo "unexpected: $*" >&2 && exit 1 ;;
esac
TOOL
}

# setup [NAME=VALUE...]: runs it with the fake tools; sets $status, writes $work/out and $work/err
setup() {
    (cd "$project" && env -i PATH="$bin" HOME="$work/case/home" "$@" sh scripts/setup.sh >"$work/out" 2>"$work/err")
    status=$?
}

# --- checks -----------------------------------------------------------------------------------------------------

ok() { passed=$((passed + 1)); }

wrong() { # NAME REASON
    failed=$((failed + 1))
    printf 'FAILED  %s: %s\n' "$1" "$2"
    sed 's/^/        | /' "$work/out" "$work/err"
}

# refuses NAME ERROR-WORDS FIX-WORDS [NAME=VALUE...]: status 1, one line that holds both, and no link
refuses() {
    name=$1 error=$2 fix=$3
    shift 3
    setup "$@"
    if [ "$status" -ne 1 ]; then
        wrong "$name" "exit status $status, not 1"
    elif [ "$(grep -c '' "$work/err")" -ne 1 ]; then
        wrong "$name" "not one line on standard error"
    elif ! grep -q "^error: .*$error.* — fix: .*$fix" "$work/err"; then
        wrong "$name" "the line does not say '$error' and '$fix'"
    elif [ -e "$project/.libtorch" ]; then
        wrong "$name" "it created a link"
    else
        ok
    fi
}

# links NAME TARGET [NAME=VALUE...]: status 0, nothing on standard error, and .libtorch is a link to TARGET
links() {
    name=$1 target=$2
    shift 2
    setup "$@"
    if [ "$status" -ne 0 ] || [ -s "$work/err" ]; then
        wrong "$name" "exit status $status"
    elif [ "$(readlink "$project/.libtorch")" != "$target" ]; then
        wrong "$name" ".libtorch is $(readlink "$project/.libtorch"), not $target"
    elif ! [ -e "$project/.libtorch/lib/libc10.so" ]; then
        wrong "$name" "the link leads nowhere"
    else
        ok
    fi
}

# holds NAME COMMAND...
holds() {
    name=$1
    shift
    if "$@"; then ok; else wrong "$name" "$*"; fi
}

# --- refusals ---------------------------------------------------------------------------------------------------

fresh && echo 'echo Darwin' | fake uname
refuses 'another system' 'Linux on x86_64 or aarch64 only, this is Darwin' 'container'

fresh && rm "$bin/cargo"
refuses 'no cargo' 'cargo was not found' 'install Rust 1.89'

fresh && rm "$bin/rustc"
refuses 'no rustc' 'rustc was not found' 'install Rust 1.89'

fresh && echo 'echo "rustc 1.88.9 (abc 2025-01-01)"' | fake rustc
refuses 'old rustc' 'rustc 1.88 is too old, 1.89' 'rustup update'

fresh && echo 'echo "error: no toolchain" >&2; exit 1' | fake rustc
refuses 'rustc without a toolchain' 'rustc does not run' 'rustup toolchain install'

fresh && rm "$bin/c++"
refuses 'no C++ compiler' 'c++ was not found' 'apt-get install g++'

fresh
refuses 'no compiler of the name in CXX' 'clang-99 was not found' 'set CXX' CXX=clang-99

fresh && rm "$bin/cc"
refuses 'no linker' 'cc was not found' 'apt-get install gcc'

fresh && echo 'echo "x.cc:1: fatal error: vector: No such file" >&2; exit 1' | fake c++
refuses 'compiler without headers' 'cannot build.*vector: No such file' 'install g++'

fresh && echo 'echo "error: failed to download from the registry" >&2; exit 101' | fake cargo
refuses 'no network for cargo' 'cargo cannot get the Rust crates (error: failed to download' 'check the network'

fresh
refuses 'LIBTORCH is no folder' 'LIBTORCH=/nowhere is not a folder' 'unset LIBTORCH' LIBTORCH=/nowhere
mkdir -p "$work/case/empty"
refuses 'LIBTORCH holds none' 'holds no libtorch' 'unset LIBTORCH' LIBTORCH="$work/case/empty"
fake_torch "$work/case/old" '2.10.0+cpu'
refuses 'LIBTORCH of another version' 'is version 2.10.0, exactly 2.11.0' 'unset LIBTORCH' LIBTORCH="$work/case/old"
rm "$work/case/old/version.py"
refuses 'LIBTORCH of no stated version' 'is version unknown' 'unset LIBTORCH' LIBTORCH="$work/case/old"

fresh && rm "$bin/python3"
refuses 'no Python' 'no python3 was found' 'python3-venv'

fresh
refuses 'old Python' 'python3 is Python 3.9' 'install Python 3.10 to 3.14' FAKE_PYTHON=3.9
refuses 'Python too new' 'python3 is Python 3.15' 'install Python 3.10 to 3.14' FAKE_PYTHON=3.15
refuses 'Python without venv' 'python3 has no venv module' 'python3-venv' FAKE_NO_VENV=1

fresh
refuses 'no network for pip' 'pip cannot reach the package index (name resolution)' 'check the network' \
    FAKE_PIP_ERROR='ERROR: NewConnectionError: Temporary failure in name resolution'
holds 'a failed installation is marked' grep -qx started "$project/.venv/thinet-setup"

fresh
refuses 'full disk' 'the disk is full' 'free space' FAKE_PIP_ERROR='ERROR: [Errno 28] No space left on device'

fresh
refuses 'no wheel' 'pip cannot install torch 2.11.0 (ERROR: No matching' 'LIBTORCH' \
    FAKE_PIP_ERROR='ERROR: No matching distribution found for torch==2.11.0'

fresh && mkdir "$project/.venv" && echo mine >"$project/.venv/notes"
refuses 'a .venv of someone else' '.venv exists and holds no complete torch' 'move it away'
holds 'a .venv of someone else is left alone' grep -qx mine "$project/.venv/notes"

fresh && mkdir "$project/.libtorch" && : >"$project/.libtorch/notes"
setup
holds 'a .libtorch folder of someone else is left alone' \
    grep -q '^error: .libtorch is a folder.* — fix: move it away' "$work/err"

# --- ways to a libtorch -----------------------------------------------------------------------------------------

fresh && mkdir -p "$work/case/zip" && fake_torch "$work/case/zip/libtorch" unused
rm "$work/case/zip/libtorch/version.py" && echo '2.11.0+cpu' >"$work/case/zip/libtorch/build-version"
links 'LIBTORCH, unpacked archive' "$work/case/zip/libtorch" LIBTORCH="$work/case/zip/libtorch"

fresh && fake_torch "$work/case/own torch" '2.11.0'
links 'LIBTORCH, relative, with a space' "$work/case/own torch" LIBTORCH='../own torch'
links 'LIBTORCH, nothing changed' "$work/case/own torch" LIBTORCH="$work/case/own torch"
holds 'nothing changed, nothing printed' test ! -s "$work/out"
links 'LIBTORCH no longer set' "$work/case/own torch"
links 'LIBTORCH is our own link' "$work/case/own torch" LIBTORCH="$project/.libtorch"
holds 'no rebuild so far' test "$(grep -c clean "$work/case/cargo-calls")" -eq 0
fake_torch "$work/case/other" '2.11.0+cu130'
links 'LIBTORCH, another one' "$work/case/other" LIBTORCH="$work/case/other"
holds 'another libtorch rebuilds the bindings' grep -q clean "$work/case/cargo-calls"

fresh && fake_torch "$work/case/site/torch" '2.11.0+cu130'
links 'active Python' "$work/case/site/torch" FAKE_TORCH="$work/case/site/torch"

fresh && fake_torch "$work/case/site/torch" '2.11.0' && mkdir -p "$work/case/env/bin"
mv "$bin/python3" "$work/case/env/bin/python"
links 'active virtual environment' "$work/case/site/torch" FAKE_TORCH="$work/case/site/torch" VIRTUAL_ENV="$work/case/env"

fresh && fake_torch "$work/case/site/torch" '2.9.1'
links 'active Python with another torch' .venv/lib/python3.12/site-packages/torch FAKE_TORCH="$work/case/site/torch"

fresh
links 'new .venv' .venv/lib/python3.12/site-packages/torch
holds 'a new .venv is marked' grep -qx complete "$project/.venv/thinet-setup"
links '.venv, second run' .venv/lib/python3.12/site-packages/torch
holds 'second run, nothing printed' test ! -s "$work/out"

fresh && fake_torch "$site/torch" '2.11.0+cu130' && mkdir "$site/torch-2.11.0.dist-info"
: >"$site/torch-2.11.0.dist-info/INSTALLER"
links '.venv created by hand' .venv/lib/python3.12/site-packages/torch FAKE_NO_VENV=1

fresh && ln -s .venv/lib/python3.12/site-packages/torch "$project/.libtorch"
refuses 'interrupted while a dangling link is there' 'no space\|disk is full' 'free space' \
    FAKE_PIP_ERROR='ERROR: [Errno 28] No space left on device'
links 'incomplete .venv is created again' .venv/lib/python3.12/site-packages/torch
holds 'it says so' grep -q 'did not finish: creating .venv again' "$work/out"

# --- a shared build folder --------------------------------------------------------------------------------------

fresh
touch -d '2001-01-01' "$project/crates/some/src/lib.rs"
links 'shared build folder' .venv/lib/python3.12/site-packages/torch CARGO_TARGET_DIR="$work/case/target"
holds 'a clone that takes over the build folder builds its crates again' \
    test "$(find "$project/crates/some" -name '*.rs' -newer "$bin/cargo" | grep -c '')" -eq 1
touch -d '2001-01-01' "$project/crates/some/src/lib.rs"
links 'shared build folder, same clone' .venv/lib/python3.12/site-packages/torch CARGO_TARGET_DIR="$work/case/target"
holds 'the same clone keeps what it built' \
    test "$(find "$project/crates/some" -name '*.rs' -newer "$bin/cargo" | grep -c '')" -eq 0

printf 'setup: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
