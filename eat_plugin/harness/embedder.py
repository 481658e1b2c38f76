"""A checkpoint as a frozen network of waveforms, the base of all adapters."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..data.frames import FRAME_LENGTH, FRAME_SHIFT, SAMPLE_RATE
from ..inference import ClipFeatures, load_checkpoint
from ..inference.clips import Clip, locate_clips
from ..inference.recordings import extract_recordings


class Frames(NamedTuple):
    """Embeddings along time of clips of one length.

    Attributes:
        x: float32 [n, columns, D], on the device of the waveforms.
        times: centres of the columns in seconds, float64 [columns].
    """

    x: Tensor
    times: Tensor


class Embedder(nn.Module):
    """Embeds waveforms as ``Loaded.extract`` does at the granularity ``frame``.

    A column is the mean over the mel axis of the patches of one time step. The vector of a clip is
    the mean over its columns; columns of padding are excluded from both. Clips longer than a window
    are cut into adjacent windows. A clip shorter than a frame (25 ms) is padded with silence.

    Args:
        checkpoint: the file, ours or published.
        layer: block, 1, 2, ..., negative from the end, or ``mean``; see ``Loaded.features``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an EAT checkpoint of sound, or the layer is unknown.

    Attributes:
        width: D.
        hop: samples at 16 kHz from a column to the next one.
    """

    def __init__(self, checkpoint: str | os.PathLike[str], layer: int | str = -1) -> None:
        super().__init__()
        self.loaded = load_checkpoint(checkpoint)
        if self.loaded.images is not None:
            raise ValueError(
                f"{self.loaded.path} is a model of images; benchmarks of sound need "
                "a model of sound"
            )
        self.loaded.check_features("frame", layer)
        if layer == "all":
            raise ValueError("the layer is 'all'; a benchmark needs one: a number or mean")
        self.layer = layer
        self.width: int = self.loaded.encoder.cfg.embed_dim
        self.hop = self.loaded.patch * FRAME_SHIFT
        self.network = self.loaded.model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Embedder:
        """Stay in evaluation, whatever a harness asks for: the network is frozen."""
        return super().train(False)

    def embed_frames(self, audio: Tensor) -> Frames:
        """Embed clips of one length along time.

        Args:
            audio: [n, samples] at 16 kHz, floating-point with full scale at 1.

        Raises:
            ValueError: see ``check_audio``; or a sample is not finite.
        """
        check_audio(audio)
        samples = audio.detach().float().cpu().numpy()
        found = self._extract([(clip, SAMPLE_RATE) for clip in samples])
        x = torch.from_numpy(np.stack([each.x for each in found]))
        return Frames(x.to(audio.device), torch.from_numpy(found[0].times))

    def embed_clips(self, clips: list[tuple[np.ndarray, int]]) -> np.ndarray:
        """Embed clips of any lengths: samples `[n]` or `[channels, n]` and rate; float32 [n, D]."""
        return np.stack([each.x.mean(axis=0) for each in self._extract(clips)])

    def _extract(self, clips: list[tuple[np.ndarray, int]]) -> list[ClipFeatures]:
        padded: list[Clip] = [(_pad_to_frame(samples, rate), rate) for samples, rate in clips]
        entries, windowing = locate_clips(padded), self.loaded.windowing()
        arguments = (entries, "frame", self.layer, windowing, len(clips))
        return list(extract_recordings(self.loaded, *arguments))


def check_audio(audio: Tensor) -> None:
    """Raise ValueError if audio is no floating-point tensor [clips, samples], or is empty."""
    if not isinstance(audio, Tensor):
        what = type(audio).__name__
    elif audio.dim() != 2 or audio.numel() == 0 or not audio.is_floating_point():
        what = f"a tensor {list(audio.shape)} of {str(audio.dtype).removeprefix('torch.')}"
    else:
        return
    raise ValueError(
        f"audio is {what}; expected a floating-point tensor [clips, samples] within ±1, as "
        "torch.as_tensor(samples, dtype=torch.float32)[None] for one clip"
    )


def _pad_to_frame(samples: np.ndarray, rate: int) -> np.ndarray:
    """Pad samples [..., n] with zeros at the end, to the length of a frame."""
    missing = math.ceil(FRAME_LENGTH * rate / SAMPLE_RATE) - samples.shape[-1]
    if missing <= 0 or samples.size == 0:  # an empty clip is refused later
        return samples
    return np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, missing)])
