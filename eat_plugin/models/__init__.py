"""Models that fairseq finds by name: ``eat`` (published ``data2vec_multi``), ``eat_classifier``.

The published classifier has options of its own: ``mae_image_classification``.
"""

from .classifier import EatClassifier
from .eat import EatModel
from .published import MaeImageClassificationModel

__all__ = ["EatClassifier", "EatModel", "MaeImageClassificationModel"]
