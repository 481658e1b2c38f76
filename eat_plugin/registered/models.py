"""fairseq's base classes for the networks and their options, registered by name.

The networks are in ``eat_plugin.models``; nothing of them is defined here.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from ..flags import add_model_flags
from ..models import classifier, classifier_config, config, eat, published


@dataclass
class ModalitiesConfig(config.ModalitiesConfig, FairseqDataclass):
    """The sections per kind of input."""


def _modalities() -> Any:
    return field(default_factory=ModalitiesConfig, metadata={"help": "kinds of input"})


@dataclass
class EatConfig(config.EatConfig, FairseqDataclass):
    """Options of ``eat`` and ``data2vec_multi``."""

    modalities: ModalitiesConfig = _modalities()


@dataclass
class EatClassifierConfig(classifier_config.EatClassifierConfig, FairseqDataclass):
    """Options of ``eat_classifier``."""

    modalities: ModalitiesConfig = _modalities()


@dataclass
class MaeImageClassificationConfig(published.MaeImageClassificationConfig, FairseqDataclass):
    """Options of ``mae_image_classification``."""

    modalities: ModalitiesConfig = _modalities()


class Registered(BaseFairseqModel):
    """What fairseq needs of a registered network."""

    flags_of_its_own: ClassVar[Tuple[str, ...]] = ()  # though fairseq has flags of these names

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Declare the flags of `fairseq-train`."""
        add_model_flags(parser, cls, own=cls.flags_of_its_own)

    @classmethod
    def build_model(cls, cfg: Any, task: Any = None) -> "Registered":
        """Build the model from fairseq's configuration."""
        return cls(cfg)


@register_model("data2vec_multi", dataclass=EatConfig)
@register_model("eat", dataclass=EatConfig)
class EatModel(eat.EatModel, Registered):
    """The model of pre-training."""

    flags_of_its_own = ("ema_decay",)


@register_model("eat_classifier", dataclass=EatClassifierConfig)
class EatClassifier(classifier.EatClassifier, Registered):
    """The classifier."""


@register_model("mae_image_classification", dataclass=MaeImageClassificationConfig)
class MaeImageClassificationModel(published.MaeImageClassificationModel, Registered):
    """The classifier with its published name and options."""
