"""A model ready for use: predictions and features of clips and of long recordings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ..choices import ALONG_TIME, DEFAULT_BATCH, GRANULARITIES
from ..data.clip import ClipError
from ..data.entries import Clip, Entry, locate
from ..data.frames import FRAMES_A_SECOND
from ..data.frontend import FrontEnd
from ..data.label_set import LabelSet
from ..data.reader import read_window, spread_windows
from ..data.sources import probe_clip
from ..models.classifier import EatClassifier
from ..models.encoder import EatEncoder
from .batches import Job, Result, compute_batches, list_jobs
from .windows import ClipLayout, Window, Windowing

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd


class ClipFeatures(NamedTuple):
    """The features of a recording, float32, see ``ClipLayout``.

    The centres of the columns are in seconds, for ``frame`` and ``grid`` of sound; else None.
    """

    x: np.ndarray
    times: np.ndarray | None


@dataclass(frozen=True)
class Loaded:
    """A model of sound with everything that its use needs; ``LoadedImages`` is one of images.

    Attributes:
        path: the checkpoint.
        model: in evaluation mode; an ``EatModel`` or an ``EatClassifier``.
        encoder: the model itself, or the classifier's encoder.
        front_end: computes spectrograms as in training.
        images: reads images as in training; None for a model of sound.
        labels: the classes in the order of the outputs; None for a pre-trained model.
        single_label: each clip has exactly one class.
        cfg: fairseq's whole configuration.
    """

    path: str
    model: nn.Module
    encoder: EatEncoder
    front_end: FrontEnd
    images: ImageFrontEnd | None
    labels: LabelSet | None
    single_label: bool
    cfg: DictConfig

    @property
    def eval_windows(self) -> int:
        """Windows of a long clip over which scores are averaged; 0: its start alone is scored."""
        task = self.cfg.task
        return int(task.eval_windows) if task.get("length", "pad") == "crop" else 0

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def patch(self) -> int:
        """Frames of a patch (rows of an image)."""
        return self.encoder.patch_encoder.cfg.patch_size

    def spectrogram(self, clip: Clip) -> Tensor:
        """Compute the spectrogram [1, T, F] of the start of a clip, as in training.

        For a model trained with ``task.length=mask``, T is the clip's own length in whole patches.

        Raises:
            ValueError: the clip cannot be used, or the model takes images.
        """
        with naming_clip(clip) as entry:
            return read_window(entry, self.front_end)

    def image(self, clip: Clip) -> Tensor:
        """Read the middle of an image [C, H, W], as in validation.

        Raises:
            ValueError: the image cannot be used, or the model takes sound.
        """
        raise ValueError(f"{self.path} is a model of sound; read clips with spectrogram()")

    def probe(self, clip: Clip) -> tuple[int, int]:
        """Read samples and rate (pixels and 0) from a header; raise ClipError if it is invalid."""
        return probe_clip(clip)

    def require_labels(self) -> LabelSet:
        """Return the labels; raise ValueError if the model is not a classifier."""
        if self.labels is None:
            raise ValueError(
                f"{self.path} is a pre-trained checkpoint without a classifier; fine-tune it first"
            )
        return self.labels

    @torch.no_grad()
    def predict(self, source: Tensor) -> Tensor:
        """Compute the probabilities of all classes.

        Args:
            source: spectrograms [B, 1, T, F], time before mel, or images [B, C, H, W].

        Returns:
            [B, classes]; each row sums to 1 if the model was trained with cross-entropy.

        Raises:
            ValueError: the model is not a classifier, or the input does not fit it.
        """
        self.require_labels()
        assert isinstance(self.model, EatClassifier)
        # A model may be configured for mel-major input; the front end is always time-major.
        logits = self.model(self.encoder.time_major(source.to(self.device))).float()
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"{self.path} gives scores that are not finite; check its weights")
        return logits.softmax(-1) if self.model.objective.loss == "ce" else logits.sigmoid()

    @torch.no_grad()
    def features(
        self, source: Tensor, granularity: str = "utterance", layer: int | str = -1
    ) -> Tensor:
        """Compute features.

        Args:
            source: spectrograms [B, 1, T, F], time before mel, or images [B, C, H, W], with rows
                for frames and columns for mel bins. p is the patch size, E the number of extra
                tokens (1: CLS), L = (T/p)(F/p) the number of patches.
            granularity: ``utterance``, the CLS token (mean over patches in a model without one);
                ``frame``, the mean over the mel axis; ``all`` tokens; ``grid``, the patches.
            layer: N from 1, the output of block N after its last norm; negative from the end;
                ``mean``, the mean over blocks; ``all`` blocks.

        Returns:
            ``utterance`` [B, D], ``frame`` [B, T/p, D], ``all`` [B, E + L, D] or ``grid``
            [B, T/p, F/p, D]; [B, depth, ...] for all layers.

        Raises:
            ValueError: an argument is unknown, or the input does not fit the model.
        """
        self.check_features(granularity, layer)
        outputs = self.encoder.block_outputs(source.to(self.device))  # each [B, E + L, D]
        if layer == "all":
            x = torch.stack(outputs, dim=1)  # [B, depth, E + L, D]
        elif layer == "mean":
            x = torch.stack(outputs).mean(dim=0)
        else:
            number = int(layer)
            x = outputs[number - 1 if number > 0 else number]
        extra = self.encoder.num_extra_tokens
        if granularity == "all":
            return x
        if granularity == "utterance":
            return x[..., extra - 1, :] if extra else x.mean(dim=-2)
        grid = x[..., extra:, :].unflatten(-2, self.encoder.patch_encoder.grid_of(source))
        return grid if granularity == "grid" else grid.mean(dim=-2)

    def check_features(self, granularity: str, layer: int | str) -> None:
        """Raise ValueError for a granularity or a layer that ``features`` does not know."""
        if granularity not in GRANULARITIES:
            raise ValueError(
                f"the granularity is {granularity!r}; choose one of {', '.join(GRANULARITIES)}"
            )
        depth = len(self.encoder.blocks)
        if layer not in ("all", "mean", *range(1, depth + 1), *range(-depth, 0)):
            raise ValueError(
                f"the layer is {layer!r}; choose 1 to {depth}, -1 to -{depth}, mean or all"
            )

    def windowing(self, window: float | None = None, hop: float | None = None) -> Windowing:
        """Choose windows that fit the model.

        Args:
            window: length in seconds, rounded up to whole patches; None for that of training.
            hop: seconds from the start of a window to the next start; None for the window's length.

        Raises:
            ValueError: a length is not positive, the window is longer than the position table, or
                the model takes images.
        """
        chosen = Windowing.from_seconds(window, hop, self.patch, self.front_end.target_length)
        patches = self.encoder.patch_encoder
        longest = patches.cfg.max_length * self.patch
        if patches.fixed_positional_encoder is not None and chosen.frames > longest:
            raise ValueError(
                f"the window is {chosen.seconds} s; the position table of this model ends at "
                f"{longest / FRAMES_A_SECOND} s"
            )
        return chosen

    def plan(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Lay windows over a recording, see ``Windowing.plan``; an image is one window."""
        return windowing.plan(num_samples, sample_rate)

    def plan_scores(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Choose the windows of a recording whose scores validation averages."""
        if not self.eval_windows:
            return self.plan(windowing, num_samples, sample_rate)[:1]
        starts = spread_windows(num_samples, sample_rate, windowing.frames, self.eval_windows)
        return [Window(start, 0, windowing.frames // windowing.patch) for start in starts]

    def times(self, windowing: Windowing, windows: list[Window]) -> np.ndarray | None:
        """Return the centres of all valid columns in seconds; None for images."""
        return windowing.times(windows)

    def read_job(self, job: Job, windowing: Windowing) -> Tensor:
        """Read the input [C, T, F] of a window."""
        front_end = replace(self.front_end, target_length=windowing.frames)
        return read_window(job.entry, front_end, job.start)

    def map_windows(
        self,
        jobs: Iterable[Job],
        windowing: Windowing,
        function: Callable[[Tensor], Tensor],
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[Result]:
        """Apply a function to many windows of many recordings, batch by batch.

        It maps spectrograms [B, 1, T, F] to [B, ...], as ``predict`` does. The results depend on
        ``batch_size`` by rounding alone.

        Yields:
            Each window in order with its row of the results, float32, or with the error of its
            recording, whose further windows are left out.
        """
        read = partial(self.read_job, windowing=windowing)
        return compute_batches(jobs, read, function, batch_size)

    def extract(
        self,
        path: str | os.PathLike[str],
        granularity: str = "utterance",
        layer: int | str = -1,
        window: float | None = None,
        hop: float | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> ClipFeatures:
        """Compute the features of a whole recording (or image), window by window.

        The arguments are those of ``features``, ``windowing`` and ``map_windows``.

        Raises:
            ValueError: the recording cannot be used, or an argument is invalid.
        """
        self.check_features(granularity, layer)
        windowing = self.windowing(window, hop)
        x = None
        with naming_clip(path) as entry:
            windows = self.plan(windowing, *self.probe(entry))
            layout = ClipLayout(windows, granularity in ALONG_TIME, layer == "all")
            compute = partial(self.features, granularity=granularity, layer=layer)
            jobs = list_jobs([(entry, windows)])
            for job, row in self.map_windows(jobs, windowing, compute, batch_size):
                if isinstance(row, ClipError):
                    raise row
                if x is None:
                    x = np.empty(layout.shape(row.shape), dtype=np.float32)
                layout.put(x, job.number, row)
        assert x is not None
        along_time = granularity in ALONG_TIME
        return ClipFeatures(x, self.times(windowing, windows) if along_time else None)


@contextmanager
def naming_clip(clip: Clip) -> Iterator[Entry]:
    """Yield the entry of a clip; turn a ClipError into a ValueError that names it."""
    entry = locate(clip)
    try:
        yield entry
    except ClipError as error:
        raise ValueError(f"{entry.path}: {error}") from error
