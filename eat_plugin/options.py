"""How the dataclasses of a configuration declare their fields."""

from dataclasses import field
from typing import Any


def option(default: Any, help_text: str) -> Any:
    """Declare a field with its help text; a list is copied for each configuration."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})
