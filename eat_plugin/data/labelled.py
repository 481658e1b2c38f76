"""The audio data set with labels: targets beside spectrograms, augmentation, balanced sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .augment import add_noise, roll_and_gain
from .dataset import AudioDataset
from .features import FrontEnd
from .labels import ClipLabels
from .manifest import Manifest


class LabelledAudioDataset(AudioDataset):
    """Spectrograms of the clips of a manifest, with their labels.

    A damaged clip is replaced by another one, with that one's labels; ``replaced`` says so.

    Args:
        manifest: the clips.
        front_end: from waveforms to normalised log-mel spectrograms.
        labels: of the manifest's clips, in its order.
        seed: seed of the run.
        crop: which part of a clip longer than the window is taken: ``start`` or ``random``.
        shuffle: put the clips in random order before they are put into batches.
        roll_gain: roll each waveform and change its level.
        noise: add noise to each spectrogram.
        weights: of the clips in balanced sampling, [clips]; None takes each clip once an epoch.
        num_samples: clips of an epoch of balanced sampling.
        replacement: balanced sampling may take a clip more than once an epoch.

    Raises:
        ValueError: if the numbers of clips, labels and weights differ, or the sampling is
            impossible.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        labels: ClipLabels,
        *,
        seed: int = 1,
        crop: str = "start",
        shuffle: bool = True,
        roll_gain: bool = False,
        noise: bool = False,
        weights: np.ndarray | None = None,
        num_samples: int = 0,
        replacement: bool = False,
    ) -> None:
        super().__init__(manifest, front_end, seed=seed, crop=crop, shuffle=shuffle)
        if len(labels) != len(manifest):
            raise ValueError(f"{len(labels)} clips have labels; the manifest has {len(manifest)}")
        if weights is not None:
            _check_sampling(weights, len(manifest), num_samples, replacement)
        self.labels = labels
        self.roll_gain = roll_gain
        self.noise = noise
        self.weights = weights
        self.num_samples = num_samples
        self.replacement = replacement

    def _transform(self, waveform: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
        if self.roll_gain:
            waveform = roll_and_gain(waveform, generator)
        spectrogram = super()._transform(waveform, sample_rate, generator)
        return add_noise(spectrogram, generator) if self.noise else spectrogram

    def _collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """As the base class does, with the names that classifiers use.

        Returns:
            ``id`` [B]; ``replaced`` bool [B]; ``skipped``; ``net_input`` with ``imgs``
            [B, 1, T, F] and ``label`` [B, classes].
        """
        batch = super()._collate(samples)
        clips = np.array([sample["clip"] for sample in samples])
        batch["replaced"] = torch.tensor([s["clip"] != s["id"] for s in samples])
        batch["net_input"] = {
            "imgs": batch["net_input"]["source"],
            "label": torch.from_numpy(self.labels.multi_hot(clips)),
        }
        return batch

    def ordered_indices(self) -> np.ndarray:
        """Return the order of clips, from the seed and epoch that fairseq sets around this call."""
        if self.weights is None or not self.shuffle:
            return super().ordered_indices()
        return np.random.choice(  # noqa: NPY002, fairseq seeds this generator
            len(self), self.num_samples, self.replacement, self.weights / self.weights.sum()
        )


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
