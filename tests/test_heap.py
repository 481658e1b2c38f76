"""Memory that is freed stays with the process, or returns to the system."""

import os
import platform
import subprocess
import sys

import pytest

from eat_plugin import cli

MEBIBYTES = 200
PROGRAM = f"""
import numpy as np
from eat_plugin.heap import SMALL, keep_freed_memory

def resident():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * {os.sysconf("SC_PAGE_SIZE")} / 2**20

{{calls}}
before = resident()
blocks = [np.ones({{size}} << 20, np.uint8) for _ in range({MEBIBYTES} // {{size}})]
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("calls", "size", "environment", "kept"),
    [
        ("", 200, {}, 0),
        ("keep_freed_memory()", 200, {}, MEBIBYTES),
        ("keep_freed_memory(); keep_freed_memory(False)", 200, {}, 0),
        ("keep_freed_memory()", 200, {"MALLOC_ARENA_MAX": "2"}, 0),
        ("keep_freed_memory(False)", 20, {}, MEBIBYTES),
        ("keep_freed_memory(False, SMALL)", 20, {}, 0),
    ],
    ids=["without", "kept", "returned", "of the environment", "smaller", "smaller, returned"],
)
def test_keep_freed_memory(calls, size, environment, kept):
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(calls=calls, size=size)],
        env={**own, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) == pytest.approx(kept, abs=20)


@pytest.mark.parametrize(("device", "expected"), [("cpu", 1), ("cuda", 0)])
def test_main__keeps_memory_on_a_cpu(monkeypatch, capsys, device, expected):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append(device))
    command = ["features", "missing", "--checkpoint", "missing", "--out", "o", "--device", device]
    assert cli.main(command) == 2
    assert len(calls) == expected
