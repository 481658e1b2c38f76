"""fairseq's own options: what cannot work is refused at start, in plain words.

In this file:
    whole_config    fairseq's configuration, given the part of it that is a task's
    check           refuses and mends what is the same for all tasks
    check_metric    refuses to choose checkpoints by a metric that is not computed
"""

import logging
from typing import Any, Optional, Tuple

import torch
from omegaconf import DictConfig

from ..metrics import METRICS

logger = logging.getLogger(__name__)


def whole_config(cfg: Any) -> Optional[DictConfig]:
    """Return fairseq's whole configuration.

    Args:
        cfg: the task's options, as fairseq hands them over.

    Returns:
        It; None if they stand by themselves.
    """
    root: Any = cfg._get_parent() if isinstance(cfg, DictConfig) else None
    return root if isinstance(root, DictConfig) else None


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
    if (root.get("distributed_training") or {}).get("distributed_world_size", 1) > 1:
        root.checkpoint.load_checkpoint_on_all_dp_ranks = True
    _check_precision(root.get("common") or {})
    _check_warm_up(root)


def _check_precision(common: Any) -> None:
    chosen = [name for name in ("fp16", "bf16", "amp") if common.get(name)]
    if len(chosen) > 1:
        raise ValueError(
            f"common.{' and common.'.join(chosen)} are true; set all but one to false"
        )
    if chosen and not common.get("cpu") and not torch.cuda.is_available():
        raise ValueError(
            f"common.{chosen[0]}=true, and PyTorch finds no GPU; without one set common.cpu=true "
            f"common.{chosen[0]}=false"
        )
    if chosen == ["amp"]:
        logger.warning(
            "with common.amp fairseq divides gradients by its loss scale twice, so that epsilon "
            "of the optimizer counts far too much; common.bf16 or common.fp16 is better"
        )


def _check_warm_up(root: DictConfig) -> None:
    steps = (root.get("lr_scheduler") or {}).get("warmup_updates") or 0
    most = (root.get("optimization") or {}).get("max_update") or 0
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
    if root is None or (root.get("dataset") or {}).get("disable_validation"):
        return
    metric = (root.get("checkpoint") or {}).get("best_checkpoint_metric", "loss")
    # What a criterion of others logs is not known here.
    ours = (root.get("criterion") or {}).get("_name") == "eat_classification"
    if metric not in (*names, "loss") and (ours or metric in METRICS):
        raise ValueError(
            f"checkpoint.best_checkpoint_metric is {metric!r}, which is not computed here; choose "
            f"one of {', '.join(names)}, loss"
        )
