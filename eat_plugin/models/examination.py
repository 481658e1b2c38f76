"""The vectors of whole clips that show whether a pre-training collapses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .eat import EatModel


class Examined(NamedTuple):
    """Vectors of M clips of L patches, width D.

    Attributes:
        patches: [M, L, D], output of the student's last block.
        cls: [M, D], the CLS token of the student; None for a model without one.
        targets: [M, L, D], of the teacher, float32; None if not asked for.
        padding: bool [M, L], True = padding; None if all clips have the same length.
    """

    patches: Tensor
    cls: Tensor | None
    targets: Tensor | None
    padding: Tensor | None


@torch.no_grad()
def examine(
    model: EatModel, source: Tensor, padding: Tensor | None = None, with_targets: bool = True
) -> Examined:
    """Encode whole clips without dropout; the model stays as it is, its random generators too.

    Args:
        model: with a teacher, in any mode, which it keeps.
        source: [M, C, T, F], in the precision of the model.
        padding: bool [M, L], or None.
        with_targets: by the teacher too.
    """
    with _evaluating(model):
        found = model.extract_features(source, padding_mask=padding, remove_extra_tokens=False)
        extra, targets = model.num_extra_tokens, None
        if with_targets and model.teacher is not None:
            source, padding = model.patch_encoder.prepare(model.time_major(source), padding)
            targets, _ = model.teacher.make_targets(model, source, None, padding)
    cls = found["x"][:, extra - 1] if extra else None
    return Examined(found["x"][:, extra:], cls, targets, padding)


@contextmanager
def _evaluating(model: EatModel) -> Iterator[None]:
    """Switch to evaluation; no block is compiled for another number of clips."""
    blocks = [] if model.teacher is None else list(model.teacher.encoder.blocks)
    modes = {module: module.training for module in model.modules()}
    compiled = [block.compiled_in_evaluation for block in blocks]
    try:
        model.eval()
        for block in blocks:
            block.compiled_in_evaluation = False  # type: ignore[assignment]
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for block, value in zip(blocks, compiled):
            block.compiled_in_evaluation = value
