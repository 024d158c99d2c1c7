#!/bin/sh
# Runs the checks of this folder on a machine that has Python's torch 2.11.0, and needs neither cargo nor a network.
#
#     sh run.sh OUT [DEVICE] [OPTION…]      DEVICE: cuda:0 by default; options: those of gpu_check.py
set -eu
unset CDPATH
# The budget counts from here: libraries that are read for the first time can take half a minute.
started=$(date +%s)
folder=$(cd "$(dirname "$0")" && pwd)
usage() {
    echo "usage: sh run.sh OUT [DEVICE] [OPTION…]" >&2
    exit 2
}
[ $# -ge 1 ] || usage
case $1 in -*) usage ;; esac
out=$1
shift
device=cuda:0
case ${1:-} in
    '' | -*) ;;
    *)
        device=$1
        shift
        ;;
esac
python=${PYTHON:-python3}

# Looked up without loading torch, which takes seconds.
torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) ||
    { echo "error: $python has no torch" >&2; exit 1; }
version=$("$python" -c 'import importlib.metadata as m; print(m.version("torch").split("+")[0])')
[ "$version" = 2.11.0 ] || { echo "error: torch is $version, the program was built for 2.11.0" >&2; exit 1; }

# torch's own libraries, and those of CUDA that pip installs beside it.
paths=$torch/lib
for lib in "$torch"/../nvidia/*/lib; do
    if [ -d "$lib" ]; then paths=$paths:$lib; fi
done
export LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CUBLAS_WORKSPACE_CONFIG=:4096:8

# The program is compressed, so that the data fits beside it.
mkdir -p "$out"
out=$(cd "$out" && pwd)
program=$out/gpu-check
trap 'rm -f "$program"' EXIT
trap 'exit 130' INT TERM HUP
gzip -dc "$folder/gpu-check.gz" >"$program"
chmod 755 "$program"
"$python" "$folder/gpu_check.py" "$folder" "$program" "$out" "$device" --started "$started" "$@"
