"""A model ready for use: predictions and features of clips and of long recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..choices import DEFAULT_BATCH, GRANULARITIES
from ..data.frames import FRAMES_A_SECOND
from ..data.frontend import FrontEnd
from ..data.label_set import LabelSet
from ..data.reader import read_window, spread_windows
from ..data.sources import probe_clip
from ..models.classifier import EatClassifier
from ..models.encoder import EatEncoder
from ..options import patch_sides
from .batches import Job, Result, compute_batches
from .clips import Clip, check_batch, locate_clip, locate_clips, naming_clip
from .recordings import ClipFeatures, extract_recordings, score_recordings
from .windows import Window, Windowing

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd


@dataclass(frozen=True, repr=False)
class Loaded:
    """A model of sound with everything that its use needs; ``LoadedImages`` is one of images.

    A clip is a path, or ``(samples, rate)``: samples `[n]` or `[channels, n]`, a NumPy array or a
    tensor, float with full scale at 1 or int16; the rate in Hz. Results equal those of a file with
    these samples. Methods that take a list of clips return a result per clip; their lengths may
    differ.

    Attributes:
        path: the checkpoint.
        model: in evaluation mode; an ``EatModel`` or an ``EatClassifier``.
        encoder: the model itself, or the classifier's encoder.
        front_end: computes spectrograms as in training.
        images: reads images as in training; None for a model of sound.
        labels: the classes in the order of the outputs; None for a pre-trained model.
        single_label: each clip has exactly one class.
        cfg: fairseq's whole configuration, as the checkpoint holds it.
        record: of its training, see ``eat_plugin.reproduction``; None if the checkpoint has none.
    """

    path: str
    model: nn.Module
    encoder: EatEncoder
    front_end: FrontEnd
    images: ImageFrontEnd | None
    labels: LabelSet | None
    single_label: bool
    cfg: Mapping[str, Any]
    record: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        kind = "pre-trained" if self.labels is None else f"classifier of {len(self.labels)} classes"
        takes = f"window {self.front_end.target_length / FRAMES_A_SECOND:g} s"
        if self.images is not None:
            takes = "images {} x {}".format(*self.images.size)
        size = f"width {self.encoder.cfg.embed_dim} x depth {len(self.encoder.blocks)}"
        return f"<EAT {kind}: {self.path}, {size}, {takes}, {self.device}>"

    @property
    def eval_windows(self) -> int:
        """Windows of a long clip over which scores are averaged; 0: its start alone is scored."""
        task = self.cfg["task"]
        return int(task.get("eval_windows", 0)) if task.get("length", "pad") == "crop" else 0

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def patch(self) -> int:
        """Frames of a patch (rows of an image)."""
        return patch_sides(self.encoder.patch_encoder.cfg.patch_size)[0]

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
        return probe_clip(locate_clip(clip))

    def require_labels(self) -> LabelSet:
        """Return the labels; raise ValueError if the model is not a classifier."""
        if self.labels is None:
            raise ValueError(
                f"{self.path} is a pre-trained checkpoint without a classifier; fine-tune it first"
            )
        return self.labels

    @torch.no_grad()
    def predict(self, source: Tensor | Clip | list[Clip]) -> Tensor:
        """Compute the probabilities of all classes, in the order of ``labels``.

        A clip longer than a window is scored by its start, as in validation; a model trained with
        ``task.length=crop`` averages several windows. See also ``inference.detect``.

        Args:
            source: a clip, a list of clips, spectrograms [B, 1, T, F], time before mel, or images
                [B, C, H, W].

        Returns:
            [classes] for one clip, else [B, classes]; they sum to 1 if the model was trained with
            cross-entropy. A model of time steps gives [B, T/p, classes] for spectrograms.

        Raises:
            ValueError: the model is not a classifier, the input does not fit it, or a clip cannot
                be used.
        """
        self.require_labels()
        if not isinstance(source, Tensor):
            scores = torch.from_numpy(score_recordings(self, locate_clips(source)))
            return scores if isinstance(source, list) else scores[0]
        assert isinstance(self.model, EatClassifier)
        # A model may be configured for mel-major input; the front end is always time-major.
        source = self.encoder.time_major(check_batch(source).to(self.device))
        logits = self.model(source).float()
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"{self.path} gives scores that are not finite; check its weights")
        return self.model.probabilities(logits)

    @overload
    def features(
        self, source: Tensor | Clip, granularity: str = ..., layer: int | str = ...
    ) -> Tensor: ...
    @overload
    def features(
        self, source: list[Clip], granularity: str = ..., layer: int | str = ...
    ) -> list[Tensor]: ...
    @torch.no_grad()
    def features(
        self,
        source: Tensor | Clip | list[Clip],
        granularity: str = "utterance",
        layer: int | str = -1,
    ) -> Tensor | list[Tensor]:
        """Compute features.

        Args:
            source: a clip, a list of clips, spectrograms [B, 1, T, F], time before mel, or images
                [B, C, H, W], with rows for frames and columns for mel bins. A patch has p frames
                and q mel bins, E is the number of extra tokens (1: CLS), L = (T/p)(F/q) that of
                patches.
            granularity: ``utterance``, the CLS token (mean over patches in a model without one);
                ``frame``, the mean over the mel axis; ``all`` tokens; ``grid``, the patches.
            layer: N from 1, the output of block N after its last norm; negative from the end;
                ``mean``, the mean over blocks; ``all`` blocks.

        Returns:
            ``utterance`` [B, D], ``frame`` [B, T/p, D], ``all`` [B, E + L, D] or ``grid``
            [B, T/p, F/q, D]; [B, depth, ...] for all layers. For clips, ``x`` of ``extract``.

        Raises:
            ValueError: an argument is unknown, the input does not fit the model, or a clip cannot
                be used.
        """
        self.check_features(granularity, layer)
        if not isinstance(source, Tensor):
            found = self.extract(source, granularity, layer)
            if isinstance(found, ClipFeatures):
                return torch.from_numpy(found.x)
            return [torch.from_numpy(each.x) for each in found]
        outputs = self.encoder.block_outputs(check_batch(source).to(self.device))  # [B, E + L, D]
        if layer == "all":
            x = torch.stack(outputs, dim=1)  # [B, depth, E + L, D]
        elif layer == "mean":
            x = torch.stack(outputs).mean(dim=0)
        else:
            x = outputs[int(layer) - (int(layer) > 0)]
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{self.path} gives features that are not finite; check its weights")
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
        front_end = replace(self.front_end, target_length=windowing.frames)
        starts = spread_windows(num_samples, sample_rate, front_end, self.eval_windows)
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
        clip: Clip | list[Clip],
        granularity: str = "utterance",
        layer: int | str = -1,
        window: float | None = None,
        hop: float | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> ClipFeatures | list[ClipFeatures]:
        """Compute the features of whole recordings (or images), window by window.

        A list of clips gives a list. The arguments are those of ``features``, ``windowing`` and
        ``map_windows``.

        Raises:
            ValueError: a recording cannot be used, or an argument is invalid.
        """
        windowing, entries = self.windowing(window, hop), locate_clips(clip)
        arguments = entries, granularity, layer, windowing, batch_size
        found = list(extract_recordings(self, *arguments))
        return found if isinstance(clip, list) else found[0]
