"""Variance and covariance of CLS across clips, against collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from ..modules.processes import gather_rows
from .step import Step, UtteranceObjective

COVARIANCE_WEIGHT = 1 / 25  # relative to the variance, as in the paper
EPSILON = 1e-4


class VarianceCovariance(UtteranceObjective):
    """Channels of CLS vary by 1 across clips, and each on its own.

    Source: VICReg, Bardes et al. 2022, arXiv 2105.04906, eq. 1 to 4, without the invariance.
    """

    name, weight_option = "vicreg", "vicreg_loss"

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the loss times N_hidden, a scalar, and N_hidden."""
        cls = self.cls_of(step).unflatten(0, (-1, self.cfg.clone_batch))  # [B, K, D]
        cls, _ = gather_rows(cls.to(torch.promote_types(cls.dtype, torch.float32)))
        variance, covariance = vary_and_decorrelate(cls)
        num_hidden = len(step.split.hidden_rows)
        loss = (variance + COVARIANCE_WEIGHT * covariance) * (self.weight * num_hidden)
        return loss, num_hidden


def vary_and_decorrelate(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute both terms across the clips of each clone, and their means over clones.

    Args:
        x: [N, K, D].

    Returns:
        The mean over channels of max(0, 1 - deviation), and the sum of the squared covariances of
        two channels over D; both 0 for a single clip.
    """
    if len(x) < 2:
        return x.sum() * 0, x.sum() * 0
    centred = (x - x.mean(dim=0)).transpose(0, 1)  # [K, N, D]
    variances = centred.square().sum(dim=1) / (len(x) - 1)  # [K, D]
    variance = (1 - (variances + EPSILON).sqrt()).relu().mean()
    # The products of clips have the same sum of squares as those of channels, and are fewer.
    products = centred @ centred.transpose(1, 2) / (len(x) - 1)  # [K, N, N]
    covariances = products.square().sum() - variances.square().sum()
    return variance, covariances / variances.numel()
