"""The published classifier ``mae_image_classification``.

Only this file knows the published flags of the model; ``tasks/published.py`` knows the tasks'.
"""

import logging
from dataclasses import dataclass

from ..options import follow, option, require
from .classifier import EatClassifier
from .classifier_config import EatClassifierConfig, Objective

logger = logging.getLogger(__name__)


@dataclass
class MaeImageClassificationConfig(EatClassifierConfig):
    """The published options of fine-tuning, and ours."""

    single_label: bool = option(False, "follows from the flags below")
    target_length: int = option(1024, "window of a clip, in frames of 10 ms")
    smooth_mixed: bool = option(False, "label smoothing also with mixup")
    linear_classifier: bool = option(False, "train the last layers only")
    data: str = option(follow("task.data"), "folder of the data (unused)")
    remove_alibi: bool = option(False, "leave out the position bias (EAT has none)")
    prenet_layerdrop: float = option(0.0, "layer drop of the prenet (unused)")
    prenet_dropout: float = option(0.0, "dropout rate of the encoder's input tokens (only 0)")
    audio_mae: bool = option(False, "the input is audio")
    esc50_eval: bool = option(False, "one label per clip, cross-entropy")
    spcv2_eval: bool = option(False, "one label per clip; binary cross-entropy with mixup")


class MaeImageClassificationModel(EatClassifier):
    """The classifier with its published name and options."""

    def __init__(self, cfg: MaeImageClassificationConfig) -> None:
        rate, rule = cfg.prenet_dropout, "not implemented in fine-tuning, the only choice is 0"
        require(rate == 0, "model.prenet_dropout", rate, rule)
        super().__init__(cfg)

    @staticmethod
    def choose_objective(cfg: MaeImageClassificationConfig) -> Objective:  # type: ignore[override]
        """Derive the objective from the flags, as published."""
        mixes = max(cfg.mixup, cfg.cutmix) > 0
        single_label = cfg.esc50_eval or cfg.spcv2_eval or not cfg.audio_mae
        loss = "ce" if single_label and not (cfg.spcv2_eval and mixes) else "bce"
        smoothing = cfg.label_smoothing if loss == "ce" and (cfg.smooth_mixed or not mixes) else 0.0
        if smoothing != cfg.label_smoothing:
            logger.warning("model.label_smoothing has no effect with this loss, as published")
        return Objective(loss, single_label, smoothing)

    @staticmethod
    def is_frozen(cfg: MaeImageClassificationConfig) -> bool:  # type: ignore[override]
        """Whether the encoder is not trained."""
        return cfg.linear_probe or cfg.linear_classifier
