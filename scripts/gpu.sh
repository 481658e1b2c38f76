#!/usr/bin/env bash
# Measures on a GPU: the tests that need one, benchmarks (eager, compiled, as CUDA graphs, both),
# the convolution.
#
#   bash scripts/gpu.sh FOLDER       writes tests.txt, eager.txt, compiled.txt, graph.txt,
#                                    compiled_graph.txt, convolution.txt, others.txt, in this order
#
# PYTHON=/path/to/python selects an environment with the plugin; the default is .venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
[ $# -eq 1 ] || { printf 'usage: bash scripts/gpu.sh FOLDER\n' >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd -P)
cd "$root"
python=${PYTHON:-.venv/bin/python}
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    printf 'gpu: PyTorch finds no GPU\n' >&2
    exit 2
fi
failed=0

measure() { # NAME ARGUMENTS...
    local name=$1
    shift
    printf '== %s\n' "$name"
    "$python" "$@" >"$folder/$name.txt" 2>"$folder/$name.log" || failed=1
    tail -n 40 "$folder/$name.txt"
}
# Two forms of other memory needs share the device: without this, blocks are freed while timed.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
bench=(-m benchmarks --device cuda --rounds 5 --profile)
measure tests -m pytest -q -m gpu
measure eager "${bench[@]}" train_base_12 train_base_48
measure compiled "${bench[@]}" --compile train_base_12 train_base_48
measure graph "${bench[@]}" --cuda-graph train_base_12 train_base_48
measure compiled_graph "${bench[@]}" --cuda-graph --compile train_base_12 train_base_48
measure convolution -m benchmarks.convolution --rows 192 768
measure others "${bench[@]}" train_base_96 train_large_12 features_32 finetune_32
exit "$failed"
