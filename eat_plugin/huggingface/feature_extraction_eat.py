"""From waveforms to the normalised log-mel spectrograms that EAT takes, in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from ..data.frames import KALDI, MEL_BINS, SAMPLE_RATE, TOO_SHORT
from ..data.frontend import FrontEnd


class EATFeatureExtractor(SequenceFeatureExtractor):
    """Resamples, computes log-mel energies, cuts or pads them, and normalises them.

    Args:
        target_length: frames of 10 ms of a spectrogram; a longer clip is cut.
        mean: of the log-mel energies, a number or one of each mel bin.
        std: their standard deviation; the result is ``(x - mean) / (2 * std)``.
        pad_value: padding of shorter clips: ``zero`` or ``silence``.
        patch: if not 0, clips keep their own length, padded to whole patches of so many frames; in
            a batch ``attention_mask`` says which frames are theirs.
        patch_bins: mel bins of a patch; 0 for as many as frames.
        channels: how clips were mixed in training; clips here have one channel.
        kind: ``kaldi``, log-mel energies, or ``db``, decibels from 0 to 1.
        feature_size: number of mel bins.
        sampling_rate: rate after resampling, in Hz.
        padding_value: of the padding of a batch.
        **kwargs: further entries of preprocessor_config.json.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012, as transformers declares

    def __init__(
        self,
        target_length: int = 1024,
        mean: float | list[float] = -4.268,
        std: float | list[float] = 4.569,
        pad_value: str = "zero",
        patch: int = 0,
        patch_bins: int = 0,
        channels: str = "mean",
        kind: str = KALDI,
        feature_size: int = MEL_BINS,
        sampling_rate: int = SAMPLE_RATE,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.target_length, self.mean, self.std = target_length, mean, std
        self.pad_value, self.patch, self.patch_bins = pad_value, patch, patch_bins
        self.channels, self.kind = channels, kind

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute the spectrograms of one clip or of several.

        Args:
            raw_speech: samples [n] of one channel, float with full scale at 1 or int16; or a list
                or array of several clips.
            sampling_rate: of the samples, in Hz; clips of any rate are resampled.
            return_tensors: ``pt`` or ``np``.
            **kwargs: ignored; clips are padded as in training.

        Returns:
            ``input_values`` [B, 1, T, 128]; with ``patch`` also ``attention_mask`` [B, T].

        Raises:
            ValueError: there is no rate, or a clip cannot be used.
        """
        if sampling_rate is None:
            raise ValueError("give sampling_rate, the rate of the samples in Hz")
        if len(raw_speech) == 0:
            raise ValueError("there is no clip, or it has no samples")
        several = isinstance(raw_speech, (list, tuple)) and np.ndim(raw_speech[0]) > 0
        several = several or (hasattr(raw_speech, "shape") and len(raw_speech.shape) > 1)
        clips = [_as_samples(clip) for clip in (raw_speech if several else [raw_speech])]
        front_end = self._front_end()
        found = [_compute(front_end, clip, sampling_rate) for clip in clips]  # each [1, T, 128]
        lengths = [spectrogram.size(1) for spectrogram in found]
        batch = found[0].new_full((len(found), 1, max(lengths), MEL_BINS), self.padding_value)
        mask = torch.zeros(len(found), max(lengths), dtype=torch.long)
        for row, spectrogram in enumerate(found):
            batch[row, :, : lengths[row]] = spectrogram
            mask[row, : lengths[row]] = 1
        data = {"input_values": batch.numpy()}
        if self.patch:
            data["attention_mask"] = mask.numpy()
        return BatchFeature(data, tensor_type=return_tensors)

    def _front_end(self) -> FrontEnd:
        mean, std = (tuple(n) if isinstance(n, (list, tuple)) else n for n in (self.mean, self.std))
        return FrontEnd(
            self.target_length, mean, std, self.pad_value, self.patch, self.channels,
            self.patch_bins, self.kind,
        )  # fmt: skip


def _as_samples(clip: Any) -> Tensor:
    """Return samples [n] as float32, full scale at 1."""
    array = np.asarray(clip)
    if array.ndim != 1 or array.dtype.kind not in "fi":
        raise ValueError(
            f"a clip has the shape {array.shape} and the type {array.dtype}; expected the samples "
            "[n] of one channel, floating-point or int16"
        )
    if array.dtype.kind == "i":
        if array.dtype != np.int16:
            raise ValueError(f"a clip has samples of type {array.dtype}; of integers give int16")
        array = array / 32768
    samples = torch.from_numpy(array.astype(np.float32))
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("a clip has samples that are not finite")
    return samples


def _compute(front_end: FrontEnd, clip: Tensor, sampling_rate: int) -> Tensor:
    energies = front_end.energies(clip, sampling_rate)
    if len(energies) == 0:
        raise ValueError(
            f"a clip of {len(clip)} samples {TOO_SHORT}; an array of two dimensions is [clips, n]: "
            "mix stereo to one channel first"
        )
    return front_end.finish(energies)
