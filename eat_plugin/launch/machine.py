"""Device, precision and threads of a run on this machine."""

from __future__ import annotations

import os

import torch
from omegaconf import DictConfig

from ..prepare.processes import available_cores

PRECISIONS = ("common.cpu", "common.fp16", "common.bf16", "common.amp")
THREADS = "OMP_NUM_THREADS"


def choose_precision(given: set[str]) -> list[str]:
    """Return the overrides for this machine; none if one of them is given.

    Without a GPU float32 on the CPU; else bfloat16, or float16 on a GPU without it.
    """
    if given.intersection(PRECISIONS):
        return []
    if not torch.cuda.is_available():
        return ["common.cpu=true", "common.fp16=false"]
    if torch.cuda.is_bf16_supported():
        return ["common.fp16=false", "common.bf16=true"]
    return ["common.fp16=true"]


def choose_workers(cfg: DictConfig, given: set[str]) -> list[str]:
    """Return the override of the number of data workers, if the cores do not suffice for it."""
    wanted = int(cfg.dataset.num_workers)
    processes = max(1, torch.cuda.device_count()) if not cfg.common.cpu else 1
    most = max(1, available_cores() // processes - 1)
    if "dataset.num_workers" in given or wanted <= most:
        return []
    return [f"dataset.num_workers={most}"]


def limit_threads(workers: int) -> int | None:
    """Leave cores to the data workers: PyTorch's default is a thread per core.

    Returns:
        The number of threads set; None if ``OMP_NUM_THREADS`` is set already.
    """
    if os.environ.get(THREADS):
        return None
    threads = max(1, available_cores() - workers)
    os.environ[THREADS] = str(threads)
    torch.set_num_threads(threads)
    return threads


def describe(cfg: DictConfig) -> str:
    """Return the device and the precision of a run, in words."""
    common = cfg.common
    halves = [name for name in ("fp16", "bf16", "amp") if common[name]]
    precision = (
        {"fp16": "float16", "bf16": "bfloat16", "amp": "float16 (amp)"}[halves[0]]
        if halves
        else "float32"
    )
    if common.cpu:
        return f"CPU, threads: {torch.get_num_threads()}, {precision}"
    count = torch.cuda.device_count()
    name = torch.cuda.get_device_name() if count else "GPU"
    return f"{count} x {name}, {precision}"
