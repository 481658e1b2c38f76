"""Fields of configuration dataclasses."""

from dataclasses import field
from typing import Any


def option(default: Any, help_text: str) -> Any:
    """Declare a field with its help text; each configuration gets its own copy of a list."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})
