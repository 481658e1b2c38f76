"""The registered criterions: ``eat_pretraining``, ``eat_classification``."""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py

from .classification import ClassificationCriterion
from .pretraining import PretrainingCriterion

__all__ = ["ClassificationCriterion", "PretrainingCriterion"]
