"""A model as an ONNX graph, and its comparison with the checkpoint by ONNX Runtime."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.frames import MEL_BINS, SAMPLE_RATE
from ..models.classifier import EatClassifier
from ..sections import plain
from .clips import Clip
from .loaded import Loaded
from .portable import Difference, stack_clips, summarise

OPSET = 18
OLDEST_TORCH = (2, 9)  # whose exporter keeps sizes dynamic
INPUT, TOKENS, PROBABILITIES = "spectrogram", "tokens", "probabilities"
DESCRIPTION = "eat_plugin"  # entry of the metadata: the front end and the labels, as JSON


class Graph(nn.Module):
    """From spectrograms to tokens, and to probabilities with a classifier."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.model, self.encoder = loaded.model, loaded.encoder

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 1, T, F] to [B, E + L, D], and [B, classes]."""
        source = spectrogram
        x = self.encoder.block_outputs(source)[-1]
        if not isinstance(self.model, EatClassifier):
            return (x,)
        logits = self.model.classify(x, self.encoder.patch_encoder.grid_of(source))
        return x, self.model.probabilities(logits)


def export_onnx(loaded: Loaded, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX graph; batch and time may have any size, T whole patches.

    Input ``spectrogram`` float32 [B, 1, T, 128], normalised, time before mel. Outputs ``tokens``
    [B, E + L, D] of the last block, and with a classifier ``probabilities`` [B, classes].

    Raises:
        ModuleNotFoundError: onnx, onnxruntime or onnxscript is not installed.
        ValueError: PyTorch is too old.
        OSError: the file cannot be written.
    """
    import onnx  # noqa: F401, the exporter needs these two, the comparison the third
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        needed = ".".join(map(str, OLDEST_TORCH))
        raise ValueError(f"--format onnx needs PyTorch {needed}; this is {torch.__version__}")
    patches = loaded.encoder.patch_encoder
    patch, columns = loaded.patch, loaded.front_end.target_length // loaded.patch
    time = patch * torch.export.Dim("columns", min=1, max=_most_columns(loaded))
    example = torch.zeros(2, patches.cfg.in_chans, patch * columns, MEL_BINS)
    names = [TOKENS] if loaded.labels is None else [TOKENS, PROBABILITIES]
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            Graph(loaded).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[INPUT], output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1), 2: time},),
        )  # fmt: skip
        program.model.metadata_props[DESCRIPTION] = json.dumps(describe(loaded))
        program.save(os.fspath(path), external_data=False)


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
    path: str | os.PathLike[str], loaded: Loaded, clips: Sequence[Clip]
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
    for source in _sizes(loaded, clips):
        tokens, *rest = map(torch.from_numpy, session.run(None, {INPUT: source.numpy()}))
        scores = (loaded.predict(source), rest[0]) if rest else None
        found.append(((loaded.features(source, "all"), tokens), scores))
    return summarise(found)._replace(clips=len(clips))


def _sizes(loaded: Loaded, clips: Sequence[Clip]) -> list[Tensor]:
    sources = stack_clips(loaded, clips)
    halves = [
        source[:, :, : max(source.shape[2] // (2 * loaded.patch), 1) * loaded.patch]
        for source in sources
    ]
    return [torch.from_numpy(np.ascontiguousarray(each)) for each in (*sources, *halves)]
