"""The front end: a waveform of any rate becomes the spectrogram that a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from .channels import MEAN, check_channels
from .decibels import Decibels
from .frames import FRONT_ENDS, KALDI, MEL_BINS, SAMPLE_RATE, Count, Numbers, Pair
from .kaldi import Kaldi
from .mel import Scale
from .resampling import rate_pair, resample


class Spectra(Protocol):
    """A kind of spectrogram: its frames at 16 kHz, and how a model gets them.

    Attributes:
        name: value of ``task.frontend``.
        low_hz: outer edge of the lowest mel filter.
        norm: mean and deviation of ``task.norm=whole``, if they do not depend on the data.
    """

    name: ClassVar[str]
    low_hz: ClassVar[float]
    norm: ClassVar[Pair | None]

    def settings(self) -> dict[str, Any]:
        """Return what the values depend on, for a cache."""

    def count_frames(self, samples: Count) -> Count:
        """Return the number of frames for a number of samples at 16 kHz."""

    def least_samples(self, frames: int) -> int:
        """Return the least number of samples that has so many frames."""

    def span(self, frames: int) -> int:
        """Return the number of samples from the start on that determine so many frames."""

    def compute(self, waveforms: Tensor) -> Tensor:
        """Compute the values of waveforms at 16 kHz: `[..., n]` to `[..., frames, 128]`."""

    def check_padding(self, pad_value: str) -> None:
        """Raise ValueError for an unknown value of ``task.pad_value``."""

    def finish(self, values: Tensor, out: Tensor, pad_value: str, scale: Scale) -> None:
        """Write the inputs for values `[..., n, 128]`, and padding, to `[..., T, 128]`."""


KINDS: dict[str, Spectra] = {kind.name: kind for kind in (Kaldi(), Decibels())}


def find_spectra(name: Any) -> Spectra:
    """Return the kind of spectrogram of a name; raise ValueError if there is none."""
    if name not in KINDS:
        raise ValueError(f"task.frontend is {name!r}; choose one of {', '.join(FRONT_ENDS)}")
    return KINDS[name]


@dataclass(frozen=True)
class FrontEnd:
    """Computes the input of a model: the first ``target_length`` frames, normalised.

    Attributes:
        target_length: frames T of the result, 10 ms each.
        mean: mean of the data set's log-mel energies; or a tuple, that of each mel bin.
        std: their standard deviation; the result is ``(x - mean) / (2 * std)``.
        pad_value: padding of shorter clips: ``zero``, log-mel energies of 0, as published; or
            ``silence``, energies of digital silence.
        patch: if not 0, a shorter clip keeps its own length, padded to whole patches of so many
            frames.
        patch_bins: with ``patch``, the mel bins of a patch; 0 for as many as frames.
        channels: how the channels of a clip are mixed, see the module ``channels``.
        kind: ``kaldi``; or ``db``: mean and std are 0 and 0.5, or those of each mel bin.

    Raises:
        ValueError: ``target_length`` or ``std`` is not positive, a value is not finite, the mel
            bins are not 128, ``pad_value``, ``channels`` or ``kind`` is unknown, T is not a
            multiple of ``patch``, or mean and std are not those of the kind.
    """

    target_length: int
    mean: Numbers
    std: Numbers
    pad_value: str = "zero"
    patch: int = 0
    channels: str = MEAN
    patch_bins: int = 0
    kind: str = KALDI

    def __post_init__(self) -> None:
        if self.target_length < 1:
            raise ValueError(f"target_length must be at least 1 frame, got {self.target_length}")
        means, stds = (n if isinstance(n, tuple) else (n,) for n in (self.mean, self.std))
        if len(means) != len(stds) or len(stds) not in (1, MEL_BINS):
            raise ValueError(
                f"mean and std must be one number or {MEL_BINS} each, got {len(means)} and "
                f"{len(stds)}"
            )
        for mean, std in zip(means, stds):
            if not math.isfinite(mean):
                raise ValueError(f"mean must be finite, got {mean}")
            if not (math.isfinite(std) and std > 0):
                raise ValueError(f"std must be positive and finite, got {std}")
        fixed = self.spectra.norm
        if fixed not in (None, (self.mean, self.std)) and len(means) == 1:
            raise ValueError(f"mean and std of the front end {self.kind} are {fixed}")
        self.spectra.check_padding(self.pad_value)
        if self.patch and self.target_length % self.patch:
            raise ValueError(
                f"target_length is {self.target_length}; it must be divisible by "
                f"patch_size={self.patch}"
            )
        check_channels(self.channels)

    @property
    def spectra(self) -> Spectra:
        """The kind of spectrogram."""
        return find_spectra(self.kind)

    def count_frames(self, samples: Count) -> Count:
        """Return the number of frames for a number of samples at 16 kHz."""
        return self.spectra.count_frames(samples)

    def needed_samples(self, sample_rate: int) -> int:
        """Return the number of samples at ``sample_rate`` that determine T frames."""
        period_in, period_out, width = rate_pair(sample_rate, SAMPLE_RATE)
        last = self.spectra.span(self.target_length) - 1  # at 16 kHz
        return last * period_in // period_out + width + 1

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the normalised spectrogram of the start of a clip.

        Args:
            waveform: `[n]` float32, one channel; samples after ``needed_samples`` have no effect.
            sample_rate: in Hz.

        Returns:
            `[1, T, 128]` float32, time x mel.

        Raises:
            ValueError: ``waveform`` has more than one dimension.
        """
        return self.finish(self.energies(waveform, sample_rate))

    def energies(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Compute the log-mel energies of the start of a clip: `[n, 128]`, n <= T."""
        if waveform.dim() != 1:
            raise ValueError(f"waveform must have one dimension, got {list(waveform.shape)}")
        return self.batch_energies(waveform, sample_rate)

    def batch_energies(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Compute the energies of clips of one length: `[..., n]` to `[..., frames, 128]`."""
        given = waveforms[..., : self.needed_samples(sample_rate)]
        values = self.spectra.compute(resample(given, sample_rate))
        return values[..., : self.target_length, :]

    def finish(self, energies: Tensor) -> Tensor:
        """Cut or pad log-mel energies `[..., n, 128]` to T frames, and normalise them.

        Returns:
            `[..., 1, T, 128]`; with ``patch``, `[..., 1, ceil(n / patch) * patch, 128]` if less.
        """
        length = self.target_length
        if self.patch:
            length = min(length, math.ceil(energies.shape[-2] / self.patch) * self.patch)
        kept = energies[..., :length, :]
        finished = energies.new_empty(*kept.shape[:-2], length, MEL_BINS)
        self.spectra.finish(kept, finished, self.pad_value, self.scale)
        return finished.unsqueeze(-3)

    def scale(self, like: Tensor) -> tuple[Any, Any]:
        """Return ``mean`` and ``2 * std``: numbers, or `[128]` on the device of another tensor."""
        if isinstance(self.mean, tuple) and isinstance(self.std, tuple):
            return _bin_tables(self.mean, self.std, like.device, like.dtype)
        return self.mean, 2 * self.std  # type: ignore[operator]


@lru_cache(maxsize=8)
def _bin_tables(
    means: tuple[float, ...], stds: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the means and twice the deviations of the mel bins on a device."""
    tables = torch.tensor([means, [2 * std for std in stds]], dtype=torch.float64)
    mean, divisor = tables.to(device, dtype)
    return mean, divisor
