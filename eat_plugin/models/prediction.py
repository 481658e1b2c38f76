"""The student's predictions of hidden patches, to look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import restore_patches
from ..modules.patches import patchify, unpatchify
from .objectives import Reconstruction
from .step import Step


@torch.no_grad()
def reconstruct(step: Step) -> Tensor | None:
    """Replace the hidden patches by their predicted values, [B*K, C, T, F].

    The prediction is of normalised values; mean and deviation are those of the true patches. None
    for a model without a reconstruction loss.
    """
    for objective in step.model.objectives:
        if isinstance(objective, Reconstruction):
            size = objective.cfg.modalities.image.patch_size
            patches = patchify(step.source, size)  # [B, L, p*q*C]
            patches = patches.repeat_interleave(objective.cfg.clone_batch, dim=0)
            rows, flat = step.split.hidden_rows, patches.flatten(0, 1)
            restored = restore_patches(objective.predict(step), flat[rows])
            restored = flat.index_copy(0, rows, restored).view_as(patches)
            return unpatchify(restored, step.grid, size)
    return None


@torch.no_grad()
def measure_agreement(step: Step) -> Tensor | None:
    """Return the cosine of predicted and target features, [B*K, L]; NaN at visible patches.

    None for a model without a decoder.
    """
    if step.prediction is None:
        return None
    cosines = F.cosine_similarity(step.prediction.float(), step.hidden_targets.float(), dim=-1)
    num_rows, num_patches = len(step.student), step.targets.size(1)
    values = cosines.new_full((num_rows * num_patches,), float("nan"))
    return values.index_copy(0, step.split.hidden_rows, cosines).view(num_rows, num_patches)
