#!/usr/bin/env bash
# Runs ruff, mypy and pytest in the pinned environment of the quickstart.
#
#   bash scripts/test.sh             the fast tests
#   bash scripts/test.sh -m slow     arguments go to pytest
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" dev
cd "$root"

# Larger test data may be beside the checkout; without it, tests that need it are skipped.
if [ -z "${EAT_SHARED:-}" ] && [ -d "$root/../shared" ]; then
    EAT_SHARED=$(cd "$root/../shared" && pwd -P)
    export EAT_SHARED
fi

failed=""
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed $name"
}
check ruff .venv/bin/python -m ruff check .
check mypy .venv/bin/python -m mypy
check pytest .venv/bin/python -m pytest -q "$@"

if [ -n "$failed" ]; then
    printf 'test: failed:%s\n' "$failed" >&2
    exit 1
fi
