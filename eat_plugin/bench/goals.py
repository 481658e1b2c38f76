"""What the figures of `eat bench` are to be: at least, and at best."""

from __future__ import annotations

from typing import NamedTuple

from .timing import Comparison


class Goal(NamedTuple):
    """A goal for one figure of a case.

    Attributes:
        figure: a number of ``Comparison``: ``ratio`` and ``clips_a_second`` are to be high,
            ``ours`` is to be low.
        at_least: what is demanded.
        aim: what is hoped for.
        where: part of the name of the device that it is for; empty for all.
    """

    figure: str
    at_least: float
    aim: float
    where: str = ""

    def is_reached(self, comparison: Comparison) -> bool | None:
        """Say whether what is demanded was measured; None if it was not measured."""
        value = getattr(comparison, self.figure)
        if value is None:
            return None
        return value <= self.at_least if self.figure == "ours" else value >= self.at_least


GOALS: dict[str, tuple[Goal, ...]] = {
    "resample": (Goal("ratio", 4, 5),),
    "log_mel": (Goal("ratio", 2, 2.8),),
    "masks": (Goal("ratio", 6, 8),),
    "read_wav": (Goal("ratio", 3, 6),),
    "load_wav": (Goal("ratio", 3, 3.7),),
    "load_flac": (Goal("ratio", 1.7, 1.9),),
    "load_mp3": (Goal("ratio", 1.7, 1.9),),
    "update_base": (Goal("ratio", 1.1, 1.15, "cpu"),),
    "operations": (Goal("ours", 50, 15),),
    "activations": (Goal("ours", 750, 530),),
    "train_base_12": (Goal("clips_a_second", 280, 355, "H200"), Goal("ratio", 2, 3, "H200")),
    "train_base_48": (Goal("clips_a_second", 350, 440, "H200"), Goal("ratio", 2, 3, "H200")),
}


def goals_of(comparison: Comparison) -> list[Goal]:
    """Return the goals of a case on the device where it was measured; all, if it was not."""
    goals, device = GOALS.get(comparison.name, ()), comparison.device
    return [goal for goal in goals if not device or goal.where in device]
