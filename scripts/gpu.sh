#!/usr/bin/env bash
# Measures on a GPU: the tests that need one, benchmarks (eager and compiled), the convolution.
#
#   bash scripts/gpu.sh FOLDER       writes tests.txt, eager.txt, compiled.txt, convolution.txt
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
measure convolution -m benchmarks.convolution --rows 192 768
measure eager -m benchmarks train_base_12 train_base_48 train_large_12 features_32 finetune_32 \
    --device cuda --rounds 10 --profile
measure compiled -m benchmarks train_base_12 train_base_48 train_base_96 --device cuda --rounds 10 \
    --profile --compile
measure tests -m pytest -q -m gpu
exit "$failed"
