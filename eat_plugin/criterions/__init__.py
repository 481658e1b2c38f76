"""Criterions that fairseq finds by name: ``eat_pretraining``."""

from .pretraining import PretrainingCriterion

__all__ = ["PretrainingCriterion"]
