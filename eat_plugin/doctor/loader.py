"""The speed of the data workers, measured on the clips of a run, against that of the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .finding import MACHINE, OK, WARNING, Finding

SECONDS = 2.0  # of measuring
STRIDE = 0.618034  # of the data set between two clips: every part of it is read


class Speed(NamedTuple):
    """Clips that one data worker makes in a second, and how many were measured."""

    clips: float
    measured: int


def measure_reading(
    dataset: Any, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Speed:
    """Read clips as a data worker does, in this process and one thread.

    Args:
        dataset: of the run; its items are inputs of the model.
        seconds: how long.
        clock: the time in seconds.

    Raises:
        RuntimeError: no clip can be read.
    """
    import torch

    threads, total = torch.get_num_threads(), len(dataset)
    torch.set_num_threads(1)
    try:
        dataset[0]  # makes tables and kernels
        began, number = clock(), 0
        while clock() - began < seconds:
            number += 1
            dataset[int((number * STRIDE) % 1 * total)]
        return Speed(number / (clock() - began), number)
    finally:
        torch.set_num_threads(threads)


def check_reading(speed: Speed, needed: float, workers: int, processes: int, cores: int) -> Finding:
    """Compare the data workers of a machine with its models.

    Args:
        speed: of a worker.
        needed: clips per second that the models of all processes take.
        workers: of each process.
        processes: on this machine.
        cores: of this machine.
    """
    running = min(cores, processes * max(1, workers))
    made, wanted = running * speed.clips, math.ceil(needed / speed.clips)
    seen = (
        f"data workers make {made:.3g} of your clips a second ({running} x {speed.clips:.3g}, "
        f"{speed.measured} measured); the model takes about {needed:.3g}"
    )
    if made >= needed:
        return Finding(MACHINE, OK, seen)
    if wanted < cores:
        return Finding(MACHINE, WARNING, seen, f"dataset.num_workers={-(-wanted // processes)}")
    fix = f"eat cache, or task.fbank.device=model; {wanted} cores would do"
    return Finding(MACHINE, WARNING, seen, fix)
