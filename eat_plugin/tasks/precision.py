"""Whether fairseq's half precision mode suits the optimizer, and the run that goes on.

In its memory-efficient modes fairseq leaves float32 weights to the optimizer.
"""

import logging
from typing import Any, Optional

import fairseq
import torch
from fairseq.optim import FP16Optimizer

from .resume import EarlierRun
from .settings import setting, whole_config

logger = logging.getLogger(__name__)

WITH_MASTERS = "eat_adamw"  # keeps float32 weights itself
# The name of fairseq's wrapper in a checkpoint -> whether its mode is a memory-efficient one.
WRAPPERS = {"FP16Optimizer": False, "MemoryEfficientFP16Optimizer": True}


def check(cfg: Any, earlier: Optional[EarlierRun]) -> None:
    """Refuse a mode in which an earlier run cannot go on; warn of one in which weights suffer.

    Args:
        cfg: the task's options, in fairseq's whole configuration or by themselves.
        earlier: the run that goes on; None if it begins anew.

    Raises:
        ValueError: if the run began in the other mode, or this fairseq loses in it what each
            parameter's learning rate and weight decay are.
    """
    root = whole_config(cfg)
    if not (setting(root, "common.fp16") or setting(root, "common.bf16")):
        return
    efficient = any(setting(root, f"common.memory_efficient_{name}") for name in ("fp16", "bf16"))
    if earlier is not None and WRAPPERS.get(earlier.optimizer, efficient) != efficient:
        there = str(not efficient).lower()
        raise ValueError(
            f"{earlier.path} was written with other keepers of the float32 weights; to go on from "
            f"it, set common.memory_efficient_fp16={there} (or bf16), as it was begun"
        )
    name = setting(root, "optimizer._name")
    if not efficient and name == WITH_MASTERS and not _copies_keep_overrides():
        raise ValueError(
            f"fairseq {fairseq.__version__} loses, in its own copies of the weights, which of them "
            "have no weight decay and other learning rates; set common.memory_efficient_fp16=true "
            "(or bf16)"
        )
    if efficient and name != WITH_MASTERS:
        logger.warning(
            "optimizer %s keeps no float32 weights, and common.memory_efficient_fp16 (or bf16) is "
            "true: small updates are lost; set common.memory_efficient_fp16=false "
            "common.memory_efficient_bf16=false",
            name,
        )


def _copies_keep_overrides() -> bool:
    """Whether fairseq's float32 copies have the options of their parameters; 0.12.2's do not."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.optim_overrides = {}  # type: ignore[attr-defined]
    (copied,) = FP16Optimizer.build_fp32_params(None, [parameter], flatten=False)
    return hasattr(copied, "optim_overrides")
