"""What an exported file needs of a checkpoint, and its comparison with the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models.named import build_model
from ..reproduction import RECORD
from .clips import Clip
from .loaded import Loaded

TOLERANCE = 1e-5  # of features and probabilities, absolute and relative to the largest feature


class Difference(NamedTuple):
    """The largest differences of an exported file from its checkpoint, on some clips.

    Attributes:
        features: of the tokens of the last block, over the largest of them where that is above 1.
        probabilities: of the classes; None without a classifier.
        clips: number of clips.
    """

    features: float
    probabilities: float | None
    clips: int

    def __str__(self) -> str:
        found = f"{self.clips} clips: features {self.features:.1e}"
        if self.probabilities is not None:
            found += f", probabilities {self.probabilities:.1e}"
        return found

    def check(self, what: str, tolerance: float = TOLERANCE) -> None:
        """Raise ValueError if a difference is above the tolerance; ``what`` was not written."""
        largest = _largest([self.features, self.probabilities or 0.0])
        if not largest <= tolerance:
            raise ValueError(
                f"{what} would differ from the checkpoint by {largest:.1e}, more than "
                f"{tolerance:.0e}, on {self}; not written"
            )


def portable_state(state: Mapping[str, Any], loaded: Loaded) -> dict[str, Any]:
    """Return what the use of a model needs: its encoder and classifier, without teacher or decoder.

    Args:
        state: the result of ``read_checkpoint``.
        loaded: the same checkpoint.
    """
    model, task = dict(state["cfg"]["model"]), dict(state["cfg"]["task"])
    task_state: dict[str, Any] = {}
    if loaded.labels is None:
        model["skip_ema"] = True
    else:
        model["num_classes"] = len(loaded.labels)
        task_state["labels"] = {label: str(i) for i, label in enumerate(loaded.labels.ids)}
        task_state["label_names"] = list(loaded.labels.names)
    if loaded.record is not None:
        task_state[RECORD] = loaded.record
    cfg = {"model": model, "task": task}
    names = build_model(cfg).state_dict()
    weights = {name: state["model"][name] for name in names}
    return {"cfg": cfg, "model": weights, "task_state": task_state}


def compare(first: Loaded, second: Loaded, clips: Sequence[Clip]) -> Difference:
    """Compare two models, each with its own front end."""
    pairs = ((first.spectrogram(clip)[None], second.spectrogram(clip)[None]) for clip in clips)
    found = [
        (
            (first.features(own, "all"), second.features(other, "all")),
            None if first.labels is None else (first.predict(own), second.predict(other)),
        )
        for own, other in pairs
    ]
    return summarise(found)


Pair = tuple[Tensor, Tensor]


def summarise(found: Sequence[tuple[Pair, Pair | None]]) -> Difference:
    """Return the largest differences of pairs of features and of probabilities, one per clip."""
    features = [float((a - b).abs().max() / a.abs().max().clamp(min=1)) for (a, b), _ in found]
    scores = [float((pair[0] - pair[1]).abs().max()) for _, pair in found if pair is not None]
    return Difference(_largest(features), _largest(scores) if scores else None, len(found))


def _largest(values: Sequence[float]) -> float:
    """Return the largest number; NaN if there is one."""
    return float(torch.tensor(values, dtype=torch.float64).max())
