"""A model that is ready for use: predictions, features, long recordings.

In this file:
    Loaded          model, labels and inputs, and what they can do
    ClipFeatures    the features of a recording
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ..data.clip import ClipError
from ..data.frontend import FrontEnd
from ..data.label_set import LabelSet
from ..data.reader import spread_windows
from ..models.classifier import EatClassifier
from ..models.encoder import EatEncoder
from .inputs import Inputs, errors_naming
from .windows import ClipLayout, Job, Window, Windowing

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd

GRANULARITIES = ("utterance", "frame", "all", "grid")
ALONG_TIME = ("frame", "grid")  # their windows are joined to one axis
DEFAULT_BATCH = 8  # windows


class ClipFeatures(NamedTuple):
    """The features of a recording.

    Attributes:
        x: float32, see ``ClipLayout``.
        times: centres of the columns in seconds, of ``frame`` and ``grid`` of sound; None
            otherwise.
    """

    x: np.ndarray
    times: np.ndarray | None


@dataclass(frozen=True)
class Loaded:
    """A model ready for use, with all that belongs to it.

    Attributes:
        path: the checkpoint.
        model: in evaluation mode; an ``EatModel`` or an ``EatClassifier``.
        encoder: the model itself, or the classifier's encoder.
        front_end: makes the model's input of sound, as it was made in training.
        images: makes it of images; None for a model of sound.
        inputs: what it takes, sound or images.
        labels: the classes in the order of a classifier's outputs; None for a pre-trained model.
        single_label: each clip has exactly one of them.
        cfg: fairseq's whole configuration.
    """

    path: str
    model: nn.Module
    encoder: EatEncoder
    front_end: FrontEnd
    images: ImageFrontEnd | None
    inputs: Inputs
    labels: LabelSet | None
    single_label: bool
    cfg: DictConfig

    @property
    def eval_windows(self) -> int:
        """Windows of a long clip that scores are averaged over; 0: they go by its start."""
        task = self.cfg.task
        return int(task.eval_windows) if task.get("length", "pad") == "crop" else 0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def spectrogram(self, path: str | os.PathLike[str]) -> Tensor:
        """Compute the spectrogram [1, T, F] of the beginning of a clip, as in training.

        Of a model trained with ``task.length=mask``, T is the clip's own length, in whole patches.

        Raises:
            ValueError: if the clip cannot be used, or the model takes images.
        """
        return self.inputs.spectrogram(path)

    def image(self, path: str | os.PathLike[str]) -> Tensor:
        """Read the middle of an image [C, H, W], as validation does in training.

        Raises:
            ValueError: if the image cannot be used, or the model takes sound.
        """
        return self.inputs.image(path)

    def probe(self, path: str | os.PathLike[str]) -> tuple[int, int]:
        """Read a file's header: samples and rate of sound, pixels and 0 of an image.

        Raises:
            ClipError: if it makes no sense.
        """
        return self.inputs.probe(path)

    def require_labels(self) -> LabelSet:
        """Return the labels; raise ValueError if the model is no classifier."""
        if self.labels is None:
            raise ValueError(
                f"{self.path} is a pre-trained checkpoint without a classifier; fine-tune it first"
            )
        return self.labels

    @torch.no_grad()
    def predict(self, source: Tensor) -> Tensor:
        """Compute the probability of every class.

        Args:
            source: spectrograms [B, 1, T, F], time before mel, or images [B, C, H, W].

        Returns:
            [B, classes]; each row sums to 1 if the model was trained with cross-entropy.

        Raises:
            ValueError: if the model is no classifier, or the input does not fit it.
        """
        self.require_labels()
        assert isinstance(self.model, EatClassifier)
        # The model takes mel-major input where it was configured so, the front end never gives it.
        logits = self.model(self.encoder.time_major(source.to(self.device))).float()
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"{self.path} gives scores that are no numbers: are its weights?")
        return logits.softmax(-1) if self.model.objective.loss == "ce" else logits.sigmoid()

    @torch.no_grad()
    def features(
        self, source: Tensor, granularity: str = "utterance", layer: int | str = -1
    ) -> Tensor:
        """Compute features.

        Args:
            source: spectrograms [B, 1, T, F], time before mel; p is the patch size, E the number
                of extra tokens (1: CLS), L = (T/p)(F/p) the number of patches. Or images
                [B, C, H, W]: rows count as frames, columns as mel bins.
            granularity: ``utterance``, the CLS token (the mean over patches in a model without
                one); ``frame``, the mean over the mel axis; ``all`` tokens; ``grid``, the patches.
            layer: N from 1, the output of block N after its last norm; negative from the end;
                ``mean``, the mean over blocks; ``all`` blocks.

        Returns:
            ``utterance`` [B, D], ``frame`` [B, T/p, D], ``all`` [B, E + L, D] or ``grid``
            [B, T/p, F/p, D]; [B, depth, ...] for all layers.

        Raises:
            ValueError: if an argument is unknown, or the input does not fit the model.
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
        """Raise ValueError where ``features`` does not know a granularity or a layer."""
        if granularity not in GRANULARITIES:
            raise ValueError(
                f"the granularity is {granularity!r}; choose one of {', '.join(GRANULARITIES)}"
            )
        depth = len(self.encoder.blocks)
        numbers = [*range(1, depth + 1), *range(-depth, 0)]
        if layer not in ("all", "mean", *numbers):
            raise ValueError(
                f"the layer is {layer!r}; choose 1 to {depth}, -1 to -{depth}, mean or all"
            )

    def windowing(self, window: float | None = None, hop: float | None = None) -> Windowing:
        """Choose windows that the model can take.

        Args:
            window: length in seconds, rounded up to whole patches; None for that of training.
            hop: seconds from one window to the next; None for the window's length.

        Raises:
            ValueError: if a length is not positive, or the model's table of positions is shorter,
                or the model takes images, which are seen whole.
        """
        return self.inputs.windowing(window, hop)

    def plan(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Lay windows over a recording, as ``Windowing.plan`` does; an image is one window."""
        return self.inputs.plan(windowing, num_samples, sample_rate)

    def plan_scores(self, windowing: Windowing, num_samples: int, sample_rate: int) -> list[Window]:
        """Choose the windows whose mean score is that of a whole recording, as in validation."""
        if not self.eval_windows:
            return self.plan(windowing, num_samples, sample_rate)[:1]
        starts = spread_windows(num_samples, sample_rate, windowing.frames, self.eval_windows)
        return [Window(start, 0, windowing.frames // windowing.patch) for start in starts]

    def map_windows(
        self,
        jobs: Iterable[Job],
        windowing: Windowing,
        function: Callable[[Tensor], Tensor],
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[tuple[Job, np.ndarray | ClipError]]:
        """Take many windows of many recordings through the model, a few at a time.

        Args:
            jobs: the windows.
            windowing: how they were cut.
            function: as ``predict``; maps spectrograms [B, 1, T, F] to [B, ...].
            batch_size: windows that the model sees at once, of one recording or of several. The
                results do not depend on it, but for rounding.

        Yields:
            Each window in order, with its row of the results, float32, or what is wrong with the
            recording.
        """
        for batch in self.inputs.batches(jobs, windowing, batch_size):
            spectrograms = [found for _, found in batch if isinstance(found, Tensor)]
            rows: Iterator[np.ndarray] = iter(())
            if spectrograms:
                # Stricter than no_grad: what comes of it can be used in no gradient elsewhere.
                with torch.inference_mode():
                    rows = iter(_map_alike(function, spectrograms))
            for job, found in batch:
                yield job, found if isinstance(found, ClipError) else next(rows)

    def extract(
        self,
        path: str | os.PathLike[str],
        granularity: str = "utterance",
        layer: int | str = -1,
        window: float | None = None,
        hop: float | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> ClipFeatures:
        """Compute the features of a whole recording, window by window where it is a long one.

        Args:
            path: audio file, or an image.
            granularity: as for ``features``.
            layer: as for ``features``.
            window: as for ``windowing``.
            hop: as for ``windowing``.
            batch_size: windows that the model sees at once.

        Returns:
            The features, laid out as ``ClipLayout`` says, and the times of the columns of sound.

        Raises:
            ValueError: if the recording cannot be used, or an argument makes no sense.
        """
        self.check_features(granularity, layer)
        windowing = self.windowing(window, hop)
        x = None
        with errors_naming(path):
            windows = self.plan(windowing, *self.probe(path))
            layout = ClipLayout(windows, granularity in ALONG_TIME, layer == "all")
            jobs = (Job(0, number, path, w.start) for number, w in enumerate(windows))
            compute = partial(self.features, granularity=granularity, layer=layer)
            for job, row in self.map_windows(jobs, windowing, compute, batch_size):
                if isinstance(row, ClipError):
                    raise row
                if x is None:
                    x = np.empty(layout.shape(row.shape), dtype=np.float32)
                layout.put(x, job.number, row)
        assert x is not None
        times = self.inputs.times(windowing, windows) if granularity in ALONG_TIME else None
        return ClipFeatures(x, times)


def _map_alike(function: Callable[[Tensor], Tensor], sources: list[Tensor]) -> list[np.ndarray]:
    """Apply a function to a batch; to each length by itself where clips keep their own."""
    alike: dict[torch.Size, list[int]] = {}
    for number, source in enumerate(sources):
        alike.setdefault(source.shape, []).append(number)
    rows: dict[int, np.ndarray] = {}
    for numbers in alike.values():
        results = function(torch.stack([sources[number] for number in numbers]))
        rows.update(zip(numbers, results.float().cpu().numpy()))
    return [rows[number] for number in range(len(sources))]
