"""One pre-training step, and the interface of the objectives that turn it into losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..losses import regression_loss
from ..options import require
from .bat_options import ELEMENTS

if TYPE_CHECKING:
    from ..modules.decoders import Seeds
    from ..modules.patch_split import PatchSplit
    from .config import EatConfig
    from .eat import EatModel


@dataclass(frozen=True)
class Inputs:
    """What a pre-training step is made of; objectives may replace it.

    B clips, K clones, L patches.

    Attributes:
        source: [B, C, T, F], input of the student, prepared.
        target: [B, C, T, F], input of the teacher; often the same tensor.
        masks: [B*K, L], row b*K + k, 1 = hidden.
        padding: bool [B, L], True = padding; None if all clips have the same length.
        num_visible: number of zeros per row of ``masks``; None if it has to be counted.
        noise_seed: see ``modules.decoders.draw_noise``.
        notes: what an objective tells its own ``compute``, by its name.
    """

    source: Tensor
    target: Tensor
    masks: Tensor
    padding: Tensor | None = None
    num_visible: int | None = None
    noise_seed: Seeds = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Step:
    """The tensors of one pre-training step.

    B clips, K clones, L patches, V of them visible, E extra tokens, width D.

    Attributes:
        model: has the parameters of the objectives, and makes further passes.
        source: [B, C, T, F], input of the student.
        target: [B, C, T, F], input of the teacher.
        grid: (time, mel) size of the patch grid.
        split: visible and hidden patches of the B * K masks.
        padding: bool [B, L], True = padding; None if all clips have the same length.
        noise_seed: seed of the noise at hidden patches, see ``modules.decoders.draw_noise``.
        student: [B*K, E + V, D], output of the student; token E - 1 is CLS.
        targets: [B, L, D], float32, made by the teacher.
        hidden_targets: [N_hidden, D], the targets at hidden patches.
        prediction: [N_hidden, D], output of the decoder; None if no objective needs it.
        utterance_target: [B, D], float32, by ``model.cls_target``; None if no objective needs it.
        notes: see ``Inputs``.
        statistics: values for the log, which objectives may add.
    """

    model: EatModel
    source: Tensor
    target: Tensor
    grid: tuple[int, int]
    split: PatchSplit
    padding: Tensor | None
    noise_seed: Seeds
    student: Tensor
    targets: Tensor
    hidden_targets: Tensor
    prediction: Tensor | None
    utterance_target: Tensor | None
    notes: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


class PretrainingObjective:
    """One loss of pre-training.

    An objective holds options only. Its parameters belong to the model, under published names.

    Attributes:
        name: key of its loss in the model's output.
        weight_option: option of ``EatConfig`` that weights it; 0 leaves it out.
        needs_decoder: reads ``Step.prediction``.
        needs_utterance_target: reads ``Step.utterance_target``.
        averaged_parts: names of modules on the model that the teacher has a copy of, in ``parts``.
    """

    name: ClassVar[str]
    weight_option: ClassVar[str]
    needs_decoder: ClassVar[bool] = False
    needs_utterance_target: ClassVar[bool] = False
    averaged_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cfg: EatConfig) -> None:
        self.cfg = cfg
        self.weight: float = getattr(cfg, self.weight_option)

    @classmethod
    def is_chosen(cls, cfg: EatConfig) -> bool:
        """Whether a configuration asks for this objective."""
        return getattr(cfg, cls.weight_option) > 0

    def validate(self) -> None:
        """Raise ``ValueError`` if the rest of the configuration does not fit."""

    def add_parameters(self, model: EatModel) -> None:
        """Register parameters and buffers on the model, which then initialises linear layers.

        Buffers stay in float32 when the model is cast to half precision.
        """

    def change_inputs(self, model: EatModel, inputs: Inputs) -> Inputs:
        """Replace what student and teacher see in a step; by default nothing changes.

        Random numbers come from ``inputs.noise_seed``, or from PyTorch's generator on the host if
        it is None: a resumed run then draws the same.
        """
        return inputs

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Compute the loss.

        Returns:
            The loss times its weight, of any shape, to be summed; and the number of items (hidden
            patches, or hidden patches times utterances) by which the log divides that sum.
        """
        raise NotImplementedError

    def regress(self, prediction: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
        """Compare [N, D] with [N, D], by ``loss_beta``, ``loss_scale`` and ``loss_average``."""
        scale = self.cfg.loss_scale
        if scale is None:
            power = -1.0 if self.cfg.loss_average == ELEMENTS else -0.5
            scale = prediction.size(-1) ** power
        return regression_loss(prediction, target, self.cfg.loss_beta, scale * weight)


class UtteranceObjective(PretrainingObjective):
    """A loss of whole clips, from the student's CLS token.

    fairseq divides gradients by the number of hidden patches, so such a loss is multiplied by it.
    """

    def validate(self) -> None:
        """Require a CLS token."""
        tokens = self.cfg.modalities.image.num_extra_tokens
        option = f"model.{self.weight_option}={self.weight}"
        rule = f"the utterance loss ({option}) needs a CLS token (1)"
        require(tokens >= 1, "model.modalities.image.num_extra_tokens", tokens, rule)

    def cls_of(self, step: Step) -> Tensor:
        """Return the student's CLS token of each clone, [B*K, D]."""
        return step.student[:, self.cfg.modalities.image.num_extra_tokens - 1]

    def average(self, step: Step, losses: Tensor) -> tuple[Tensor, int]:
        """Return the mean of the losses of clones [B*K] times weight and N_hidden, and N_hidden.

        Among clips of different length, each is weighted by its share of the hidden patches.
        """
        lengths, num_hidden = step.split.lengths, len(step.split.hidden_rows)
        if lengths is not None:
            losses = losses * lengths.hidden_share.to(losses.dtype)
        return losses.mean() * (self.weight * num_hidden), num_hidden
