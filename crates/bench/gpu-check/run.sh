#!/bin/sh
# Runs the checks of this folder on a machine that has Python's torch 2.11.0, and needs neither cargo nor a network.
#
#     sh run.sh OUT [DEVICE] [OPTION…]      DEVICE: cuda:0 by default
set -eu
unset CDPATH
folder=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: sh run.sh OUT [DEVICE] [OPTION…]" >&2; exit 2; }
out=$1
device=${2:-cuda:0}
python=${PYTHON:-python3}

torch=$("$python" -c 'import torch; print(torch.__path__[0])') || { echo "error: $python has no torch" >&2; exit 1; }
version=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
[ "$version" = 2.11.0 ] || { echo "error: torch is $version, the programs were built for 2.11.0" >&2; exit 1; }

# torch's own libraries, and those of CUDA that pip installs beside it.
paths=$torch/lib
for lib in "$torch"/../nvidia/*/lib; do
    if [ -d "$lib" ]; then paths=$paths:$lib; fi
done
export LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CUBLAS_WORKSPACE_CONFIG=:4096:8
shift
[ $# -eq 0 ] || shift
exec "$python" "$folder/gpu_check.py" "$folder" "$out" "$device" "$@"
