"""Which of several ways to compute the same is the fastest on this machine: measured, once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Callable

import torch

ROUNDS = 5  # timed calls of each way, in turn, so that other load affects all; the least counts
SECONDS = 0.5  # after which no further round begins
# A way is not called again if it takes this many times the least, and this many seconds: another
# process may have interrupted a short one.
HOPELESS = (3.0, 0.1)
# Another way than the first must be faster by this factor: runs on a busy CPU shall agree, or their
# weights would differ in the last bits.
MARGINS = {"cpu": 2.0, "cuda": 1.05}


def find_fastest(
    ways: Mapping[str, Callable[[], object]], device: torch.device
) -> tuple[str, dict[str, float]]:
    """Time each way, synchronised.

    Args:
        ways: name -> function. The first is the default; others may fail.
        device: where they run.

    Returns:
        The name of the fastest, and the seconds of each that did not fail.
    """
    names = list(ways)
    least: dict[str, float] = {}
    for name in names:  # compiles and loads libraries, so these calls do not count
        try:
            _time(ways[name], device)
            least[name] = float("inf")
        except Exception:  # compilers and drivers fail in any way
            if name == names[0]:
                raise
    began = time.perf_counter()
    for _ in range(ROUNDS):
        limit = max(HOPELESS[0] * min(least.values()), HOPELESS[1])
        for name in least:
            if least[name] <= limit or least[name] == float("inf"):
                with suppress(Exception):  # out of memory here must not leave other ranks waiting
                    least[name] = min(least[name], _time(ways[name], device))
        if time.perf_counter() - began > SECONDS:
            break
    best_name = min(least, key=lambda name: least[name])
    is_faster = least[best_name] * MARGINS.get(device.type, 1.0) < least[names[0]]
    return best_name if is_faster else names[0], least


def _time(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
