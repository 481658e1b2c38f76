#!/usr/bin/env bash
# Runs ruff, mypy and pytest in the pinned environment of the quickstart.
#
#   bash scripts/test.sh             the fast tests, on up to four cores
#   bash scripts/test.sh -m slow     arguments go to pytest
#   bash scripts/test.sh -n 0        in one process, as a debugger needs it
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" dev
cd "$root"

# Larger test data may be beside the checkout; without it, tests that need it are skipped.
if [ -z "${EAT_SHARED:-}" ] && [ -d "$root/../shared" ]; then
    EAT_SHARED=$(cd "$root/../shared" && pwd -P)
    export EAT_SHARED
fi

workers=auto
[ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ] || workers=0
case " $* " in *" gpu "*) workers=0 ;; esac # which share one GPU

failed=""
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed $name"
}
check ruff .venv/bin/python -m ruff check .
check format .venv/bin/python -m ruff format --check .
check mypy .venv/bin/python -m mypy
# One thread per worker: more would wait for each other.
OMP_NUM_THREADS=1 check pytest .venv/bin/python -m pytest -q \
    -n "$workers" --maxprocesses 4 --dist worksteal "$@"

if [ -n "$failed" ]; then
    printf 'test: failed:%s\n' "$failed" >&2
    exit 1
fi
