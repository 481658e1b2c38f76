"""All cases of `eat bench`, and the devices that each runs on."""

from __future__ import annotations

from dataclasses import dataclass

from .arguments import CPU, CUDA
from .bat import CASES as BAT
from .bat import COUNTS as COUNTED_OF_BAT
from .counts import CASES as COUNTED
from .encoding import CASES as ENCODING
from .front_end import CASES as FRONT_END
from .second_stage import CASES as SECOND_STAGE
from .second_stage import COUNTS as COUNTED_OF_STAGES
from .stores import CASES as OF_STORES
from .timing import Prepare
from .trainer import describe, training
from .training import CASES as TRAINING
from .training import ROUNDED


@dataclass(frozen=True)
class Row:
    """A case before it is prepared.

    Attributes:
        prepare: prepares the case at a place.
        devices: devices that it runs on.
        has_model: runs on all cores; a case of a data worker has one thread.
        what: description, if the case cannot run.
        package: one that it needs besides those of training.
    """

    prepare: Prepare
    devices: tuple[str, ...] = (CPU, CUDA)
    has_model: bool = True
    what: str = ""
    package: str = ""


def _train_on_gpu(size: str, clips: int) -> Row:
    what = describe(size, clips, 16, 1024, "bfloat16")
    return Row(training(size, clips), (CUDA,), what=what)


ROWS: dict[str, Row] = {
    **{name: Row(prepare, (CPU,), has_model=False) for name, prepare in FRONT_END.items()},
    **{
        name: Row(prepare, (CPU,), has_model=False, what="clips in a store", package="aiohttp")
        for name, prepare in OF_STORES.items()
    },
    **{name: Row(prepare) for name, prepare in {**ENCODING, **TRAINING, **SECOND_STAGE}.items()},
    "train_tiny": Row(training("tiny", 12, rounds=10)),
    "train_base_12": _train_on_gpu("base", 12),
    "train_base_48": _train_on_gpu("base", 48),
    "train_base_96": _train_on_gpu("base", 96),
    "train_large_12": _train_on_gpu("large", 12),
    **{name: Row(prepare, (CPU,)) for name, prepare in ROUNDED.items()},
    **{
        name: Row(prepare)
        for name, prepare in {**BAT, **COUNTED, **COUNTED_OF_STAGES, **COUNTED_OF_BAT}.items()
    },
}
