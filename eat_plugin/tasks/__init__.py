"""Tasks that fairseq finds by name: ``eat_pretraining`` and ``eat_classification``.

By their published names: ``mae_image_pretraining`` and ``mae_image_classification``.
"""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py

from .classification import EatClassificationTask
from .pretraining import EatPretrainingTask
from .published import MaeImageClassificationTask, MaeImagePretrainingTask

__all__ = [
    "EatClassificationTask",
    "EatPretrainingTask",
    "MaeImageClassificationTask",
    "MaeImagePretrainingTask",
]
