"""Tasks that fairseq finds by name: ``eat_pretraining`` and ``eat_classification``.

By their published names: ``mae_image_pretraining`` and ``mae_image_classification``.
"""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py
from fairseq.tasks import TASK_DATACLASS_REGISTRY

from ..flags import store_sections
from .classification import EatClassificationTask
from .pretraining import EatPretrainingTask
from .published import MaeImageClassificationTask, MaeImagePretrainingTask

for _name, _config in TASK_DATACLASS_REGISTRY.items():
    if _config.__module__.startswith(f"{__name__}."):
        store_sections(_name, _config)

__all__ = [
    "EatClassificationTask",
    "EatPretrainingTask",
    "MaeImageClassificationTask",
    "MaeImagePretrainingTask",
]
