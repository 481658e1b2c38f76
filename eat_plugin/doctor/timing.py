"""A few updates of a run, timed: through fairseq's trainer, as in training, saving nothing."""

from __future__ import annotations

import resource
import time
from typing import Any, NamedTuple

import torch
from fairseq.trainer import Trainer
from omegaconf import DictConfig, open_dict

UPDATES, SECONDS = 20, 20.0  # timed at most; at least one


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
