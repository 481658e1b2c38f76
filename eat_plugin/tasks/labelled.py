"""The labelled data set: targets beside clips, balanced sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..data.labels import ClipLabels
from ..data.reader import ClipReader
from .dataset import ClipDataset


class LabelledDataset(ClipDataset):
    """The clips of a reader, with labels.

    A damaged clip is replaced by another one with its labels.

    Args:
        reader: reads the clips.
        labels: labels of the manifest's clips, in its order; None if the reader gives ``label``.
        seed: seed of the run.
        shuffle: shuffle the clips before they are batched.
        weights: weights of the clips for balanced sampling, [clips]; None draws each clip once per
            epoch.
        num_samples: clips per epoch of balanced sampling.
        replacement: balanced sampling may draw a clip more than once per epoch.

    Raises:
        ValueError: the numbers of clips, labels and weights differ, or the sampling is impossible.
    """

    def __init__(
        self,
        reader: ClipReader,
        labels: ClipLabels | None,
        *,
        seed: int = 1,
        shuffle: bool = True,
        weights: np.ndarray | None = None,
        num_samples: int = 0,
        replacement: bool = False,
    ) -> None:
        super().__init__(reader, seed=seed, shuffle=shuffle)
        if labels is not None and len(labels) != len(self):
            raise ValueError(f"{len(labels)} clips have labels; the manifest has {len(self)}")
        if weights is not None:
            _check_sampling(weights, len(self), num_samples, replacement)
        self.labels = labels
        self.weights = weights
        self.num_samples = num_samples
        self.replacement = replacement

    def _collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Join clips, with the names of a classifier's inputs.

        Returns:
            As the base class, with ``imgs`` in ``net_input`` in place of ``source``, and ``label``
            [B, classes].
        """
        batch = super()._collate(samples)
        inputs = batch["net_input"]
        inputs["imgs"] = inputs.pop("source")
        if self.labels is not None:
            clips = np.array([sample["clip"] for sample in samples])
            inputs["label"] = torch.from_numpy(self.labels.multi_hot(clips))
        return batch

    @property
    def epoch_size(self) -> int:
        """Clips per epoch."""
        return len(self) if self.weights is None else self.num_samples

    def ordered_indices(self) -> np.ndarray:
        """Do as the base class does; further draws of a clip are numbered, see ``__getitem__``."""
        indices = super().ordered_indices()
        return number_draws(indices, len(self)) if self.replacement else indices

    def _choose_clips(self) -> np.ndarray:
        if self.weights is None or not self.shuffle:
            return super()._choose_clips()
        return np.random.choice(  # noqa: NPY002, fairseq seeds this generator
            len(self), self.num_samples, self.replacement, self.weights / self.weights.sum()
        )


def number_draws(clips: np.ndarray, total: int) -> np.ndarray:
    """Return clips [n], each plus ``total`` times the number of its earlier places in the array."""
    by_clip = np.argsort(clips, kind="stable")
    ordered = clips[by_clip]
    starts = np.searchsorted(ordered, ordered, side="left")
    draws = np.empty_like(clips)
    draws[by_clip] = ordered + total * (np.arange(len(clips)) - starts)
    return draws


def _check_sampling(
    weights: np.ndarray, num_clips: int, num_samples: int, replacement: bool
) -> None:
    if len(weights) != num_clips:
        raise ValueError(f"{len(weights)} clips have weights, but the manifest has {num_clips}")
    if num_samples < 1:
        raise ValueError(f"task.num_samples is {num_samples}; it must be 1 or more")
    drawable = int(np.count_nonzero(weights))
    if not replacement and num_samples > drawable:
        raise ValueError(
            f"task.num_samples is {num_samples}, but only {drawable} clips can be drawn; lower it "
            "or set task.replacement=true"
        )
