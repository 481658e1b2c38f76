"""Distance of CLS to the nearest other clip, against collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.processes import gather_rows
from .step import Step, UtteranceObjective

EPSILON = 1e-8


class NearestNeighbour(UtteranceObjective):
    """KoLeo: clips spread evenly over the sphere (Sablayrolles et al. 2019, arXiv 1806.03198).

    Each clone is compared with the clone of the same number of the other clips, of all processes,
    as in DINOv2 and DINOv3.
    """

    name, weight_option = "koleo", "koleo_loss"

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the mean loss of a clone times N_hidden, a scalar, and N_hidden."""
        cls = self.cls_of(step).unflatten(0, (-1, self.cfg.clone_batch))  # [B, K, D]
        cls = F.normalize(cls.to(torch.promote_types(cls.dtype, torch.float32)), dim=-1)
        return self.average(step, koleo(cls, *gather_rows(cls)).flatten())


def koleo(x: Tensor, all_x: Tensor, first: int) -> Tensor:
    """Compute -log of the distance to the nearest other clip.

    Args:
        x: [B, K, D] unit vectors.
        all_x: [N, K, D], those of all processes.
        first: index of the first clip of ``x`` there.

    Returns:
        [B, K]; 0 if there is no other clip.
    """
    if len(all_x) < 2:
        return x.sum(dim=-1) * 0
    with torch.no_grad():
        cosines = torch.einsum("bkd,nkd->bkn", x, all_x)
        clips = torch.arange(len(all_x), device=x.device)
        itself = clips[first : first + len(x)].unsqueeze(1) == clips  # [B, N]
        nearest = cosines.masked_fill(itself.unsqueeze(1), -2).argmax(dim=-1)  # [B, K]
    clones = torch.arange(x.size(1), device=x.device)
    distance = (x - all_x[nearest, clones]).norm(dim=-1)
    return -(distance + EPSILON).log()
