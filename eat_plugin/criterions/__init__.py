"""The registered criterions: ``eat_pretraining``, ``eat_classification``."""

from .classification import ClassificationCriterion
from .pretraining import PretrainingCriterion

__all__ = ["ClassificationCriterion", "PretrainingCriterion"]
