"""A checkpoint as a folder that transformers loads, and its comparison with the checkpoint."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from ..data.files import drafted, name_draft, replacing
from ..data.sources import read_audio
from ..inference.clips import Clip, naming_clip
from ..inference.loaded import Loaded
from ..inference.portable import Difference, portable_state, summarise
from ..safetensors_files import read_weights, write_weights
from .card import write_card
from .copied_code import copy_code
from .description import (
    CARD,
    CONFIG,
    INPUT,
    SINGLE_LABEL,
    WEIGHTS,
    describe_input,
    describe_model,
)
from .names import PREFIX, name_in_folder


def write_folder(
    out: Path,
    state: Mapping[str, Any],
    loaded: Loaded,
    clips: Sequence[Clip],
    metrics: Mapping[str, Any] | None,
) -> Difference:
    """Write a folder, completely or not at all; compare it with the checkpoint before.

    Args:
        out: the folder, new or empty.
        state: the result of ``read_checkpoint``.
        loaded: the same checkpoint.
        clips: those to compare on.
        metrics: of ``eat evaluate``, for the model card.

    Raises:
        OSError: it cannot be written.
        ValueError: the folder would compute something else.
        ModuleNotFoundError: the package safetensors is not installed.
    """
    draft = name_draft(out)
    draft.mkdir(parents=True)
    try:
        _write_files(draft, state, loaded, metrics)
        difference = compare_folder(draft, loaded, clips)
        difference.check(str(out))
        os.replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return difference


def _write_files(
    folder: Path, state: Mapping[str, Any], loaded: Loaded, metrics: Mapping[str, Any] | None
) -> None:
    is_classifier = loaded.labels is not None
    weights = {
        name_in_folder(name, is_classifier): value.float()
        for name, value in portable_state(state, loaded)["model"].items()
    }
    with drafted(folder / WEIGHTS) as draft:
        write_weights(draft, weights, {})
    config = describe_model(loaded)
    texts = {
        CONFIG: json.dumps(config, indent=2) + "\n",
        INPUT: json.dumps(describe_input(loaded), indent=2) + "\n",
        CARD: write_card(state, loaded, config, metrics),
        **copy_code(),
    }
    for name, text in texts.items():
        with replacing(folder / name) as file:
            file.write(text.encode())


@torch.inference_mode()
def compare_folder(folder: Path, loaded: Loaded, clips: Sequence[Clip]) -> Difference:
    """Compare front end, network and weights of a folder with the checkpoint's, without padding.

    The folder's own code runs, but for the three files that import transformers.
    """
    config, takes = (json.loads((folder / name).read_bytes()) for name in (CONFIG, INPUT))
    with _imported(folder, "network_eat", "data_frontend") as (code, front_end_code):
        options = SimpleNamespace(**{**code.DEFAULTS, **config})
        network = code.EATNetwork(options, len(config.get("id2label", ()))).eval()
        names = front_end_code.FrontEnd.__dataclass_fields__
        values = {name: takes[name] for name in names}
        values.update({n: tuple(v) for n, v in values.items() if isinstance(v, list)})
        front_end = front_end_code.FrontEnd(**values)
    weights, _ = read_weights(folder / WEIGHTS)
    network.load_state_dict({name[len(PREFIX) :]: value for name, value in weights.items()})
    found = []
    for clip in clips:
        with naming_clip(clip) as entry:
            waveform, rate = read_audio(entry, channels=front_end.channels)
        result = network(front_end(waveform, rate)[None])
        source, scores = loaded.spectrogram(clip)[None], None
        if result.logits is not None:
            single = config["problem_type"] == SINGLE_LABEL
            other = result.logits.softmax(-1) if single else result.logits.sigmoid()
            scores = loaded.predict(source), other
        found.append(((loaded.features(source, "all"), result.states[-1]), scores))
    return summarise(found)


@contextmanager
def _imported(folder: Path, *names: str) -> Iterator[list[ModuleType]]:
    """Import files of a folder, without traces in it or in this process."""
    package = f"_{folder.name.strip('.').replace('.', '_')}"
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = [os.fspath(folder)]
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield [importlib.import_module(f"{package}.{name}") for name in names]
    finally:
        sys.dont_write_bytecode = before
        for name in [n for n in sys.modules if n.partition(".")[0] == package]:
            del sys.modules[name]
