"""The registered models: ``eat``, ``eat_classifier``, and published names."""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py

from . import architectures  # noqa: F401, registers them
from .classifier import EatClassifier
from .eat import EatModel
from .published import MaeImageClassificationModel

__all__ = ["EatClassifier", "EatModel", "MaeImageClassificationModel"]
