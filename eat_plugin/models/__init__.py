"""The registered models: ``eat``, ``eat_classifier``, and published names."""

from .classifier import EatClassifier
from .eat import EatModel
from .published import MaeImageClassificationModel

__all__ = ["EatClassifier", "EatModel", "MaeImageClassificationModel"]
