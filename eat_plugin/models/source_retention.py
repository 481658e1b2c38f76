"""SSLAM's second stage of pre-training: mixtures of clips that retain their sources.

Source: Alex et al. 2025, arXiv 2506.12222, and the published code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..options import require
from .mixtures import Mixing, draw_mixing, mix, seeds_of_mixtures
from .step import Inputs, PretrainingObjective, Step

if TYPE_CHECKING:
    from .eat import EatModel


class SourceRetention(PretrainingObjective):
    """A mixture's hidden patches predict the mean of the targets of both its clips.

    The batch becomes its B clips, then B mixtures under the same masks; all other objectives are of
    the 2B. Mixture b is clip b, at some time steps the element-wise maximum with clip b - 1. There
    the target is the mean of two: that of clip b, whole, and that of clip b - 1 when the teacher
    sees these time steps alone. Elsewhere it is that of clip b.
    """

    name, weight_option, needs_decoder = "retention", "retention_loss", True

    def validate(self) -> None:
        """Require a share of time steps."""
        share = self.cfg.mixed_share
        require(0 <= share <= 1, "model.mixed_share", share, "it must lie between 0 and 1")

    def change_inputs(self, model: EatModel, inputs: Inputs) -> Inputs:
        """Append a mixture for each clip, [2B, C, T, F]; note where they are mixed."""
        source, padding = inputs.source, inputs.padding
        mixing = draw_mixing(
            model.patch_encoder.grid_of(source), len(source), padding, self.cfg.mixed_share,
            inputs.noise_seed, source.device,
        )  # fmt: skip
        mixed = torch.cat([source, mix(source, mixing.columns)])
        is_same = inputs.target is source
        return Inputs(
            mixed,
            mixed if is_same else torch.cat([inputs.target, mix(inputs.target, mixing.columns)]),
            inputs.masks.repeat(2, 1),
            None if padding is None else padding.repeat(2, 1),
            inputs.num_visible,
            seeds_of_mixtures(inputs.noise_seed),
            {**inputs.notes, self.name: mixing},
        )

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the loss, [N_hidden / 2, D], and N_hidden.

        It counts twice, since only half of the hidden patches have it.
        """
        assert step.prediction is not None
        clips, half = len(step.target) // 2, len(step.split.hidden_rows) // 2
        own, mixing = step.targets[:clips], step.notes[self.name]
        target = retention_target(step.model, step.target[:clips], own, mixing, step.grid[1])
        sources = step.split.hidden_sources[half:] - clips * own.size(1)
        hidden = target.flatten(0, 1).index_select(0, sources)
        return self.regress(step.prediction[half:], hidden, 2 * self.weight), 2 * half


@torch.no_grad()
def retention_target(
    model: EatModel, clips: Tensor, own: Tensor, mixing: Mixing, bands: int
) -> Tensor:
    """Average targets of clips with those of the clips that are mixed into them, where they are.

    Args:
        model: has the teacher.
        clips: [B, C, T, F], not mixed.
        own: [B, L, D], their targets.
        mixing: where they are mixed.
        bands: patches of a time step.

    Returns:
        [B, L, D].
    """
    assert model.teacher is not None
    other = clips.roll(1, dims=0)
    if mixing.kept is None:
        is_mixed = mixing.columns.repeat_interleave(bands, dim=1)  # [B, L]
        targets, _ = model.teacher.make_targets(model, other, None, ~is_mixed)
        return torch.where(is_mixed.unsqueeze(-1), (own + targets) / 2, own)
    if len(mixing.kept) == 0:
        return own
    targets, _ = model.teacher.make_targets(model, other, None, kept=mixing.kept)
    return own.index_copy(1, mixing.kept, (own.index_select(1, mixing.kept) + targets) / 2)
