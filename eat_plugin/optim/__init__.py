"""Optimizers that fairseq finds by name: ``eat_adamw``."""

from .adamw import EatAdamW

__all__ = ["EatAdamW"]
