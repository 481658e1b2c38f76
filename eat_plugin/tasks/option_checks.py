"""fairseq's options: invalid ones, and those that have no place here, are refused at start."""

import logging
import math
import os
from typing import Any, Dict, Iterable, Sequence, Tuple

import torch

from ..options import explain_path, require
from ..processor import OLDEST_FOR_HALF_ON_CPU
from .run_config import RunConfig

logger = logging.getLogger(__name__)

# Option -> accepted values, and why others are refused.
ONLY: Dict[str, Tuple[Tuple[Any, ...], str]] = {
    "common.tpu": ((None, False), "there is no support of TPUs (fairseq-train sets it for --bf16)"),
    "common.model_parallel_size": ((None, 1), "it needs a Megatron model"),
    "common.quantization_config_path": ((None,), "quantisation is not supported"),
    "optimization.use_bmuf": ((None, False), "block momentum is not supported"),
    "dataset.combine_valid_subsets": (
        (None, False), "splits have their own metrics; list them, as dataset.valid_subset=a,b",
    ),
    "distributed_training.ddp_backend": (
        (None, "c10d", "pytorch_ddp", "legacy_ddp", "no_c10d"),
        "choose pytorch_ddp or legacy_ddp (the models fit on one GPU)",
    ),
    "distributed_training.zero_sharding": ((None, "none"), "the models fit on one GPU"),
    "distributed_training.pipeline_model_parallel": (
        (None, False), "the models fit on one GPU",
    ),
    "checkpoint.write_checkpoints_asynchronously": (
        (None, False), "fairseq would write no checkpoint_last.pt to resume from",
    ),
}  # fmt: skip
DEFAULT = "checkpoint_last.pt"  # checkpoint.restore_file: in save_dir
LEAST = {
    "common.log_interval": 1, "common.seed": 0, "optimization.clip_norm": 0,
    "optimization.max_epoch": 0, "dataset.num_workers": 0, "dataset.validate_interval": 1,
    "checkpoint.save_interval": 1, "checkpoint.save_interval_updates": 0,
    "lr_scheduler.warmup_updates": 0,
}  # fmt: skip
CHECKPOINTS = ("restore_file", "continue_once", "finetune_from_model")


def check_options(run: RunConfig) -> None:
    """Refuse invalid options.

    Raises:
        ValueError: names the option, its value and the choices.
    """
    for name, (accepted, reason) in ONLY.items():
        value = run.get(name)
        shown = getattr(value, "value", value)
        require(shown in accepted, name, shown, reason)
    for name, least in LEAST.items():
        value = run.get(name)
        require(value is None or value >= least, name, value, f"it must be {least} or more")
    _check_batch_sizes(run)
    _check_learning_rate(run)
    _check_updates(run)
    _check_precision(run)
    _check_warm_up(run)
    check_checkpoints(run)


def _check_batch_sizes(run: RunConfig) -> None:
    for name in ("batch_size", "batch_size_valid"):
        size = run.get(f"dataset.{name}")
        require(size is None or size >= 1, f"dataset.{name}", size, "it must be 1 or more")
    counts = run.get("optimization.update_freq")
    is_valid = counts is None or (len(counts) > 0 and min(counts) >= 1)
    require(is_valid, "optimization.update_freq", counts, "it must be a list of numbers from 1")
    frames, window = run.get("dataset.max_tokens"), run.get("task.target_length") or 0
    if frames is not None and run.get("task.images") is None:
        rule = f"it must be {window} (task.target_length) or more, or clips would be left out"
        require(frames >= window, "dataset.max_tokens", frames, rule)


def _check_learning_rate(run: RunConfig) -> None:
    given = run.get("optimization.lr")
    if given is None:
        return
    rates = list(given) if isinstance(given, Sequence) else [given]
    require(
        bool(rates) and all(0 < rate < math.inf for rate in rates), "optimization.lr", rates,
        "it must be a list of one number above 0, as optimization.lr=[0.0005]",
    )  # fmt: skip


def _check_updates(run: RunConfig) -> None:
    most, epochs = run.get("optimization.max_update"), run.get("optimization.max_epoch") or 0
    if most is None:
        return
    period = run.get("lr_scheduler.lr_period_updates") or 0
    needed = run.get("lr_scheduler._name") == "cosine" and period <= 0
    is_valid = most > 0 or (most == 0 and epochs > 0 and not needed)
    require(is_valid, "optimization.max_update", most, "set it to the number of updates, 1 or more")


