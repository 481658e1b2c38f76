"""Two forms of one computation, measured side by side.

In this file:
    Place         where a case runs
    Case          two callables, and how far their results may lie apart
    Form          one of them, and what its first call returned
    Count         two numbers that were counted, where there is no time to measure
    Comparison    what was measured
    compare       runs the forms of a case in turn
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

import torch

from .gpus import peak_of

WARM_UPS = 4  # calls that do not count, on a GPU: compilation, cuDNN, the allocator


@dataclass(frozen=True)
class Place:
    """Where a case runs.

    Attributes:
        folder: for files.
        device: of models and of what they take.
        compile: models of ours are compiled.
    """

    folder: Path
    device: torch.device
    compile: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Precision of models: bfloat16 on a GPU, float32 on the CPU."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def precision(self) -> str:
        """Name of that precision."""
        return str(self.dtype).partition(".")[2]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the models of ours."""
        return {"compile": True} if self.compile else {}


@dataclass(frozen=True)
class Case:
    """A computation in two forms.

    Attributes:
        what: the computation, in a few words.
        plain: computes it in the obvious way.
        ours: computes it as this package does.
        same: both return a tensor or a number, and the two are to be compared.
        clips: clips that one call takes, for a rate.
        most_rounds: times taken of each form at most, on the CPU.
        burst: calls in a row of which the mean time is taken, for what a process does again and
            again: its caches hold what it needs.
        is_long: a call takes a minute or so on the CPU: the first one counts there.
        flops: floating point operations that one call needs, where a share of the device's peak is
            asked for.
    """

    what: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    same: bool = True
    clips: int = 1
    most_rounds: int = 1000
    burst: int = 1
    is_long: bool = False
    flops: float | None = None


@dataclass(frozen=True)
class Count:
    """What was counted of both forms of a computation.

    Attributes:
        what: the computation, in a few words.
        unit: of both figures.
        plain: of the plain form.
        ours: of ours.
    """

    what: str
    unit: str
    plain: float
    ours: float


@dataclass(frozen=True)
class Comparison:
    """What was measured of a case; None for what was not.

    Attributes:
        name: of the case.
        what: the computation, in a few words.
        unit: of the two figures that follow.
        plain: of the plain form; the median, of times of a call.
        ours: the same of ours.
        ratio: of plain over ours; of times, the median of the rounds' ratios.
        difference: the largest difference of the two results, over the largest value of the plain
            one; None where they are random.
        clips_a_second: of ours.
        plain_mib: GPU memory that the plain form takes, models and optimizer included, in MiB.
        ours_mib: the same of ours.
        mfu: share of the GPU's peak that ours reaches, of the operations that the model needs.
        rounds: times that were taken of each form.
        device: ``cpu``, or the name of the GPU.
        problem: why it could not be measured.
    """

    name: str
    what: str
    unit: str = "ms"
    plain: float | None = None
    ours: float | None = None
    ratio: float | None = None
    difference: float | None = None
    clips_a_second: float | None = None
    plain_mib: float | None = None
    ours_mib: float | None = None
    mfu: float | None = None
    rounds: int | None = None
    device: str = ""
    problem: str | None = None


Measurable = Union[Case, Count]


class Form:
    """One of the forms of a case, and what its first call returned.

    Args:
        make: makes what is to be called; models are made in here, so that the memory they take is
            that of their form.
    """

    def __init__(self, make: Callable[[], Callable[[], Any]]) -> None:
        self._make = make
        self._made: Callable[[], Any] | None = None
        self.calls = 0
        self.first: Any = None

    def __call__(self) -> Any:
        """Call it; it is made before, unless that has been done."""
        self.prepare()
        assert self._made is not None
        result = self._made()
        if not self.calls:
            self.first = result
        self.calls += 1
        return result

    def prepare(self) -> None:
        """Make it, unless that has been done."""
        if self._made is None:
            self._made = self._make()


def compare(name: str, case: Measurable, rounds: int, device: torch.device) -> Comparison:
    """Run both forms in turn, after calls that do not count.

    What else the machine does falls on both forms alike; the median ignores what falls on one.

    Args:
        name: of the case.
        case: what to run, or what was counted.
        rounds: times taken of each form, at least 1.
        device: where it runs.
    """
    if isinstance(case, Count):
        ratio = case.plain / case.ours
        return Comparison(
            name, case.what, case.unit, case.plain, case.ours, ratio, device=name_device(device)
        )
    forms = [_as_form(case.plain), _as_form(case.ours)]
    memory = [_warm_up(form, device, case.is_long) for form in forms]
    rounds = min(rounds, case.most_rounds) if device.type == "cpu" else rounds
    times = [[_time(form, device, case.burst) for form in forms] for _ in range(rounds)]
    plain, ours = (statistics.median(column) for column in zip(*times))
    peak = peak_of(device)
    return Comparison(
        name=name,
        what=case.what,
        plain=1000 * plain,
        ours=1000 * ours,
        ratio=statistics.median(a / b for a, b in times),
        difference=_difference(*(form.first for form in forms)) if case.same else None,
        clips_a_second=case.clips / ours,
        plain_mib=memory[0],
        ours_mib=memory[1],
        mfu=None if case.flops is None or peak is None else case.flops / ours / peak,
        rounds=rounds,
        device=name_device(device),
    )


def name_device(device: torch.device) -> str:
    """Return ``cpu``, or the name of a GPU."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _as_form(function: Callable[[], Any]) -> Form:
    return function if isinstance(function, Form) else Form(lambda: function)


def _warm_up(form: Form, device: torch.device, is_long: bool) -> float | None:
    """Make the calls that do not count; return the memory that they take on a GPU, in MiB."""
    if device.type == "cpu":
        form.prepare() if is_long else form()
        return None
    torch.cuda.init()  # before that there is no peak to reset
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UPS):
        form()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _time(function: Callable[[], Any], device: torch.device, calls: int) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        function()
    _wait(device)
    return (time.perf_counter() - began) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _difference(plain: Any, ours: Any) -> float:
    plain, ours = torch.as_tensor(plain).double(), torch.as_tensor(ours).double()
    largest = float((plain - ours).abs().max())
    return largest if largest == 0 else largest / float(plain.abs().max())
