"""The registered optimizer: ``eat_adamw``."""

from .adamw import EatAdamW

__all__ = ["EatAdamW"]
