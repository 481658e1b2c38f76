"""Configuration of the classifier, with the published field names and some of our own.

Contents: ``PredictionMode`` and ``EatClassifierConfig`` (options), ``Objective`` (what is
minimised), ``REGULARISATION`` and ``validate_classifier``.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, List, NamedTuple, Optional

from omegaconf import II, MISSING

from ..options import option
from .config import EatConfig

LOSSES = ("bce", "ce")


class PredictionMode(Enum):
    """What the tokens are pooled to, by its published names."""

    MEAN_POOLING = 1
    CLS_TOKEN = 2
    LIN_SOFTMAX = 3


@dataclass
class EatClassifierConfig(EatConfig):
    """Options of fine-tuning; those of ``EatConfig`` serve where there is no checkpoint."""

    model_path: Optional[str] = option(
        MISSING, "checkpoint whose encoder is fine-tuned; null starts from random weights"
    )
    no_pretrained_weights: bool = option(False, "take the checkpoint's options, not its weights")
    num_classes: Optional[int] = option(None, "classes; null takes the number that the data has")
    loss: str = option("bce", "bce (each class by itself) or ce (one class a clip)")
    single_label: bool = option(II("task.single_label"), "each clip has exactly one label")
    prediction_mode: PredictionMode = option(
        PredictionMode.CLS_TOKEN, "pooling: CLS_TOKEN, MEAN_POOLING or LIN_SOFTMAX"
    )
    use_fc_norm: bool = option(True, "LayerNorm before the last layer")
    linear_probe: bool = option(False, "train the last layers only; the encoder stays as it is")
    target_length: int = option(II("task.target_length"), "window of a clip, in frames of 10 ms")
    image_size: Optional[List[int]] = option(
        None, "height and width of images, in pixels; null: those of the encoder's options"
    )
    drop_path_rate: float = option(0.1, "drop path rate of the last block; rises from 0")
    layer_decay: float = option(
        0.65, "learning rate of a block over that of the next one; 0 or 1: none"
    )
    layer_decay_embeddings: bool = option(
        False, "the decay goes on to patch embedding, CLS and norm; published runs left them out"
    )
    no_decay_blocks: bool = option(
        True, "blocks keep their weight decay scale beside their learning rate scale"
    )
    mixup: float = option(0.0, "alpha of mixup's Beta distribution; 0 for none")
    cutmix: float = option(0.0, "alpha of cutmix's Beta distribution; 0 for none")
    mixup_prob: float = option(1.0, "probability that a batch is mixed")
    mixup_switch_prob: float = option(0.0, "probability of cutmix where mixup is on as well")
    mixup_mode: str = option("batch", "mix alike in a: batch, pair, elem")
    label_smoothing: float = option(0.0, "share of a target that is spread over all classes")
    smooth_mixed: bool = option(
        True, "label smoothing where mixup is on as well; published runs went without"
    )
    specaug: bool = option(False, "mask one stretch of time and one of mel bins of each clip")
    mask_ratio: float = option(0.0, "largest share of an axis that specaug masks")
    freqm: float = option(25.0, "largest mask in mel bins, where mask_ratio is 0")
    timem: float = option(200.0, "largest mask in frames, where mask_ratio is 0")
    norm_eps: Optional[float] = option(  # type: ignore[assignment]
        None, "epsilon of the encoder's LayerNorms; null for the checkpoint's"
    )
    encoder_dropout: float = option(0.0, "dropout rate after the attention projection")
    post_mlp_drop: float = option(0.0, "dropout rate after the MLP")
    attention_dropout: float = option(0.0, "dropout rate of the attention weights")
    pretrained_model_args: Any = option(
        None, "options of the encoder; filled in and saved, so that checkpoints stand alone"
    )


# Options of fine-tuning that replace those of pre-training in the encoder.
REGULARISATION = (
    "encoder_dropout", "post_mlp_drop", "attention_dropout", "activation_dropout",
    "dropout_input", "layerdrop",
)  # fmt: skip
COMPUTATION = ("recompute", "compile")


class Objective(NamedTuple):
    """What a classifier minimises.

    Attributes:
        loss: ``bce`` or ``ce``.
        single_label: each clip has one label; the sum of losses is divided by the number of clips,
            and by the number of positive labels otherwise.
        smoothing: label smoothing in training.
    """

    loss: str
    single_label: bool
    smoothing: float


def validate_classifier(cfg: EatClassifierConfig, objective: Objective) -> None:
    """Refuse a configuration that cannot work.

    Raises:
        ValueError: that names the field, its value and the choices.
    """
    if objective.loss not in LOSSES:
        raise ValueError(f"model.loss is {objective.loss!r}; choose one of {', '.join(LOSSES)}")
    if objective.loss == "ce" and not objective.single_label:
        raise ValueError("model.loss is 'ce'; it needs one label a clip (task.single_label=true)")
    if objective.smoothing > 0 and not objective.single_label:
        raise ValueError(
            f"model.label_smoothing is {objective.smoothing}; with several labels a clip "
            "(task.single_label=false) it must be 0"
        )
    if cfg.num_classes is None or cfg.num_classes < 2:
        raise ValueError(f"model.num_classes is {cfg.num_classes}; two classes at least are needed")
    for name in ("label_smoothing", "mask_ratio", "drop_path_rate"):
        if not 0 <= getattr(cfg, name) < 1:
            raise ValueError(f"model.{name} is {getattr(cfg, name)}; it must be from 0 to below 1")
    if not 0 <= cfg.layer_decay <= 1:
        raise ValueError(
            f"model.layer_decay is {cfg.layer_decay}; it must lie between 0 and 1 (either: none)"
        )
