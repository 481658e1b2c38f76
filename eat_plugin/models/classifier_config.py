"""Options of the classifier, with published names and some of our own."""

from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional

from ..options import MISSING, follow, option, require
from .config import EatConfig
from .pooling import PredictionMode

ASYMMETRIC = "asymmetric"
LOSSES = ("bce", "ce", ASYMMETRIC)


@dataclass
class EatClassifierConfig(EatConfig):
    """Options of fine-tuning; those of ``EatConfig`` are used without a checkpoint only."""

    model_path: Optional[str] = option(
        MISSING, "checkpoint whose encoder is fine-tuned; null starts from random weights"
    )
    no_pretrained_weights: bool = option(False, "take the checkpoint's options, not its weights")
    num_classes: Optional[int] = option(None, "number of classes; null: that of the data")
    loss: str = option(
        "bce",
        "bce (binary, per class), ce (one class per clip) or asymmetric (binary, less weight on "
        "easy classes, mainly absent ones)",
    )
    gamma_negative: float = option(4.0, "asymmetric: exponent for absent classes")
    gamma_positive: float = option(1.0, "asymmetric: exponent for classes that are there")
    asymmetric_shift: float = option(
        0.05, "asymmetric: subtracted from the probabilities of absent classes"
    )
    single_label: bool = option(follow("task.single_label"), "each clip has exactly one label")
    prediction_mode: Optional[PredictionMode] = option(
        PredictionMode.CLS_TOKEN,
        "pooling: CLS_TOKEN, MEAN_POOLING, LIN_SOFTMAX, MEAN_MAX_POOLING (mean and maximum) or "
        "SEGMENT_POOLING (means of segments of time, for the order of events, as in words); or "
        "FRAMES (none: labels of each time step, with task.events)",
    )
    segments: int = option(8, "SEGMENT_POOLING: segments of time, whose means are concatenated")
    use_fc_norm: bool = option(True, "LayerNorm before the last layer")
    head_dropout: float = option(0.0, "dropout rate before the last layer")
    linear_probe: bool = option(False, "train the last layers only, not the encoder")
    target_length: int = option(
        follow("task.target_length"), "window of a clip, in frames of 10 ms"
    )
    image_size: Optional[List[int]] = option(
        None, "height and width of images, in pixels; null: those of the encoder's options"
    )
    drop_path_rate: float = option(0.1, "drop path rate of the last block; rises from 0")
    layer_decay: float = option(
        0.65, "learning rate of a block over that of the next one; 0 or 1: none"
    )
    layer_decay_embeddings: bool = option(
        False, "layer_decay also for patch embedding, CLS and norm; not in published runs"
    )
    no_decay_blocks: bool = option(
        True, "parameters of blocks keep their weight decay scale with layer_decay"
    )
    mixup: float = option(0.0, "alpha of mixup's Beta distribution; 0 for none")
    cutmix: float = option(0.0, "alpha of cutmix's Beta distribution; 0 for none")
    mixup_prob: float = option(1.0, "probability that a batch is mixed")
    mixup_switch_prob: float = option(0.0, "probability of cutmix if mixup is on too")
    mixup_mode: str = option("batch", "one draw per batch, pair or elem")
    label_smoothing: float = option(0.0, "share of a target spread over all classes")
    smooth_mixed: bool = option(True, "label smoothing also with mixup; not in published runs")
    specaug: bool = option(False, "mask one span of time and one of mel bins per clip")
    mask_ratio: float = option(0.0, "largest share of an axis that specaug masks")
    freqm: float = option(25.0, "largest mask in mel bins, if mask_ratio is 0")
    timem: float = option(200.0, "largest mask in frames, if mask_ratio is 0")
    norm_eps: Optional[float] = option(  # type: ignore[assignment]
        None, "epsilon of the encoder's LayerNorms; null: the checkpoint's"
    )
    encoder_dropout: float = option(0.0, "dropout rate after the attention projection")
    post_mlp_drop: float = option(0.0, "dropout rate after the MLP")
    attention_dropout: float = option(0.0, "dropout rate of the attention weights")
    pretrained_model_args: Any = option(
        None, "options of the encoder, set by the model and saved in checkpoints"
    )


# Options of fine-tuning that replace those of pre-training in the encoder.
REPLACED_OPTIONS = (
    "encoder_dropout", "post_mlp_drop", "attention_dropout", "activation_dropout",
    "dropout_input", "layerdrop", "recompute", "compile",
)  # fmt: skip


class Objective(NamedTuple):
    """The objective of a classifier.

    Attributes:
        loss: one of ``LOSSES``.
        single_label: one label per clip: the loss is divided by the number of clips, otherwise by
            the number of positive labels (``asymmetric``: a mean over clips and classes).
        smoothing: label smoothing in training.
    """

    loss: str
    single_label: bool
    smoothing: float


def validate_classifier(cfg: EatClassifierConfig, objective: Objective) -> None:
    """Refuse an invalid configuration.

    Raises:
        ValueError: names the option, its value and the choices.
    """
    loss, smoothing, single_label = objective.loss, objective.smoothing, objective.single_label
    require(loss in LOSSES, "model.loss", repr(loss), f"choose one of {', '.join(LOSSES)}")
    require(
        loss != "ce" or single_label, "model.loss", repr(loss),
        "it needs one label per clip (task.single_label=true)",
    )  # fmt: skip
    require(
        smoothing == 0 or single_label, "model.label_smoothing", smoothing,
        "with several labels per clip (task.single_label=false) it must be 0",
    )  # fmt: skip
    classes = cfg.num_classes
    rule = "it must be 2 or more; the task eat_classification sets it"
    require((classes or 0) >= 2, "model.num_classes", classes, rule)
    for name in ("gamma_negative", "gamma_positive"):
        value = getattr(cfg, name)  # gradients are infinite between 0 and 1
        require(value == 0 or value >= 1, f"model.{name}", value, "it must be 0, or 1 or more")
    for name in ("mixup", "cutmix"):
        value = getattr(cfg, name)
        require(value >= 0, f"model.{name}", value, "it must be 0 or more")
    mode = cfg.prediction_mode
    names = ", ".join(PredictionMode.__members__)
    require(mode is not None, "model.prediction_mode", "null", f"choose one of {names}")
    if mode == PredictionMode.FRAMES:
        rule = "model.prediction_mode=FRAMES needs "
        require(loss == "bce", "model.loss", repr(loss), f"{rule}bce")
        require(not single_label, "task.single_label", "true", f"{rule}false")
        require(cfg.cutmix == 0, "model.cutmix", cfg.cutmix, f"{rule}0")
    require(cfg.segments >= 1, "model.segments", cfg.segments, "it must be 1 or more")
    fractions = ("label_smoothing", "mask_ratio", "drop_path_rate", "head_dropout")
    for name in (*fractions, "asymmetric_shift"):
        value = getattr(cfg, name)
        require(0 <= value < 1, f"model.{name}", value, "it must be from 0 to below 1")
    decay = cfg.layer_decay
    require(0 <= decay <= 1, "model.layer_decay", decay, "it must lie between 0 and 1")
