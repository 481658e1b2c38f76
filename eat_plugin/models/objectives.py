"""The objectives of pre-training.

To add one: a subclass of ``PretrainingObjective``, here or in a file of its own; its entry in
``OBJECTIVES``; its weight in ``EatConfig``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..losses import dino_loss, normalize_patches
from ..modules.patches import patchify
from ..modules.processes import sum_over_processes
from ..options import patch_sides
from .bat_options import ELEMENTS
from .dino import PrototypeDino
from .source_retention import SourceRetention
from .step import PretrainingObjective, Step, UtteranceObjective

if TYPE_CHECKING:
    from .config import EatConfig
    from .eat import EatModel


class PatchRegression(PretrainingObjective):
    """The decoder predicts the teacher's targets at hidden patches (EAT eq. 4)."""

    name, weight_option, needs_decoder = "regression", "d2v_loss", True

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the loss, [N_hidden, D], and N_hidden."""
        assert step.prediction is not None
        loss = self.regress(step.prediction, step.hidden_targets, self.weight)
        return loss, len(loss)


class Reconstruction(PretrainingObjective):
    """The decoder predicts the normalised values of hidden patches (MAE, He et al. 2022)."""

    name, weight_option, needs_decoder = "recon", "recon_loss", True

    def add_parameters(self, model: EatModel) -> None:
        """Register ``recon_proj``."""
        image = self.cfg.modalities.image
        num_values = math.prod(patch_sides(image.patch_size)) * image.in_chans
        model.recon_proj = nn.Linear(self.cfg.embed_dim, num_values)

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the loss, [N_hidden, p*q*channels], and N_hidden."""
        values = normalize_patches(patchify(step.source, self.cfg.modalities.image.patch_size))
        values = values.flatten(0, 1).index_select(0, step.split.hidden_sources)
        return self.regress(self.predict(step), values, self.weight), len(values)

    def predict(self, step: Step) -> Tensor:
        """Predict the normalised values of hidden patches, [N_hidden, p*q*channels]."""
        predicted: Tensor = step.model.get_submodule("recon_proj")(step.prediction)
        return predicted


class UtteranceRegression(UtteranceObjective):
    """CLS predicts the teacher's target of a clip, by default the mean of its targets (EAT eq. 3).

    With ``loss_average=elements`` it is the mean over the clones of a batch, not their sum.

    Among clips of different length, each row is weighted by its share of the hidden patches. The
    ratio of utterance loss to patch loss of a clip then does not depend on the other clips.
    """

    name, weight_option, needs_utterance_target = "cls", "cls_loss", True

    @classmethod
    def is_chosen(cls, cfg: EatConfig) -> bool:
        """Whether the utterance loss is on, by regression."""
        return super().is_chosen(cfg) and not cfg.utterance_level

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the loss times N_hidden, and the number of its items."""
        cls, target = self.cls_of(step), step.utterance_target
        assert target is not None
        lengths, num_hidden = step.split.lengths, len(step.split.hidden_rows)
        share = None if lengths is None else lengths.hidden_share
        loss = self.compare(step.model, cls, target, share) * (self.weight * num_hidden)
        rows = loss.shape[:1].numel()
        if self.cfg.loss_average == ELEMENTS:
            return loss / rows, num_hidden
        return loss, num_hidden * rows

    def compare(self, model: EatModel, cls: Tensor, target: Tensor, share: Tensor | None) -> Tensor:
        """Compare CLS [B*K, D] with targets [B, D]: [B*K, D]; ``share`` weights rows, [B*K]."""
        loss = self.regress(cls, target.repeat_interleave(self.cfg.clone_batch, dim=0))
        return loss if share is None else loss * share.to(loss.dtype).unsqueeze(1)


class UtteranceDino(UtteranceRegression):
    """The utterance loss as DINO's cross-entropy, with a running centre of the targets."""

    @classmethod
    def is_chosen(cls, cfg: EatConfig) -> bool:
        """Whether the utterance loss is on, by DINO."""
        return cfg.cls_loss > 0 and cfg.utterance_level

    def add_parameters(self, model: EatModel) -> None:
        """Register ``cls_proj`` and ``center``."""
        width = self.cfg.embed_dim
        model.cls_proj = nn.Linear(width, width)
        start = torch.zeros if self.cfg.init_center_token_zero else torch.randn
        model.register_buffer("center", start(1, width))

    def compare(self, model: EatModel, cls: Tensor, target: Tensor, share: Tensor | None) -> Tensor:
        """Return the mean cross-entropy, a scalar; in training move the centre."""
        centre = model.get_buffer("center")
        loss = dino_loss(
            model.get_submodule("cls_proj")(cls),
            target.repeat_interleave(self.cfg.clone_batch, dim=0),
            centre,
            self.cfg.softmax_temperature_student,
            self.cfg.softmax_temperature_teacher,
            share,
        )
        if model.training:
            mean = torch.cat([target.sum(dim=0), target.new_full((1,), target.size(0))])
            mean = sum_over_processes(mean)
            mean = (mean[:-1] / mean[-1]).to(centre.dtype)
            centre.lerp_(mean.unsqueeze(0), 1 - self.cfg.center_exp)
        return loss


# Losses are computed and summed in this order.
OBJECTIVES: list[type[PretrainingObjective]] = [
    PrototypeDino, UtteranceRegression, UtteranceDino, PatchRegression, Reconstruction,
    SourceRetention,
]  # fmt: skip


def choose_objectives(cfg: EatConfig) -> list[PretrainingObjective]:
    """Make the objectives that a configuration asks for."""
    return [kind(cfg) for kind in OBJECTIVES if kind.is_chosen(cfg)]


@torch.no_grad()
def channel_deviation(values: Tensor) -> Tensor:
    """Mean over channels of the standard deviation over items, of all ranks together.

    Args:
        values: [N, D].

    Returns:
        Scalar; near 0 after a collapse, when all items are alike. In float32 its error is at most
        about 1/3000 of a channel's mean.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    # Runs in every update. On a GPU it copies nothing, not even to float32; on a CPU such a norm
    # takes 8 times as long as squares and their sum.
    total = values.sum(dim=0, dtype=dtype)
    if values.is_cpu:
        squares = values.to(dtype).square().sum(dim=0)
    else:
        squares = torch.linalg.vector_norm(values, dim=0, dtype=dtype).square()
    count = total.new_full((1,), values.size(0))  # on the device: nothing waits for it
    sums = sum_over_processes(torch.cat([total, squares, count]))
    total, squares = sums[:-1].chunk(2)
    n = sums[-1]
    variance = (squares - total.square() / n).clamp_min(0) / (n - 1)
    return (variance + 1e-6).sqrt().mean()
