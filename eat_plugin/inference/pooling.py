"""One vector per clip: pooled patches of a model, and pooled log-mel frames, window by window.

Columns and frames of all windows of a clip count once; those of padding do not count.
"""

from __future__ import annotations

import numpy as np
import torch

from ..models.pooling import segment_steps
from .windows import Window

SEGMENTS = 8  # of time, in the pooling ``time``
MEL_SEGMENTS = (8, 16)  # of time, of the pooled log-mel values
POOLINGS = ("mean", "cls", "mean+max", "frames", "time")


def segment_weights(steps: int, segments: int) -> np.ndarray:
    """Return the weights of time steps in the mean of each segment: `[segments, steps]` float32."""
    inside = segment_steps(torch.tensor([steps]), segments, steps)[0].numpy()
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), dtype=np.float32)


class PatchPool:
    """Pools the tokens of a clip's windows as they come.

    Args:
        windows: all windows of the clip.
    """

    def __init__(self, windows: list[Window]) -> None:
        columns = sum(window.last - window.first for window in windows)
        whole = np.full((1, columns), 1 / columns, dtype=np.float32)
        self._weights = np.concatenate([whole, segment_weights(columns, SEGMENTS)])
        self._num_windows, self._seen = len(windows), 0
        self._means: np.ndarray | float = 0.0  # [1 + SEGMENTS, layers, mel, D]
        self._most: np.ndarray | float = -np.inf  # [layers, D]
        self._cls: np.ndarray | float | None = 0.0  # [layers, D], a sum over windows

    def add(self, window: Window, cls: np.ndarray | None, grid: np.ndarray) -> None:
        """Add the next window.

        Args:
            window: says which columns are valid.
            cls: [layers, D]; None for a model without a CLS token.
            grid: patches [layers, columns, mel, D], those of padding too.
        """
        valid = grid[:, window.first : window.last]
        end = self._seen + valid.shape[1]
        weights = self._weights[:, self._seen : end]
        self._seen = end
        self._means = self._means + np.tensordot(weights, valid, axes=(1, 1))
        self._most = np.maximum(self._most, valid.max(axis=(1, 2), initial=-np.inf))
        self._cls = None if cls is None or self._cls is None else self._cls + cls

    def finish(self) -> dict[str, np.ndarray]:
        """Return each pooling of ``POOLINGS``, [layers, width]; without ``cls`` if there is none.

        ``mean`` over patches [D]; ``cls``, the mean over windows [D]; ``mean+max`` over patches
        [2 D]; ``frames``, the mean over time alone [mel D]; ``time``, the mean over the patches of
        each of 8 segments of time [8 D].
        """
        assert isinstance(self._means, np.ndarray)
        layers = self._means.shape[1]
        over_mel = self._means.mean(axis=2)  # [1 + SEGMENTS, layers, D]
        pooled = {"mean": over_mel[0]}
        if self._cls is not None:
            pooled["cls"] = np.asarray(self._cls / self._num_windows)
        pooled["mean+max"] = np.concatenate([over_mel[0], np.asarray(self._most)], axis=-1)
        pooled["frames"] = self._means[0].reshape(layers, -1)
        pooled["time"] = over_mel[1:].swapaxes(0, 1).reshape(layers, -1)
        return pooled


class FramePool:
    """Pools the log-mel frames of a clip's windows as they come; rows of pixels of an image.

    Args:
        steps: frames of all windows.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._seen = steps, 0
        self._weights = {number: segment_weights(steps, number) for number in MEL_SEGMENTS}
        self._segments: dict[int, np.ndarray | float] = dict.fromkeys(MEL_SEGMENTS, 0.0)
        self._sum: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0
        self._most: np.ndarray | float = -np.inf
        self._change: np.ndarray | float = 0.0
        self._last: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> None:
        """Add the next frames [n, bins], without padding."""
        end = self._seen + len(frames)
        for number, weights in self._weights.items():
            self._segments[number] = self._segments[number] + weights[:, self._seen : end] @ frames
        self._seen = end
        exact = frames.astype(np.float64)
        self._sum = self._sum + exact.sum(axis=0)
        self._squares = self._squares + np.square(exact).sum(axis=0)
        self._most = np.maximum(self._most, exact.max(axis=0))
        joined = exact if self._last is None else np.concatenate([self._last, exact])
        self._change = self._change + np.abs(np.diff(joined, axis=0)).sum(axis=0)
        self._last = exact[-1:]

    def finish(self) -> dict[str, np.ndarray]:
        """Return each baseline, [1, width].

        Mean and deviation of each bin over time; these with its maximum and its mean absolute
        difference from frame to frame; its mean in each of 8 or 16 segments of time.
        """
        mean = np.asarray(self._sum / self._steps)
        deviation = np.sqrt(np.maximum(self._squares / self._steps - mean**2, 0))
        change = self._change / max(self._steps - 1, 1)
        both = np.concatenate([mean, deviation])
        pooled = {
            "mean, deviation": both,
            "mean, deviation, maximum, change": np.concatenate([both, self._most, change]),
        }
        for number, means in self._segments.items():
            pooled[f"{number} segments of time"] = np.asarray(means).reshape(-1)
        return {name: values[None].astype(np.float32) for name, values in pooled.items()}