def _check_precision(run: RunConfig) -> None:
    chosen = [name for name in ("fp16", "bf16", "amp") if run.get(f"common.{name}")]
    if len(chosen) > 1:
        raise ValueError(f"common.{' and common.'.join(chosen)} are true; set all but one to false")
    if chosen and not run.get("common.cpu") and not torch.cuda.is_available():
        raise ValueError(
            f"common.{chosen[0]}=true, and PyTorch finds no GPU; without one set common.cpu=true "
            f"common.{chosen[0]}=false"
        )
    scale = run.get("common.fp16_init_scale") or 1
    if chosen == ["fp16"] and run.get("common.cpu") and scale > 1 and not torch.cuda.is_available():
        raise ValueError(
            "common.fp16=true with common.cpu=true: without a GPU fairseq fails at the first "
            "overflow of the loss scale; set common.fp16=false, or common.fp16_init_scale=1"
        )
    halves_on_cpu = chosen in (["fp16"], ["bf16"]) and run.get("common.cpu")
    if halves_on_cpu and torch.__version__ < OLDEST_FOR_HALF_ON_CPU:
        raise ValueError(
            f"common.{chosen[0]}=true with common.cpu=true needs PyTorch {OLDEST_FOR_HALF_ON_CPU} "
            f"or later, this is {torch.__version__}; set common.{chosen[0]}=false"
        )
    if chosen == ["amp"]:
        logger.warning(
            "with common.amp fairseq divides gradients by its loss scale twice, so the optimizer's "
            "epsilon is far too large; use common.bf16 or common.fp16"
        )


def _check_warm_up(run: RunConfig) -> None:
    """Refuse a warm-up that does not end: fairseq divides by zero, or the rate only rises."""
    steps = run.get("lr_scheduler.warmup_updates") or 0
    most = run.get("optimization.max_update") or 0
    if 0 < most <= steps:
        raise ValueError(
            f"lr_scheduler.warmup_updates is {steps}, but optimization.max_update is {most}; set "
            f"lr_scheduler.warmup_updates to less, as {most // 10}"
        )


def find_last(run: RunConfig) -> str:
    """Return the path of the last checkpoint of a run, which may not exist."""
    suffix = run.get("checkpoint.checkpoint_suffix") or ""
    name = DEFAULT.replace(".pt", f"{suffix}.pt")
    return os.path.join(run.get("checkpoint.save_dir") or "", name)


def check_checkpoints(run: RunConfig) -> None:
    """Refuse missing files: fairseq would start from random weights without a word.

    A resumed run does not need the files that it started from.

    Raises:
        ValueError: names the option and the file.
    """
    folder = run.get("checkpoint.save_dir") or ""
    resumes = os.path.isfile(find_last(run))
    for option in CHECKPOINTS[:1] if resumes else CHECKPOINTS:
        name = f"checkpoint.{option}"
        path = run.get(name)
        if not path or path == DEFAULT or "://" in path or os.path.isfile(path):
            continue
        # A later start of the same run may find it in its own folder.
        if os.path.dirname(os.path.abspath(path)) != os.path.abspath(folder):
            problem = explain_path(path, "give a checkpoint, or leave the option out")
            raise ValueError(f"{name} is {path!r}, which {problem}")


def check_metric(
    run: RunConfig, criterion: str, names: Iterable[str], never: Iterable[str] = ()
) -> None:
    """Refuse a metric for the best checkpoint that fairseq would miss at the first validation.

    Args:
        run: the configuration.
        criterion: the one that logs ``names``; others may log metrics of their own.
        names: of the metrics that are computed, besides ``loss``.
        never: metrics that no criterion computes, unless they are in ``names``.

    Raises:
        ValueError: names the metric and the choices.
    """
    if run.root is None or run.get("dataset.disable_validation"):
        return
    metric, choices = run.get("checkpoint.best_checkpoint_metric"), [*names, "loss"]
    if metric in (None, *choices):
        return
    if run.get("criterion._name") == criterion or metric in never:
        raise ValueError(
            f"checkpoint.best_checkpoint_metric is {metric!r}, which is not computed; choose one "
            f"of {', '.join(choices)}"
        )
