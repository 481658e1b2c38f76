"""All cases of `eat bench`, and where each can run.

In this file:
    Row     a case before it is prepared
    ROWS    all of them, by name
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from . import counts, encoding, front_end, trainer, training
from .timing import Measurable, Place

CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class Row:
    """A case before it is prepared.

    Attributes:
        prepare: prepares its input at a place.
        devices: where it can run.
        has_model: it computes with a model, which takes all cores; a data worker has one thread.
        what: the computation, in a few words, where it is told of though it cannot run.
    """

    prepare: Callable[[Place], Measurable]
    devices: tuple[str, ...] = (CPU, CUDA)
    has_model: bool = True
    what: str = ""


def _of_data_worker(prepare: Callable[..., Measurable]) -> Row:
    return Row(lambda place: prepare(place.folder), (CPU,), has_model=False)


def _of_gpu(size: str, clips: int, clones: int, frames: int) -> Row:
    what = trainer.describe(size, clips, clones, frames, "bfloat16")
    return Row(trainer.training(size, clips), (CUDA,), what=what)


ROWS: dict[str, Row] = {
    **{name: _of_data_worker(prepare) for name, prepare in front_end.CASES.items()},
    **{name: Row(prepare) for name, prepare in {**encoding.CASES, **training.CASES}.items()},
    "train_tiny": Row(trainer.training("tiny", 12, rounds=10)),
    "train_base_12": _of_gpu("base", 12, 16, 1024),
    "train_base_48": _of_gpu("base", 48, 16, 1024),
    **{name: Row(prepare) for name, prepare in counts.CASES.items()},
}
