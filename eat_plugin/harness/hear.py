"""HEAR (Turian et al. 2022, arXiv 2203.03022): its common API, as a module.

    python -m heareval.embeddings.runner eat_plugin.harness.hear --model checkpoint_best.pt

Time stamps are the centres of patches. A patch of 16 frames lasts 160 ms; HEAR wants at most 50 ms
between stamps. So the clip is embedded several times, each time from a later start, and the columns
are interleaved: 4 times 40 ms for such patches. ``load_model`` has the options.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..data.frames import SAMPLE_RATE
from .embedder import Embedder, check_audio

LARGEST_HOP = 50  # ms, that HEAR suggests
MS = SAMPLE_RATE // 1000  # samples


class HearModel(Embedder):
    """A model of the HEAR API, see ``load_model``.

    Attributes:
        sample_rate: in Hz.
        scene_embedding_size: D.
        timestamp_embedding_size: D.
        hop_ms: from a time stamp to the next one.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, checkpoint: str | os.PathLike[str], layer: int | str = -1, hop: int | None = None
    ) -> None:
        super().__init__(checkpoint, layer)
        self.scene_embedding_size = self.timestamp_embedding_size = self.width
        column = self.hop // MS  # ms; a frame has 10
        hops = [ms for ms in range(column, 0, -1) if column % ms == 0]
        if hop not in (None, *hops):
            raise ValueError(
                f"the hop is {hop} ms; it must divide the {column} ms of a patch: choose one of "
                f"{', '.join(map(str, hops))}"
            )
        self.hop_ms = hop or next(ms for ms in hops if ms <= LARGEST_HOP)


def load_model(model_file_path: str, layer: int | str = -1, hop: int | None = None) -> HearModel:
    """Load a checkpoint.

    Args:
        model_file_path: the file, ours or published.
        layer: block whose output is taken, see ``Loaded.features``.
        hop: milliseconds between time stamps, which divide the length of a patch; None for the
            longest of at most 50. The time that a clip takes is proportional to 1 / hop.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an EAT checkpoint of sound, or an option is invalid.
    """
    return HearModel(model_file_path, layer, hop)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Embed whole clips: [n, samples] within ±1 to float32 [n, D]; errors as below."""
    return model.embed_frames(audio).x.mean(dim=1)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embed clips along time.

    Args:
        audio: [n, samples] at 16 kHz, within ±1.
        model: from ``load_model``.

    Returns:
        Embeddings, float32 [n, T, D]; time stamps in ms, float64 [n, T], none after the clip's end.

    Raises:
        ValueError: as ``Embedder.embed_frames``.
    """
    check_audio(audio)
    # A start counts if its first column has its centre in the clip.
    starts = range(0, max(audio.shape[-1] - model.hop // 2, 1), model.hop_ms * MS)
    parts, times = [], []
    for start in starts[: model.hop // (model.hop_ms * MS)]:
        found = model.embed_frames(audio[:, start:])
        parts.append(found.x)
        times.append(1000 * found.times + start / MS)
    stamps, order = torch.cat(times).sort()
    stamps = stamps.clamp(max=audio.shape[-1] / MS)  # of a clip shorter than half a patch
    x = torch.cat(parts, dim=1)[:, order.to(audio.device)]
    return x, stamps.to(audio.device).expand(len(audio), -1)
