"""Labels of the time steps of a model, and their loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..outputs import ClassificationOutput

HALF = 0.5  # of a time step: less of an event is none, in evaluation


def label_steps(label: Tensor, patch: int) -> Tensor:
    """Average the labels of frames over time steps.

    Args:
        label: int8 [B, T, C], 1 where a class is active, -1 in padding.
        patch: frames of a step.

    Returns:
        float32 [B, T/patch, C + 1]: the share of a step in which each class is active; and 1 for a
        step of sound, or 0 for one of padding. It is sound if its middle is; the first one always.
    """
    frames = label.unflatten(1, (-1, patch))  # [B, steps, patch, C]
    is_sound = frames >= 0
    share = (frames == 1).sum(dim=2) / is_sound.sum(dim=2).clamp(min=1)
    known = is_sound[:, :, (patch - 1) // 2, :1].clone()
    known[:, 0] = True
    return torch.cat([share * known, known], dim=2)


def frame_losses(logits: Tensor, label: Tensor, training: bool) -> ClassificationOutput:
    """Compute the binary cross-entropy of each time step.

    Args:
        logits: [B, steps, C].
        label: [B, steps, C + 1], from ``label_steps``, perhaps mixed. The last column is then the
            share of the clips with sound; where it is not 1, their own labels count in full.
        training: leave out scores.

    Returns:
        ``losses``: ``main`` [B, steps, C], 0 in padding. ``sample_size``: number of steps with
        sound. ``_predictions`` and ``_targets`` [B, steps, C], -1 in padding.
    """
    logits, label = logits.float(), label.float()
    sound = label[..., -1:]
    targets = torch.where(sound > 0, label[..., :-1] / sound.clamp(min=1e-6), 0).clamp(max=1)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    result: ClassificationOutput = {
        "losses": {"main": loss * (sound > 0)},
        "sample_size": (sound > 0).sum(),
    }
    if not training:
        result["_predictions"] = logits.sigmoid()
        result["_targets"] = torch.where(sound > 0, (targets >= HALF).float(), -1.0)
    return result
