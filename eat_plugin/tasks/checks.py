"""Checks of a run at start: the checkpoint to resume, batches, float32 weights."""

import logging
import os
from types import MappingProxyType
from typing import Any, Mapping, Optional

import fairseq
import torch
from fairseq.optim import FP16Optimizer

from ..checkpoint_files import read_data
from ..options import OtherPrecisionError, require
from .choosing import Rule, choose_options
from .option_checks import CHECKPOINTS, DEFAULT, check_options
from .resumed import UNREADABLE, ResumedRun, find_resumed_run
from .run_config import RunConfig
from .world_size import warn_of_other_batches

logger = logging.getLogger(__name__)

KEEPS_MASTERS = "eat_adamw"  # the optimizer that keeps float32 weights itself
# Name of fairseq's wrapper in a checkpoint -> whether its mode is a memory-efficient one.
WRAPPERS = {"FP16Optimizer": False, "MemoryEfficientFP16Optimizer": True}
WRAPPER_OF_AMP = "AMPOptimizer"
PRECISIONS = ("fp16", "bf16", "amp")  # common.NAME; float32 if none is true


def describe_end(run: RunConfig, resumed: Optional[ResumedRun]) -> str:
    """Say that a run has all its updates; empty if it has not."""
    most = run.get("optimization.max_update") or 0
    if resumed is None or not 0 < most <= resumed.updates:
        return ""
    return (
        f"nothing to do: {os.path.abspath(resumed.path)} has {resumed.updates} updates, "
        f"optimization.max_update is {most}"
    )


def check_run(
    run: RunConfig, rules: Mapping[str, Rule] = MappingProxyType({}), task: Any = None
) -> Optional[ResumedRun]:
    """Find the checkpoint to resume, choose open options, and refuse invalid ones.

    With several processes, each reads checkpoints itself: fairseq would broadcast one in a form
    that PyTorch refuses since 2.6.

    Args:
        run: the configuration.
        rules: how open options are chosen.
        task: a copy of the task's options, in which choices are set too.

    Returns:
        The checkpoint being resumed, or None.

    Raises:
        ValueError: an option is invalid, or the checkpoint cannot be resumed with it.
    """
    if run.root is None:
        return None
    if (run.get("distributed_training.distributed_world_size") or 1) > 1:
        run.root.checkpoint.load_checkpoint_on_all_dp_ranks = True
    resumed = find_resumed_run(run)
    _check_precision(run, resumed)
    choose_options(run, rules, resumed, task)
    check_options(run)
    if resumed is None:
        _refuse_unreadable(run)
    else:
        warn_of_other_batches(run, resumed)
    _check_masters(run, resumed)
    return resumed


def check_batches(run: RunConfig, clips: int) -> None:
    """Compare the options of batches with the number of training clips per epoch.

    Raises:
        ValueError: an epoch would have no update.
    """
    multiple = run.get("dataset.required_batch_size_multiple") or 1
    rule = f"an epoch of {clips} clips would have no update; set it to 1"
    require(clips >= multiple, "dataset.required_batch_size_multiple", multiple, rule)
    size = run.get("dataset.batch_size")
    processes = run.get("distributed_training.distributed_world_size") or 1
    if size is None or clips > size * processes:
        return
    if run.get("optimization.skip_remainder_batch"):
        raise ValueError(
            f"optimization.skip_remainder_batch is true; an epoch of {clips} clips with "
            f"dataset.batch_size={size} would have no update; set it to false"
        )
    if clips < size * processes:
        where = "" if processes == 1 else f" in each of {processes} processes"
        logger.warning(
            "dataset.batch_size=%d%s is more than the %d clips of an epoch: an epoch is one update "
            "with all of them",
            size, where, clips,
        )  # fmt: skip


def refuse_lone_processes() -> None:
    """Raise ValueError if a launcher started several processes and each would train alone."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and not torch.distributed.is_initialized():
        raise ValueError(
            f"the launcher started {started} processes, but each would train alone: set "
            f"distributed_training.distributed_world_size={started}"
        )


def _refuse_unreadable(run: RunConfig) -> None:
    """Raise ValueError if a file to start from, named by an option, is no checkpoint."""
    for option in CHECKPOINTS:
        path = run.get(f"checkpoint.{option}")
        if path and path != DEFAULT and os.path.isfile(path):
            try:
                read_data(path, check=False, only_data=True)["model"]
            except UNREADABLE as error:
                raise ValueError(
                    f"checkpoint.{option} is {path!r}, which is not a fairseq checkpoint, is "
                    "damaged, or holds more than plain data"
                ) from error


def _check_precision(run: RunConfig, resumed: Optional[ResumedRun]) -> None:
    """Refuse to resume a run in float32 in half precision or by amp, or the other way.

    fairseq's wrappers of the optimizer cannot read each other's state.
    """
    if resumed is None or not resumed.optimizer:
        return
    wanted = {name: bool(run.get(f"common.{name}")) for name in PRECISIONS}
    saved = {name: bool(resumed.get(f"common.{name}")) for name in PRECISIONS}
    is_half = resumed.optimizer in WRAPPERS, resumed.optimizer == WRAPPER_OF_AMP
    if is_half == (wanted["fp16"] or wanted["bf16"], wanted["amp"]):
        return
    if saved["fp16"] and not torch.cuda.is_available():
        saved.update(fp16=False, bf16=True)  # float16 fails on CPUs; bfloat16 reads its state
    overrides = [f"common.{name}={str(value).lower()}" for name, value in saved.items()]
    raise OtherPrecisionError(
        f"{resumed.path} was saved in another precision; resume with {' '.join(overrides)}",
        overrides,
    )


def _check_masters(run: RunConfig, resumed: Optional[ResumedRun]) -> None:
    """Check who keeps the float32 weights: fairseq, or (memory-efficient modes) the optimizer."""
    if not (run.get("common.fp16") or run.get("common.bf16")):
        return
    efficient = any(run.get(f"common.memory_efficient_{name}") for name in ("fp16", "bf16"))
    if resumed is not None and WRAPPERS.get(resumed.optimizer, efficient) != efficient:
        there = str(not efficient).lower()
        raise ValueError(
            f"{resumed.path} was saved with common.memory_efficient_fp16={there} (or bf16); resume "
            f"with common.memory_efficient_fp16={there} (or bf16)"
        )
    name = run.get("optimizer._name")
    if not efficient and name == KEEPS_MASTERS and not _copies_keep_overrides():
        raise ValueError(
            f"fairseq {fairseq.__version__} loses the learning rates and weight decay of single "
            "parameters in its float32 copies; set common.memory_efficient_fp16=true (or bf16)"
        )
    if efficient and name != KEEPS_MASTERS:
        logger.warning(
            "optimizer %s keeps no float32 weights, and common.memory_efficient_fp16 (or bf16) is "
            "true: small updates are lost; set common.memory_efficient_fp16=false "
            "common.memory_efficient_bf16=false",
            name,
        )


def _copies_keep_overrides() -> bool:
    """Whether fairseq's float32 copies keep the options of parameters; those of 0.12.2 do not."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.optim_overrides = {}  # type: ignore[attr-defined]
    (copied,) = FP16Optimizer.build_fp32_params(None, [parameter], flatten=False)
    return hasattr(copied, "optim_overrides")
