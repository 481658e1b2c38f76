"""The vectors of many clips that a probe compares: of a model, of random weights, of log-mel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..choices import DEFAULT_BATCH
from ..data.clip import ClipError
from ..data.entries import Entry
from ..data.frames import SAMPLE_RATE
from ..models.encoder import EatEncoder
from .batches import Job, list_jobs
from .loaded import Loaded
from .pooling import FramePool, PatchPool
from .windows import Window

MODEL, RANDOM, BASELINE = "model", "random weights", "log-mel"
PIXELS = "pixels"  # the baseline of a model of images


class Kind(NamedTuple):
    """What a vector is made of (``MODEL``, ``RANDOM``, ...), and how it is pooled."""

    source: str
    pooling: str


Vectors = dict[Kind, np.ndarray]
"""The vectors of a clip, ``[layers, width]`` float32 each; of a baseline ``[1, width]``."""


@dataclass
class _Pools:
    """The pools of a clip whose windows are being computed."""

    windows: list[Window]
    steps: list[int]  # frames without padding of each window
    frames: FramePool
    patches: dict[str, PatchPool]


def with_random_weights(loaded: Loaded, seed: int = 0) -> Loaded:
    """Return the same encoder before any training, with weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EatEncoder(loaded.encoder.cfg)
    encoder = encoder.to(loaded.device).eval()
    return replace(loaded, model=encoder, encoder=encoder)


class VectorReader:
    """Computes the vectors of clips in one pass: each window is read once, for all of them.

    Args:
        loaded: the model.
        layer: as in ``Loaded.features``.
        seed: of the random weights.

    Attributes:
        layers: the layers of the vectors, from 1; or ``mean``.

    Raises:
        ValueError: the layer is unknown.
    """

    def __init__(self, loaded: Loaded, layer: int | str = "all", seed: int = 0) -> None:
        loaded.check_features("all", layer)
        self._loaded, self._layer = loaded, layer
        self._models = {MODEL: loaded, RANDOM: with_random_weights(loaded, seed)}
        self._baseline = BASELINE if loaded.images is None else PIXELS
        self._windowing = loaded.windowing()
        depth = len(loaded.encoder.blocks)
        self.layers: list[int | str] = list(range(1, depth + 1)) if layer == "all" else [layer]
        if isinstance(layer, int) and layer < 0:
            self.layers = [depth + 1 + layer]

    def read(
        self, entries: list[Entry], batch_size: int = DEFAULT_BATCH
    ) -> Iterator[tuple[int, Vectors | ClipError]]:
        """Yield the number of each clip as soon as it is complete, and its vectors or error.

        Adjacent windows cover the whole clip, as in ``Loaded.extract``.

        Raises:
            ValueError: the model gives values that are not finite.
        """
        pools: dict[int, _Pools] = {}
        broken: dict[int, ClipError] = {}
        jobs = list_jobs(self._plan(entries, pools, broken))
        windows = self._loaded.map_windows(jobs, self._windowing, _same, batch_size)
        waiting: list[tuple[Job, np.ndarray]] = []
        for job, found in windows:
            if isinstance(found, ClipError):
                pools.pop(job.clip)
                yield job.clip, found
                continue
            if waiting and (len(waiting) == batch_size or found.shape != waiting[0][1].shape):
                yield from self._compute(waiting, pools)
                waiting = []
            waiting.append((job, found))
        if waiting:
            yield from self._compute(waiting, pools)
        yield from broken.items()

    def _plan(
        self, entries: Iterable[Entry], pools: dict[int, _Pools], broken: dict[int, ClipError]
    ) -> Iterator[tuple[Entry, list[Window]]]:
        """Yield each entry with its windows; note its pools, or the error of its header."""
        loaded, windowing = self._loaded, self._windowing
        for clip, entry in enumerate(entries):
            try:
                size, rate = loaded.probe(entry)
            except ClipError as error:
                broken[clip] = error
                yield entry, []
                continue
            size = size if entry.size is None else entry.size
            windows = loaded.plan(windowing, size, rate)
            steps = [windowing.frames] * len(windows)
            if loaded.images is None:
                # Reading refuses a clip without a frame.
                frames = math.ceil(size * SAMPLE_RATE / rate)
                frames = max(loaded.front_end.count_frames(frames), 1)
                steps = [min(windowing.frames, frames - window.start) for window in windows]
            patches = {source: PatchPool(windows) for source in self._models}
            pools[clip] = _Pools(windows, steps, FramePool(sum(steps)), patches)
            yield entry, windows

    def _compute(
        self, windows: list[tuple[Job, np.ndarray]], pools: dict[int, _Pools]
    ) -> Iterator[tuple[int, Vectors]]:
        """Compute windows of one shape; yield the clips that are complete."""
        batch = torch.from_numpy(np.stack([found for _, found in windows]))
        tokens = {source: self._encode(model, batch) for source, model in self._models.items()}
        extra = self._loaded.encoder.num_extra_tokens
        grid = self._loaded.encoder.patch_encoder.grid_of(batch)
        for row, (job, found) in enumerate(windows):
            if job.clip not in pools:  # a later window of the clip cannot be read
                continue
            clip = pools[job.clip]
            window = clip.windows[job.number]
            rows = found.transpose(1, 0, 2).reshape(found.shape[1], -1)  # [T, C F]
            clip.frames.add(rows[: clip.steps[job.number]])
            for source, x in tokens.items():
                cls = x[row, :, extra - 1] if extra else None
                patches = x[row, :, extra:]
                shape = (len(patches), *grid, patches.shape[-1])
                clip.patches[source].add(window, cls, patches.reshape(shape))
            if job.is_last:
                yield job.clip, self._finish(pools.pop(job.clip))

    def _encode(self, model: Loaded, batch: Tensor) -> np.ndarray:
        """Return the tokens of spectrograms [B, C, T, F]: [B, layers, E + L, D]."""
        x = model.features(batch, "all", self._layer)
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{model.path} gives features that are not finite; check its weights")
        return (x if self._layer == "all" else x[:, None]).float().cpu().numpy()

    def _finish(self, clip: _Pools) -> Vectors:
        vectors = {Kind(self._baseline, name): x for name, x in clip.frames.finish().items()}
        for source, pool in clip.patches.items():
            vectors.update((Kind(source, name), x) for name, x in pool.finish().items())
        return vectors


def _same(source: Tensor) -> Tensor:
    return source
