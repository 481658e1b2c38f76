"""The networks by the names that checkpoints have, ours and published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..sections import fill
from .classifier import EatClassifier
from .classifier_config import EatClassifierConfig
from .config import EatConfig
from .eat import EatModel
from .published import MaeImageClassificationConfig, MaeImageClassificationModel


class Named(NamedTuple):
    """A network, and its options."""

    network: type[EatModel | EatClassifier]
    config: type[EatConfig]


MODELS = {
    "eat": Named(EatModel, EatConfig),
    "data2vec_multi": Named(EatModel, EatConfig),
    "eat_classifier": Named(EatClassifier, EatClassifierConfig),
    "mae_image_classification": Named(MaeImageClassificationModel, MaeImageClassificationConfig),
}


def build_model(cfg: Mapping[str, Any]) -> EatModel | EatClassifier:
    """Build the network of a checkpoint, without its weights.

    Args:
        cfg: the whole configuration in the checkpoint, with one of ``MODELS`` in ``model._name``.

    Raises:
        ValueError: an option is invalid; the message names it.
    """
    options = cfg["model"]
    network, config = MODELS[options["_name"]]
    return network(fill(config, options, "model", cfg, ignore_unknown=True))  # type: ignore[arg-type]
