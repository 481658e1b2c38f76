"""How many operations an update takes beside its forward and backward pass.

In this file:
    count_operations    those of any function
    count_update        those of optimizer and teacher: of fairseq's modules, and of ours
"""

from __future__ import annotations

import copy
from typing import Any, Callable

import torch
from fairseq.optim import FairseqOptimizer, MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..models.eat import EatModel
from .plain_training import PlainUpdate
from .training import CLIP_NORM, DECAY, LR, make_optimizer

# Of what ATen does, these compute nothing, and are not marked as views.
ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


def count_operations(function: Callable[[], Any]) -> int:
    """Count the operations of ATen that a call takes, without views and allocations.

    One operation over a list of tensors (``torch._foreach_*``, a fused optimizer) counts as one. On
    a GPU it is one kernel or a few, as many as the list's tensors take to describe; on the CPU it
    is a loop, and the count says little about time. An operation on one tensor counts as one
    whatever its size.

    Args:
        function: what to call.
    """
    with _Counter() as counter:
        function()
    return counter.count


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_free = func.is_view or func.overloadpacket.__name__ in ALLOCATIONS
        self.count += func.namespace == "aten" and not is_free
        return func(*args, **(kwargs or {}))


def count_update(model: EatModel, dtype: torch.dtype) -> tuple[int, int]:
    """Count the operations of an update of a model outside its forward and backward pass.

    That is: the step of the teacher, gradients divided by the sample size and clipped, the step of
    the optimizer, gradients emptied; all through fairseq's wrapper for the precision.

    Args:
        model: the model; it stays as it is.
        dtype: float32, or bfloat16: fairseq's ``bf16`` mode for its own modules, where it keeps
            float32 copies, ``memory_efficient_bf16`` for ours, where the optimizer does.

    Returns:
        Those of ``EMAModule``, ``Adam`` and ``clip_grad_norm_`` of fairseq, and ours.
    """
    plain = PlainUpdate(model, LR, DECAY, CLIP_NORM, dtype=dtype)
    ours = copy.deepcopy(model).to(dtype=dtype).train()
    optimizer: FairseqOptimizer = make_optimizer(ours, LR)
    if dtype == torch.bfloat16:
        # A window for a scale of the loss has to be named; bfloat16 has none.
        cfg = OmegaConf.create({"common": {"bf16": True, "fp16_scale_window": 1}})
        optimizer = MemoryEfficientFP16Optimizer(cfg, None, optimizer)
    updates = iter((1, 2))
    return (
        _count(plain.model, plain.optimizer, lambda: plain.average.step(plain.source)),
        _count(ours, optimizer, lambda: ours.set_num_updates(next(updates))),
    )


def _count(model: nn.Module, optimizer: FairseqOptimizer, average: Callable[[], None]) -> int:
    """Count an update; the first one, which makes the optimizer's state, does not count."""

    def update() -> None:
        average()
        optimizer.multiply_grads(0.5)
        optimizer.clip_grad_norm(CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    counts = []
    for _ in range(2):
        optimizer.backward(torch.stack([p.sum() for p in model.parameters()]).sum())
        counts.append(count_operations(update))
    return counts[-1]
