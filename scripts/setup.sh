#!/usr/bin/env bash
# Makes .venv at the root of this repository and installs the pinned packages (requirements/).
#
#   bash scripts/setup.sh        for training and the `eat` command
#   bash scripts/setup.sh dev    also ruff, mypy and pytest
#
# PYTHON=/path/to/python selects the interpreter (3.9 to 3.13); the default is the best one found. A
# second run does nothing. After an interruption run it again: it starts from a clean .venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
py=$venv/bin/python
log=$venv/setup.log
unfinished=$venv/.unfinished
requirements=$root/requirements
stage=${1:-run}

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$1" >&2; exit "${2:-1}"; }

# An unfinished installation stays marked, see `install`.
trap 'printf "interrupted; run the same command again\n" >&2; exit 130' INT TERM

# These settings of a user would install packages outside .venv.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

# Prints what the interpreter $1 lacks; nothing if it is suitable.
lacks() {
    "$1" - 2>/dev/null <<'PY' || printf 'cannot be run'
import os
import sys
import sysconfig

missing = []
if not (3, 9) <= sys.version_info[:2] <= (3, 13):
    missing.append("is Python %d.%d" % sys.version_info[:2])
else:
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            missing.append("has no module " + module)
    if not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        missing.append("has no headers (Python.h)")
sys.stdout.write(" and ".join(missing))
PY
}

# Prints the interpreter to use: $PYTHON, or the first suitable one (3.11 first: the pins were made
# with it).
find_python() {
    local candidate missing seen=""
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.10 python3.9 \
        python3 python; do
        if command -v "$candidate" >/dev/null 2>&1; then
            missing=$(lacks "$candidate")
            if [ -z "$missing" ]; then
                command -v "$candidate"
                return
            fi
            [ "$missing" = "cannot be run" ] || seen="$seen; $candidate $missing"
        else
            missing="is not a command"
        fi
        if [ -n "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON $missing; needed: Python 3.9 to 3.13 with venv and its headers" 2
        fi
    done
    fail "needed: Python 3.9 to 3.13 with venv and its headers (on Debian or Ubuntu: apt-get install python3-venv python3-dev), or PYTHON=/path/to/one$seen" 2
}

# fairseq compiles extensions: report a missing compiler now, not after minutes.
check_compiler() {
    local compiler
    for compiler in ${CXX:+"$CXX"} c++ g++ clang++; do
        # CXX may have options after the command: split it.
        # shellcheck disable=SC2086
        if printf '#include <vector>\n' | $compiler -x c++ -fsyntax-only - >/dev/null 2>&1; then
            return
        fi
    done
    fail "needed: a C++ compiler, to build fairseq (on Debian or Ubuntu: apt-get install g++; on macOS: xcode-select --install)" 2
}

# Prints a hash of all inputs of an installation by the interpreter $1, the content of the stamps. It
# includes the location: a virtual environment cannot be moved.
fingerprint() {
    "$1" - "$root" <<'PY'
import hashlib
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256(f"{root} {sys.version_info[:2]}".encode())
for path in [*sorted((root / "requirements").glob("*.txt")), root / "setup.py"]:
    digest.update(path.read_bytes())
sys.stdout.write(digest.hexdigest())
PY
}

is_ready() { # STAGE FINGERPRINT
    [ ! -e "$unfinished" ] && [ -f "$venv/.ready-$1" ] && [ "$(cat "$venv/.ready-$1")" = "$2" ]
}

# Runs `pip install ARGUMENTS` as a named step. A killed pip may leave partial packages: then the mark
# stays, and the next run starts again from a clean .venv.
install() { # WHAT ARGUMENTS...
    local what=$1 began=$SECONDS status=0
    shift
    printf '  %s ... ' "$what"
    printf '\n=== %s: pip install %s\n' "$what" "$*" >>"$log"
    : >"$unfinished"
    # With CUDA_HOME fairseq would build CUDA kernels, which are unused here, against a toolkit that
    # may not be torch's.
    env -u CUDA_HOME "$py" -m pip install "$@" >>"$log" 2>&1 || status=$?
    if [ "$status" -gt 128 ]; then
        fail "pip was killed while installing $what; run the same command again" "$status"
    fi
    rm -f "$unfinished"
    if [ "$status" -ne 0 ]; then
        printf 'failed\n'
        tail -n 15 "$log" | sed 's/^/    /' >&2
        fail "could not install $what; the full log is in $log"
    fi
    printf '%d s\n' $((SECONDS - began))
}

make_venv() { # INTERPRETER
    local output
    say "Making $venv with $("$1" --version) ($1)"
    if ! output=$("$1" -m venv --clear "$venv" 2>&1); then
        printf '%s\n' "$output" | tail -n 5 >&2
        fail "could not make $venv"
    fi
    : >"$log"
}

install_run() { # FINGERPRINT
    install "torch, numpy, build tools" -r "$requirements/build.txt" -c "$pins"
    install "fairseq (compiles: about 2 minutes) and the rest" \
        --no-build-isolation -r "$requirements/run.txt" -c "$pins"
    install "eat" --no-deps --no-build-isolation -e "$root"
    printf '%s' "$1" >"$venv/.ready-run"
}

case $stage in
run | dev) ;;
*) fail "unknown stage '$stage'; choose run or dev" 2 ;;
esac

key=""
if [ -x "$py" ] && [ -z "$(lacks "$py")" ]; then
    # With $PYTHON, its version decides whether the environment still fits.
    key=$(fingerprint "${PYTHON:-$py}") || key=""
    if is_ready "$stage" "$key"; then
        exit 0
    fi
fi
if [ -z "$key" ] || ! is_ready run "$key"; then
    python=$(find_python)
    check_compiler
    make_venv "$python"
    key=$(fingerprint "$python")
fi
case $("$py" -c 'import sys; print("%d.%d" % sys.version_info[:2])') in
3.9 | 3.10) pins=$requirements/pins-py39.txt ;;
*) pins=$requirements/pins.txt ;;
esac
is_ready run "$key" || install_run "$key"
if [ "$stage" = dev ]; then
    install "ruff, mypy, pytest" -r "$requirements/dev.txt" -c "$pins"
    printf '%s' "$key" >"$venv/.ready-dev"
fi
say "Ready in $SECONDS s."
