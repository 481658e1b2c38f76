"""A run before it starts: its model without values, and a few updates that are timed."""

from __future__ import annotations

import resource
import time
from typing import Any, NamedTuple

import torch
from fairseq.models import build_model
from fairseq.trainer import Trainer
from omegaconf import DictConfig, open_dict
from torch import nn
from torch.overrides import TorchFunctionMode

UPDATES, SECONDS = 20, 20.0  # timed at most; at least one


_INITIALIZERS = frozenset({
    "normal_", "uniform_", "trunc_normal_", "xavier_uniform_", "kaiming_uniform_", "zeros_",
    "ones_", "zero_", "fill_", "copy_",
})  # fmt: skip


class _WithoutValues(TorchFunctionMode):
    """Leaves out initial values: without data they mean nothing, and take seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _INITIALIZERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_without_values(task: Any, cfg: DictConfig, has_data: bool = True) -> nn.Module:
    """Build the model of a run on the meta device, where tensors have shapes alone.

    Args:
        task: of the run.
        cfg: of the run.
        has_data: the task has a data folder, which it checks.

    Raises:
        ValueError: the model's options are invalid, or do not fit the task.
    """
    with _WithoutValues(), torch.device("meta"):
        model: Any = task.build_model(cfg.model) if has_data else build_model(cfg.model, task)
    built: nn.Module = model
    return built


class Timing(NamedTuple):
    """Clips per second of a process, peak memory in bytes, and updates that were timed."""

    rate: float
    memory: float
    updates: int


def time_updates(cfg: DictConfig, task: Any, dataset: Any, size: int) -> Timing:
    """Train a new model on one batch, in this process.

    The first update is not timed: it chooses the fastest convolution, and may compile.

    Args:
        cfg: of the run; the copy that trains has one process.
        task: of the run.
        dataset: the training clips.
        size: clips of a batch.

    Raises:
        RuntimeError: as out of memory.
    """
    own = cfg.copy()
    with open_dict(own):
        own.distributed_training.distributed_world_size = 1
    is_gpu = torch.cuda.is_available() and not own.common.cpu
    batch = dataset.collater([dataset[index % len(dataset)] for index in range(size)])
    trainer = Trainer(own, task, task.build_model(own.model), task.build_criterion(own.criterion))
    trainer.cuda_env = None  # it would reset the peak of memory in each update
    trainer.begin_epoch(1)
    steps = [batch] * own.optimization.update_freq[0]

    def update() -> None:
        trainer.train_step(steps, raise_oom=True)
        if is_gpu:
            torch.cuda.synchronize()

    update()
    began, number = time.perf_counter(), 0
    while number < UPDATES and (number == 0 or time.perf_counter() - began < SECONDS):
        update()
        number += 1
    seconds = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() if is_gpu else peak
    return Timing(number * size * len(steps) / seconds, float(memory), number)
