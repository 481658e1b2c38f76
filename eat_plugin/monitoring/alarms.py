"""When the measured values say that a pre-training collapses, and what to change.

Three values are judged; why not others is in docs/monitoring.md.

- ``target_across``: whether the teacher gives different clips different targets. A teacher whose
  outputs vary over time, but are the same for every clip, has none from its start: the level of a
  collapse is absolute. Where clips are mostly padding, it is small in a healthy run too: a warning
  also needs a fall from its start.
- ``target_rank``: whether the targets use many directions. It falls in every healthy run, from a
  start that depends on width, patches and clips: it is judged by the share of its start.
- ``patch_variance``: whether the student's patches differ at all. The targets do not tell: instance
  norm gives them variance 1 again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .values import PATCH_VARIANCE, TARGET_ACROSS, TARGET_RANK

Values = Mapping[str, float]
QUIET, WARNING, COLLAPSE = range(3)  # levels
LEAST_ACROSS, LITTLE_ACROSS = 0.001, 0.01  # of a collapse, of a warning
LEAST_VARIANCE, LITTLE_VARIANCE = 0.001, 0.02  # the same
LEAST_RANK, LITTLE_RANK = 0.1, 0.2  # the same, shares of the start
FALLEN = 0.2  # share of its start below which a value has fallen


class Alarm(NamedTuple):
    """A value that a collapse makes small.

    Attributes:
        value: its name in the log.
        judge: maps the value and that at the start to a level.
        meaning: what is wrong.
        fix: what to change.
    """

    value: str
    judge: Callable[[float, float], int]
    meaning: str
    fix: str


def judge_across(value: float, start: float) -> int:
    """Return the level of the variance across clips over the mean square."""
    return _judge(value, LEAST_ACROSS, min(LITTLE_ACROSS, FALLEN * start))


def judge_variance(value: float, start: float) -> int:
    """Return the level of the variance of patches, mean over channels."""
    return _judge(value, LEAST_VARIANCE, min(LITTLE_VARIANCE, FALLEN * start))


def judge_rank(value: float, start: float) -> int:
    """Return the level of an effective rank."""
    return _judge(value, LEAST_RANK * start, LITTLE_RANK * start)


def _judge(value: float, least: float, little: float) -> int:
    if value < least:
        return COLLAPSE
    return WARNING if value < little else QUIET


ALARMS = (
    Alarm(
        TARGET_ACROSS, judge_across,
        "the teacher gives nearly the same targets for every clip",
        "look at the clips (eat manifest --check) and their normalisation (eat stats); then a "
        "smaller optimization.lr, a larger model.ema_decay",
    ),
    Alarm(
        TARGET_RANK, judge_rank,
        "the teacher's targets keep few directions",
        "model.instance_norm_target_layer=true, a larger model.ema_decay, a smaller "
        "optimization.lr or a longer warm-up",
    ),
    Alarm(
        PATCH_VARIANCE, judge_variance,
        "the student's encoder gives nearly the same vector for every patch",
        "a smaller optimization.lr or a longer warm-up",
    ),
)  # fmt: skip


class Watch:
    """Judges the values of a run, in comparison with its own start.

    Args:
        state: of a run that is resumed, from ``state``.
    """

    def __init__(self, state: Mapping[str, Values] | None = None) -> None:
        state = state or {}
        self._start = dict(state.get("start", {}))
        self._levels = dict(state.get("levels", {}))

    def state(self) -> dict[str, dict[str, float]]:
        """Return what a checkpoint keeps: the values at the start, and the alarms given."""
        return {"start": dict(self._start), "levels": dict(self._levels)}

    def judge(self, values: Values) -> tuple[list[str], str]:
        """Compare values with the levels of all alarms.

        Returns:
            Warnings that are new: one for each alarm and level; and why the run has collapsed,
            empty if it has not.
        """
        self._start = self._start or dict(values)
        warnings, collapse = [], ""
        for alarm in ALARMS:
            value = values[alarm.value]
            start = self._start.setdefault(alarm.value, value)  # a state of before has not all
            level = alarm.judge(value, start)
            if level == QUIET:
                self._levels.pop(alarm.value, None)
                continue
            text = _describe(alarm, level, value, start)
            if level > self._levels.get(alarm.value, 0):
                warnings.append(text)
                self._levels[alarm.value] = level
            if level == COLLAPSE:
                collapse = collapse or text
        return warnings, collapse


def _describe(alarm: Alarm, level: int, value: float, start: float) -> str:
    state = "has collapsed" if level == COLLAPSE else "may collapse"
    compared = f"{alarm.value}={value:.3g}, {start:.3g} at its start"
    return f"the run {state}: {alarm.meaning} ({compared}); change: {alarm.fix}"
