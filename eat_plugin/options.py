"""Fields of configuration dataclasses, and checks of their values."""

from dataclasses import field
from typing import Any


def option(default: Any, help_text: str) -> Any:
    """Declare a field with its help text; each configuration gets its own copy of a list."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})


def require(is_valid: bool, name: str, value: Any, rule: str) -> None:
    """Raise ``ValueError`` with the option's name, its value and the rule, unless it is valid."""
    if not is_valid:
        raise ValueError(f"{name} is {value}; {rule}")
