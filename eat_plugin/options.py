"""Fields of configuration dataclasses, and checks of their values."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

MISSING = "???"  # value of an option that must be given, as in omegaconf
NUMBERS = Union[float, list[float]]  # a number, or several; type of a flag


@dataclass
class Section:
    """Options of a part of the model, with the field that all sections of fairseq have."""

    _name: Optional[str] = None


class OtherPrecisionError(ValueError):
    """A run would resume a checkpoint in another precision than it was saved in.

    Attributes:
        overrides: the options of the checkpoint's precision.
    """

    def __init__(self, message: str, overrides: list[str]) -> None:
        super().__init__(message)
        self.overrides = overrides


def follow(name: str) -> Any:
    """Return the value of an option that follows another one, ``section.option``."""
    return f"${{{name}}}"


def option(default: Any, help_text: str, flag: Any = None) -> Any:
    """Declare a field with its help text; each configuration gets its own copy of a list.

    Args:
        default: its value.
        help_text: what it means, with its unit.
        flag: type of its flag, if the field has a type that omegaconf does not know (``Any``).
    """
    metadata = {"help": help_text} if flag is None else {"help": help_text, "flag": flag}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def require(is_valid: bool, name: str, value: Any, rule: str) -> None:
    """Raise ``ValueError`` with the option's name, its value and the rule, unless it is valid."""
    if not is_valid:
        raise ValueError(f"{name} is {value}; {rule}")


def clips_of_batch(clips: Optional[int], most_frames: Optional[int], frames: float) -> int:
    """Return the clips of a batch, about.

    Args:
        clips: ``dataset.batch_size``.
        most_frames: ``dataset.max_tokens``, of all clips of a batch; None for no limit.
        frames: of a clip, on average.
    """
    if most_frames is None:
        return max(1, clips or 1)
    limit = max(1, int(most_frames // max(1, frames)))
    return min(clips or limit, limit)


def patch_sides(
    patch_size: Any, name: str = "model.modalities.image.patch_size"
) -> tuple[int, int]:
    """Return the sides of a patch: frames and mel bins, or rows and columns of an image.

    One number is the side of a square.

    Raises:
        ValueError: the option ``name`` is not one or two positive integers.
    """
    is_list = isinstance(patch_size, Sequence) and not isinstance(patch_size, str)
    sides = tuple(patch_size) if is_list else (patch_size,)
    is_valid = len(sides) in (1, 2) and all(type(side) is int and side >= 1 for side in sides)
    rule = "give one positive integer, or two: [frames, mel bins] (of an image [rows, columns])"
    require(is_valid, name, patch_size, rule)
    return sides[0], sides[-1]


def read_patch_size(text: str) -> Any:
    """Read a patch size from a flag: ``N``, or ``N,N`` for two sides.

    Raises:
        ValueError: an item is no integer.
    """
    items = [int(item) for item in text.strip("[]()").split(",")]
    return items[0] if len(items) == 1 else items


def explain_path(path: str, advice: str) -> str:
    """Say why a path of the configuration does not exist; ``advice`` is for an absolute one."""
    if os.path.isabs(path):
        return f"does not exist; {advice}"
    # hydra changes the folder; the shell's variable keeps the one where the command was given.
    shell = os.environ.get("PWD", "")
    if os.path.realpath(shell) == os.path.realpath(os.getcwd()):
        return f"does not exist in {os.getcwd()}; {advice}"
    given = os.path.join(shell, path)
    example = f", {given}" if os.path.isabs(given) and os.path.exists(given) else ""
    return (
        f"does not exist in the folder of the run, {os.getcwd()}: give the absolute path{example}"
    )
