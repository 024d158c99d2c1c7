#!/bin/sh
# Runs the checks of this folder on a machine that has Python's torch 2.11.0, and needs neither cargo nor a network.
#
#     sh run.sh [OUT] [DEVICE] [--seconds N]
#
# OUT: gpu-check-out, DEVICE: cuda:0 unless said otherwise. PYTHON: the interpreter that has torch (python3).
# GPU_CHECK_TINY=1: a few seconds of everything, to see that the folder works.
set -eu
unset CDPATH
folder=$(cd "$(dirname "$0")" && pwd)
out=${1:-gpu-check-out}
device=${2:-cuda:0}
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || shift

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

export PYTHON="${PYTHON:-python3}"
torch=$("$PYTHON" -c 'import torch; print(torch.__path__[0])') || fail "$PYTHON has no torch; set PYTHON"
version=$("$PYTHON" -c 'import torch; print(torch.__version__)')
case $version in
2.11.0*) ;;
*) fail "torch is $version; the program was built for 2.11.0" ;;
esac
[ -e "$torch/lib/libtorch_cpu.so" ] || fail "$torch/lib has no libtorch_cpu.so"
# The program is linked with it, so that kernels for a GPU are there when it starts.
[ -e "$torch/lib/libtorch_cuda.so" ] || fail "torch $version is built without CUDA: no libtorch_cuda.so in $torch/lib"

# torch's own libraries, and those of CUDA that pip puts beside it.
paths=$torch/lib
for lib in "$torch"/../nvidia/*/lib; do
    if [ -d "$lib" ]; then paths=$paths:$lib; fi
done
export LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# What cuBLAS asks for before it repeats its bits.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
exec "$folder/gpu-check" run "$out" "$device" "$@"
