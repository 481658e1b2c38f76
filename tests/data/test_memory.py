"""Freed memory is kept: no page is cleared anew for each clip."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, types
if {without}:
    sys.modules["eat_plugin.data.memory"] = types.SimpleNamespace(keep_freed_memory=lambda: None)
import torch
from eat_plugin.data.features import FrontEnd
torch.set_num_threads(1)
front_end, clip = FrontEnd(1024, 0.0, 1.0), torch.randn(320_000)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for call in range(30):
    if call == 10:
        before = faults()
    front_end(clip, 32_000)
print((faults() - before) / 20)
"""


def count_faults(without):
    code = COUNT_FAULTS.format(without=without)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_keep_freed_memory__clips_take_no_new_pages():
    assert count_faults(without=False) < 50
    assert count_faults(without=True) > 200
