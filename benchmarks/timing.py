"""Two forms of one computation, measured side by side in one process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union
from unittest import mock

import torch

from eat_plugin.heap import keep_freed_memory
from eat_plugin.modules.replay import CALLS_BEFORE

from .profiling import profile_stages

WARM_UPS = CALLS_BEFORE + 1  # calls on a GPU that do not count: libraries, compilation, CUDA graphs
# FLOP/s of dense bfloat16 matrix products, from data sheets. The first key in a device name counts.
PEAKS = {
    "H200 NVL": 835e12, "H200": 989e12,
    "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12,
    "A100": 312e12,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Folder for temporary files, and device of models; ours may be compiled, or CUDA graphs."""

    folder: Path
    device: torch.device
    compile: bool = False
    cuda_graph: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Precision of models: bfloat16 on a GPU, float32 on the CPU."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def precision(self) -> str:
        """Name of the precision."""
        return str(self.dtype).partition(".")[2]

    @property
    def options(self) -> dict[str, Any]:
        """Options of our models."""
        return {"compile": True} if self.compile else {}


@dataclass(frozen=True)
class Case:
    """A computation in two forms.

    Attributes:
        same: both return a tensor or a number, to be compared.
        clips: clips per call.
        most_rounds: maximum number of rounds on the CPU; without a warm-up call if at most 2.
        burst: calls per round; their mean counts. For work that a process repeats with warm caches.
        flops: FLOPs per call, for MFU.
        is_all_ours: the form in the place of the plain one is ours too.
    """

    what: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    same: bool = True
    clips: int = 1
    most_rounds: int = 1000
    burst: int = 1
    flops: float | None = None
    is_all_ours: bool = False


@dataclass(frozen=True)
class Count:
    """A figure that is counted for both forms, not timed."""

    what: str
    unit: str
    plain: float
    ours: float


Prepare = Callable[[Place], Union[Case, Count]]


@dataclass(frozen=True)
class Comparison:
    """Result of a case; figures that were not measured are None.

    Attributes:
        plain: the plain form, in ``unit``; of times, the median time of a call.
        ours: the same for our form.
        ratio: plain / ours; of times, the median of the ratios of the rounds.
        difference: largest difference of the results / largest value of the plain result.
        clips_a_second: clips/s of our form.
        plain_mib: peak GPU memory of the plain form, models and optimizer included, in MiB.
        ours_mib: the same for our form.
        mfu: model FLOPs utilisation of our form: share of the GPU's peak.
        device: ``cpu``, or the name of the GPU.
        stages: milliseconds of each stage of our form, see ``profiling``.
        problem: error message of a failed case.
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
    stages: dict[str, float] | None = None


class Form:
    """A form of a case.

    Args:
        make: makes the function to call. Models are made in here, so that their memory counts.

    Attributes:
        first: the result of the first call.
        keeps_memory: keeps freed memory of the host, as our training does.
    """

    def __init__(self, make: Callable[[], Callable[[], Any]]) -> None:
        self._make = make
        self._function: Callable[[], Any] | None = None
        self.first: Any = None
        self.keeps_memory = False

    def prepare(self) -> Callable[[], Any]:
        """Make the function, once."""
        if self._function is None:
            self._function = self._make()
        return self._function

    def __call__(self) -> Any:
        """Call the function."""
        result = self.prepare()()
        if self.first is None:
            self.first = result
        return result


def compare(
    name: str, case: Case | Count, rounds: int, device: torch.device, profiled: bool = False
) -> Comparison:
    """Run both forms in turn, after warm-up calls, so that other load affects both."""
    where = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    if isinstance(case, Count):
        ratio = case.plain / case.ours
        return Comparison(name, case.what, case.unit, case.plain, case.ours, ratio, device=where)
    plain, ours = forms = [_as_form(case.plain, case.is_all_ours), _as_form(case.ours, True)]
    plain_mib, ours_mib = (_warm_up(form, device, case.most_rounds <= 2) for form in forms)
    rounds = min(rounds, case.most_rounds) if device.type == "cpu" else rounds
    times = [[_time(form, device, case.burst) for form in forms] for _ in range(rounds)]
    plain_seconds, seconds = (statistics.median(column) for column in zip(*times))
    peak = peak_of(device)
    return Comparison(
        name=name,
        what=case.what,
        plain=1000 * plain_seconds,
        ours=1000 * seconds,
        ratio=statistics.median(a / b for a, b in times),
        difference=_difference(plain.first, ours.first) if case.same else None,
        clips_a_second=case.clips / seconds,
        plain_mib=plain_mib,
        ours_mib=ours_mib,
        mfu=None if case.flops is None or peak is None else case.flops / seconds / peak,
        rounds=rounds,
        device=where,
        stages=profile_stages(ours, device) if profiled else None,
    )


def peak_of(device: torch.device) -> float | None:
    """Return the peak of a device in bfloat16, in FLOP/s; None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


@contextmanager
def hide_gpus() -> Iterator[None]:
    """Hide GPUs from fairseq, which otherwise clips the gradients of CPU models on a GPU."""
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        yield


def _as_form(function: Callable[[], Any], is_ours: bool) -> Form:
    form = function if isinstance(function, Form) else Form(lambda: function)
    form.keeps_memory = is_ours
    return form


def _warm_up(form: Form, device: torch.device, is_slow: bool) -> float | None:
    """Make the warm-up calls; return their peak memory on a GPU, in MiB."""
    keep_freed_memory(form.keeps_memory)
    if device.type == "cpu":
        form.prepare() if is_slow else form()
        return None
    torch.cuda.init()  # the peak cannot be reset before
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UPS):
        form()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _time(form: Form, device: torch.device, calls: int) -> float:
    keep_freed_memory(form.keeps_memory)
    _synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        form()
    _synchronize(device)
    return (time.perf_counter() - began) / calls


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _difference(plain: Any, ours: Any) -> float:
    plain, ours = torch.as_tensor(plain).double(), torch.as_tensor(ours).double()
    largest = float((plain - ours).abs().max())
    return largest if largest == 0 else largest / float(plain.abs().max())
