"""Two forms of one computation, timed side by side.

In this file:
    Case          two callables, and how far their results may lie apart
    Comparison    what was measured
    compare       runs them in turn
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A computation in two forms.

    Attributes:
        what: the computation, in a few words.
        plain: computes it in the obvious way.
        ours: computes it as this package does.
        same: both return a tensor, and the two are to be compared.
        clips: clips that one call takes, for a rate.
        most_rounds: calls of each form at most, of what takes long.
    """

    what: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    same: bool = True
    clips: int = 1
    most_rounds: int = 1000


@dataclass(frozen=True)
class Comparison:
    """What was measured of a case.

    Attributes:
        name: of the case.
        what: the computation, in a few words.
        plain_ms: median time of a call of the plain form, in ms.
        ours_ms: the same of ours.
        ratio: median of plain over ours, round by round.
        difference: largest absolute difference of the results; None where they are random.
        clips_a_second: of ours.
    """

    name: str
    what: str
    plain_ms: float
    ours_ms: float
    ratio: float
    difference: float | None
    clips_a_second: float


def compare(name: str, case: Case, rounds: int) -> Comparison:
    """Run both forms in turn, after a round that does not count.

    What else the machine does falls on both forms alike; the median ignores what falls on one.

    Args:
        name: of the case.
        case: what to run.
        rounds: calls of each form, at least 1.
    """
    first = case.plain(), case.ours()
    times = [(_time(case.plain), _time(case.ours)) for _ in range(min(rounds, case.most_rounds))]
    plain, ours = (statistics.median(column) for column in zip(*times))
    return Comparison(
        name=name,
        what=case.what,
        plain_ms=1000 * plain,
        ours_ms=1000 * ours,
        ratio=statistics.median(a / b for a, b in times),
        difference=_difference(*first) if case.same else None,
        clips_a_second=case.clips / ours,
    )


def _time(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _difference(plain: Tensor, ours: Tensor) -> float:
    return float((plain - ours).abs().max())
