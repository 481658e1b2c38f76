"""Tasks that fairseq finds by name: ``eat_pretraining``, published ``mae_image_pretraining``."""

from .pretraining import EatPretrainingTask
from .published import MaeImagePretrainingTask

__all__ = ["EatPretrainingTask", "MaeImagePretrainingTask"]
