"""Device, precision and data workers of a run on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import torch
from omegaconf import DictConfig

from ..prepare.processes import available_cores
from ..processor import bfloat16_gain

PRECISIONS = ("common.cpu", "common.fp16", "common.bf16", "common.amp")


def choose_precision(given: set[str], precision: Sequence[str] = ()) -> list[str]:
    """Return the overrides for this machine; none if one of them is given.

    Bfloat16 where the hardware multiplies matrices of it; else float16 on a GPU, float32 on a CPU.
    ``precision`` are overrides of the precision itself in place of that.
    """
    if given.intersection(PRECISIONS):
        return []
    if not torch.cuda.is_available():
        halves = ["common.bf16=true"] if bfloat16_gain() > 1 else []
        return ["common.cpu=true", *(precision or ["common.fp16=false", *halves])]
    if precision:
        return list(precision)
    if _has_bfloat16():
        return ["common.fp16=false", "common.bf16=true"]
    return ["common.fp16=true"]


def trains_on_cpu(overrides: list[str]) -> bool:
    """Whether a run of these overrides has no GPU."""
    asks = any(text.lower().replace(" ", "") == "common.cpu=true" for text in overrides)
    return asks or not torch.cuda.is_available()


def has_no_gpu(cfg: DictConfig) -> bool:
    """Whether a run has no GPU."""
    return bool(cfg.common.cpu) or not torch.cuda.is_available()


def limit_workers(cfg: DictConfig, processes: int) -> int:
    """Return the number of data workers per process: as configured, or as the cores allow.

    Args:
        cfg: of the run.
        processes: that a launcher has started and that share the cores; fairseq starts one per GPU.
    """
    if processes == 1 and not (cfg.common.cpu or cfg.distributed_training.distributed_no_spawn):
        processes = max(1, torch.cuda.device_count())
    return min(int(cfg.dataset.num_workers), max(1, available_cores() // processes - 1))


def _has_bfloat16() -> bool:
    if torch.cuda.device_count() == 1:
        return torch.cuda.is_bf16_supported()
    # Asking creates a CUDA context. This process would keep it, and a GPU in exclusive mode
    # has room for that of one process.
    code = "import sys, torch; sys.exit(not torch.cuda.is_bf16_supported())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def describe(cfg: DictConfig) -> str:
    """Return the device and the precision of a run, in words."""
    halves = {"fp16": "float16", "bf16": "bfloat16", "amp": "float16 (amp)"}
    chosen = [words for name, words in halves.items() if cfg.common[name]]
    precision = chosen[0] if chosen else "float32"
    processes = cfg.distributed_training.distributed_world_size
    if has_no_gpu(cfg):
        several = f"processes: {processes}, " if processes > 1 else ""
        return f"CPU, {several}threads: {torch.get_num_threads()}, {precision}"
    if cfg.distributed_training.distributed_no_spawn:
        return f"{processes} GPUs, {precision}"
    count = torch.cuda.device_count()
    return f"{torch.cuda.get_device_name() if count == 1 else f'{count} GPUs'}, {precision}"
