"""fairseq's own options: what cannot work is refused at start, in plain words.

In this file:
    whole_config    fairseq's configuration, given the part of it that is a task's
    setting         an option in it
    check           refuses and mends what is the same for all tasks
    check_metric    refuses to choose checkpoints by a metric that is not computed
"""

import logging
from typing import Any, Optional, Tuple

import torch
from omegaconf import DictConfig

from ..metrics import METRICS

logger = logging.getLogger(__name__)

# PyTorch: before, attention in half precision over an odd number of tokens overwrites memory.
OLDEST_FOR_HALF_ON_CPU = "2.2"


def whole_config(cfg: Any) -> Optional[DictConfig]:
    """Return fairseq's whole configuration.

    Args:
        cfg: the task's options, as fairseq hands them over.

    Returns:
        It; None if they stand by themselves.
    """
    root: Any = cfg._get_parent() if isinstance(cfg, DictConfig) else None
    return root if isinstance(root, DictConfig) else None


def setting(root: Optional[DictConfig], path: str) -> Any:
    """Return an option of a configuration, None where it has none of that name.

    (``get`` of an omegaconf 2.0 raises where a section is a dataclass without such a field.)

    Args:
        root: fairseq's whole configuration; None for none.
        path: names of the section and of the option, ``section.option``.
    """
    node: Any = root
    for name in path.split("."):
        if not isinstance(node, DictConfig) or name not in node:
            return None
        node = node[name]
    return node


def check(cfg: Any) -> None:
    """Look at the options that every run has.

    Where there are several processes, each is made to read checkpoints itself: fairseq would send
    one around in a form that PyTorch, since 2.6, refuses to read.

    Args:
        cfg: the task's options, in fairseq's whole configuration or by themselves.

    Raises:
        ValueError: if the precision cannot be had.
    """
    root = whole_config(cfg)
    if root is None:
        return
    if (setting(root, "distributed_training.distributed_world_size") or 1) > 1:
        root.checkpoint.load_checkpoint_on_all_dp_ranks = True
    _check_precision(root)
    _check_warm_up(root)


def _check_precision(root: DictConfig) -> None:
    chosen = [name for name in ("fp16", "bf16", "amp") if setting(root, f"common.{name}")]
    if len(chosen) > 1:
        raise ValueError(
            f"common.{' and common.'.join(chosen)} are true; set all but one to false"
        )
    if chosen and not setting(root, "common.cpu") and not torch.cuda.is_available():
        raise ValueError(
            f"common.{chosen[0]}=true, and PyTorch finds no GPU; without one set common.cpu=true "
            f"common.{chosen[0]}=false"
        )
    halves_on_cpu = chosen in (["fp16"], ["bf16"]) and setting(root, "common.cpu")
    if halves_on_cpu and torch.__version__ < OLDEST_FOR_HALF_ON_CPU:
        raise ValueError(
            f"common.{chosen[0]}=true with common.cpu=true takes PyTorch {OLDEST_FOR_HALF_ON_CPU} "
            f"or later, and this is {torch.__version__}; set common.{chosen[0]}=false"
        )
    if chosen == ["amp"]:
        logger.warning(
            "with common.amp fairseq divides gradients by its loss scale twice, so that epsilon "
            "of the optimizer counts far too much; common.bf16 or common.fp16 is better"
        )


def _check_warm_up(root: DictConfig) -> None:
    steps = setting(root, "lr_scheduler.warmup_updates") or 0
    most = setting(root, "optimization.max_update") or 0
    if 0 < most <= steps:
        logger.warning(
            "lr_scheduler.warmup_updates=%s is not less than optimization.max_update=%s: the "
            "learning rate only rises",
            steps, most,
        )  # fmt: skip


def check_metric(cfg: Any, names: Tuple[str, ...]) -> None:
    """Refuse a metric for choosing checkpoints that fairseq would miss after the first epoch.

    Args:
        cfg: the task's options, in fairseq's whole configuration or by themselves.
        names: the metrics that the task logs.

    Raises:
        ValueError: if it is none of ``names``, nor the loss.
    """
    root = whole_config(cfg)
    if root is None or setting(root, "dataset.disable_validation"):
        return
    metric = setting(root, "checkpoint.best_checkpoint_metric") or "loss"
    # What a criterion of others logs is not known here.
    ours = setting(root, "criterion._name") == "eat_classification"
    if metric not in (*names, "loss") and (ours or metric in METRICS):
        raise ValueError(
            f"checkpoint.best_checkpoint_metric is {metric!r}, which is not computed here; choose "
            f"one of {', '.join(names)}, loss"
        )
