"""The registered optimizer: ``eat_adamw``."""

import fairseq  # noqa: F401, first: it registers all names, see eat_plugin/__init__.py

from .adamw import EatAdamW

__all__ = ["EatAdamW"]
