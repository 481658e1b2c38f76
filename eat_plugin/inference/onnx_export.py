"""A model as an ONNX graph, and its comparison with the checkpoint by ONNX Runtime."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..data.frames import MEL_BINS, SAMPLE_RATE
from ..data.resampling import resample
from ..data.sources import read_audio
from ..models.classifier import EatClassifier
from ..sections import plain
from .clips import Clip, naming_clip
from .loaded import Loaded
from .onnx_front_end import GRAPHS
from .portable import Difference, summarise

OPSET = 18
OLDEST_TORCH = (2, 9)  # whose exporter keeps sizes dynamic
SPECTROGRAM, WAVEFORM, TOKENS, PROBABILITIES = "spectrogram", "waveform", "tokens", "probabilities"
WAVEFORM_TOLERANCE = 1e-3  # see KaldiGraph
DESCRIPTION = "eat_plugin"  # entry of the metadata: the front end and the labels, as JSON


class Graph(nn.Module):
    """From spectrograms, or waveforms, to tokens, and to probabilities with a classifier."""

    def __init__(self, loaded: Loaded, waveform: bool) -> None:
        super().__init__()
        self.front_end = GRAPHS[loaded.front_end.kind](loaded.front_end) if waveform else None
        self.model, self.encoder = loaded.model, loaded.encoder

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 1, T, F], or samples [B, n], to [B, E + L, D], and [B, classes]."""
        if self.front_end is not None:
            source = self.front_end(source)
        x = self.encoder.block_outputs(source)[-1]
        if not isinstance(self.model, EatClassifier):
            return (x,)
        logits = self.model.classify(x, self.encoder.patch_encoder.grid_of(source))
        return x, self.model.probabilities(logits)


def export_onnx(loaded: Loaded, path: str | os.PathLike[str], waveform: bool = False) -> None:
    """Write a model as an ONNX graph; batch and time may have any size, T whole patches.

    Input ``spectrogram`` float32 [B, 1, T, 128], normalised, time before mel. With ``waveform``
    the front end is in the graph: input ``waveform`` float32 [B, n], samples at 16 kHz, 400 or more
    (513 with ``task.frontend=db``); those after the window have no effect. Outputs ``tokens``
    [B, E + L, D] of the last block, and with a classifier ``probabilities`` [B, classes].

    Raises:
        ModuleNotFoundError: onnx, onnxruntime or onnxscript is not installed.
        ValueError: PyTorch is too old, or the front end cannot be in a graph.
        OSError: the file cannot be written.
    """
    import onnx  # noqa: F401, the exporter needs these two, the comparison the third
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        needed = ".".join(map(str, OLDEST_TORCH))
        raise ValueError(f"--format onnx needs PyTorch {needed}; this is {torch.__version__}")
    graph = Graph(loaded, waveform).eval()
    example, time = _example(loaded, waveform)
    names = [TOKENS] if loaded.labels is None else [TOKENS, PROBABILITIES]
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph, (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[WAVEFORM if waveform else SPECTROGRAM], output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1), **time},),
        )  # fmt: skip
        program.model.metadata_props[DESCRIPTION] = json.dumps(describe(loaded))
        program.save(os.fspath(path), external_data=False)


def _example(loaded: Loaded, waveform: bool) -> tuple[Tensor, dict[int, Any]]:
    """Return an input, and which of its dimensions is time."""
    if waveform:
        samples = torch.export.Dim("samples", min=GRAPHS[loaded.front_end.kind].least)
        return torch.zeros(2, 3 * SAMPLE_RATE // 2 + 7), {1: samples}
    columns = loaded.front_end.target_length // loaded.patch
    time = loaded.patch * torch.export.Dim("columns", min=1, max=_most_columns(loaded))
    return torch.zeros(2, 1, loaded.patch * columns, MEL_BINS), {2: time}


def _most_columns(loaded: Loaded) -> int | None:
    """Return the time steps at which the table of positions ends; None without a table."""
    patches = loaded.encoder.patch_encoder
    return None if patches.fixed_positional_encoder is None else patches.cfg.max_length


def describe(loaded: Loaded) -> dict[str, Any]:
    """Return how the input is made, and the meaning of the outputs."""
    labels = loaded.labels
    return {
        "front_end": plain(loaded.front_end), "sample_rate": SAMPLE_RATE, "patch": loaded.patch,
        "extra_tokens": loaded.encoder.num_extra_tokens,
        "labels": None if labels is None else {"ids": labels.ids, "names": labels.names},
    }  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of PyTorch's own operators."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def compare_onnx(
    path: str | os.PathLike[str], loaded: Loaded, clips: Sequence[Clip], waveform: bool = False
) -> Difference:
    """Compare a graph with the checkpoint: each clip, all in a batch, and half of each clip.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    found = []
    (name,) = (each.name for each in session.get_inputs())
    inputs = _waveforms(loaded, clips) if waveform else _spectrograms(loaded, clips)
    for given, source in inputs:
        tokens, *rest = map(torch.from_numpy, session.run(None, {name: given.numpy()}))
        scores = (loaded.predict(source), rest[0]) if rest else None
        found.append(((loaded.features(source, "all"), tokens), scores))
    return summarise(found)._replace(clips=len(clips))


def _spectrograms(loaded: Loaded, clips: Sequence[Clip]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs of the graph, and of the checkpoint."""
    single = [loaded.spectrogram(clip)[None] for clip in clips]
    batch = torch.cat([each for each in single if each.shape == single[0].shape])
    for source in (*single, batch):
        half = max(source.shape[2] // (2 * loaded.patch), 1) * loaded.patch
        for part in (source, source[:, :, :half].contiguous()):
            yield part, part


def _waveforms(loaded: Loaded, clips: Sequence[Clip]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield samples at 16 kHz [B, n], and the spectrograms of the checkpoint's front end."""
    front_end = loaded.front_end
    for clip in clips:
        with naming_clip(clip) as entry:
            samples, rate = read_audio(entry, channels=front_end.channels)
        samples = resample(samples, rate)
        half = samples[: max(len(samples) // 2, GRAPHS[front_end.kind].least)]
        for batch in (samples[None], torch.stack([half, half.flip(0)])):
            spectrograms = [front_end(row, SAMPLE_RATE) for row in batch]
            yield batch.contiguous(), torch.stack(spectrograms)
