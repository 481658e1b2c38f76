"""How much a forward pass keeps in memory for its backward pass.

In this file:
    count_saved_bytes          what any function keeps
    count_activations          what the losses of a batch keep
    count_plain_activations    what their plain form keeps
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

import torch
from torch import Tensor

from ..models.eat import EatModel
from .plain_training import compute_losses


def count_saved_bytes(function: Callable[[], Any], besides: Iterable[Tensor] = ()) -> int:
    """Count the bytes that autograd keeps for backward in a call.

    Memory that several tensors share, views of one another, counts once.

    Args:
        function: what to call; it computes something that has a gradient.
        besides: what is there anyway, and does not count: parameters, and the input.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    # They are held, so that no memory is given away again and mistaken for what it was before.
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function()
    return sum(storage.nbytes() for storage in kept.values())


def count_activations(model: EatModel, source: Tensor, mask: Tensor) -> int:
    """Count the bytes that the losses of a batch keep for backward.

    Args:
        model: in training.
        source: [B, C, T, F], of the model's precision.
        mask: [B*K, L], 1 = hidden.
    """
    num_visible = int((mask[0] == 0).sum())

    def compute() -> None:
        model(source, precomputed_mask=mask, num_visible=num_visible)

    if model.cfg.compile:
        compute()  # compiling keeps other things
    return count_saved_bytes(compute, [*_parameters_of(model), source, mask])


def count_plain_activations(model: EatModel, source: Tensor, mask: Tensor) -> int:
    """Count the same of the plain form.

    Args:
        model: in training, with ``recompute: none``.
        source: [B, C, T, F], of the model's precision.
        mask: [B*K, L], 1 = hidden.
    """
    assert model.teacher is not None
    teacher = model.teacher.encoder
    return count_saved_bytes(
        lambda: compute_losses(model, teacher, source, mask),
        [*_parameters_of(model), source, mask],
    )


def _parameters_of(model: EatModel) -> list[Tensor]:
    assert model.teacher is not None
    return [*model.parameters(), *model.teacher.encoder.parameters()]
