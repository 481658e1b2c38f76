"""Contrast between the clones of a clip and those of all other clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.processes import gather_rows
from ..options import require
from .step import Step, UtteranceObjective

if TYPE_CHECKING:
    from .eat import EatModel

HEAD = "contrast_head"
WIDTH = 128
TEMPERATURE = 0.1


class CloneContrast(UtteranceObjective):
    """NT-Xent on CLS: clones of a clip attract each other, clones of other clips repel.

    Source: SimCLR, Chen et al. 2020, arXiv 2002.05709. Other clips are those of all processes.
    """

    name, weight_option = "contrast", "contrast_loss"

    def validate(self) -> None:
        """Require a CLS token and two clones."""
        super().validate()
        rule = "model.contrast_loss needs 2 or more"
        require(self.cfg.clone_batch >= 2, "model.clone_batch", self.cfg.clone_batch, rule)

    def add_parameters(self, model: EatModel) -> None:
        """Register ``contrast_head``."""
        width = self.cfg.embed_dim
        model.contrast_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, WIDTH)
        )

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the mean loss of a clone times N_hidden, a scalar, and N_hidden."""
        x = step.model.get_submodule(HEAD)(self.cls_of(step))
        x = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
        return self.average(step, nt_xent(x, *gather_rows(x), self.cfg.clone_batch))


def nt_xent(rows: Tensor, all_rows: Tensor, first: int, clones: int) -> Tensor:
    """Compare each clone with the others of its clip, each of them against all other clips.

    The loss of a pair is -log(e^s / (e^s + sum of e^s' over the clones of other clips)) with
    similarities s of unit vectors over the temperature; that of a clone, the mean over its pairs.

    Args:
        rows: [B*K, W] unit vectors, the clones of a clip in consecutive rows.
        all_rows: [N, W], those of all processes.
        first: index of the first of ``rows`` there.
        clones: K.

    Returns:
        [B*K]; 0 where there are no other clips.
    """
    similar = rows @ all_rows.T / TEMPERATURE  # [B*K, N]
    clips = torch.arange(len(all_rows), device=rows.device) // clones
    own = clips[first : first + len(rows)]
    lowest = torch.finfo(similar.dtype).min / 2  # not -inf, whose gradient is NaN
    others = similar.masked_fill(own.unsqueeze(1) == clips, lowest).logsumexp(dim=1)
    mine = rows.unflatten(0, (-1, clones))
    pairs = mine @ mine.transpose(1, 2) / TEMPERATURE  # [B, K, K]
    losses = F.softplus(others.view(-1, clones, 1) - pairs)
    itself = torch.eye(clones, dtype=torch.bool, device=rows.device)
    return losses.masked_fill(itself, 0).sum(dim=2).flatten() / (clones - 1)
