"""The cases of `eat bench` of clips in a store: data workers read through a local HTTP server."""

from __future__ import annotations

import multiprocessing
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.masking import MaskSpec
from eat_plugin.tasks.dataset import ClipDataset

from .front_end import AUDIOSET, FRAMES, GRID, MASKS, SECONDS, write_clip
from .range_server import serving
from .timing import Case, Form, Place, Prepare

BATCH, BATCHES, SHARDS = 12, 16, 4


def storing(workers: int, is_cached: bool) -> Prepare:
    """Return the case of an epoch of a loader; ``is_cached``: the clips have been fetched."""

    def prepare(place: Place) -> Case:
        from eat_plugin import cli

        clips, cache = _write_shards(place.folder), place.folder / "cache"
        os.environ["EAT_REMOTE_CACHE"] = str(cache)
        url = _start_server(clips)
        for source, out in ((str(clips), "local"), (url, "remote")):
            arguments = ["manifest", source, "--out", str(place.folder / out), "--workers", "1"]
            if cli.main(arguments):
                raise RuntimeError(f"eat manifest cannot list {source}")

        def read_epoch(loader: DataLoader[Any], emptied: bool) -> Tensor:
            if emptied:
                for path in cache.glob("*/*"):
                    path.unlink()
            return torch.stack([batch["net_input"]["source"].sum() for batch in loader])

        def make(name: str, emptied: bool) -> Form:
            def read() -> Any:
                loader = _make_loader(place.folder / name / "train.tsv", workers)
                return lambda: read_epoch(loader, emptied)

            return Form(read)

        of = f"{BATCH * BATCHES} clips of {SECONDS} s of wav at 32 kHz in tar"
        how = "fetched before" if is_cached else "fetched now"
        return Case(
            f"load {of} by {workers} data worker(s): over HTTP, {how}; plain: of the disk",
            make("local", emptied=False),
            make("remote", emptied=not is_cached),
            clips=BATCH * BATCHES,
            most_rounds=20,
        )

    return prepare


def _write_shards(folder: Path) -> Path:
    clips, clip = folder / "shards", write_clip(folder, "wav")
    clips.mkdir(exist_ok=True)
    for shard in range(SHARDS):
        with tarfile.open(clips / f"{shard}.tar", "w") as archive:
            for number in range(BATCH * BATCHES // SHARDS):
                archive.add(clip, f"{shard}-{number}.wav")
    return clips


def _start_server(folder: Path) -> str:
    """Start a server in a process of its own, which ends with this one; return its address."""
    here, there = multiprocessing.Pipe()
    multiprocessing.Process(target=_serve, args=(folder, there), daemon=True).start()
    return here.recv()


def _serve(folder: Path, pipe: Any) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(folder))
        pipe.send(server.url)
        pipe.poll(None)  # until the other end is closed


def _make_loader(manifest: Path, workers: int) -> DataLoader[Any]:
    reader = SpectrogramReader(read_manifest(manifest), FrontEnd(FRAMES, *AUDIOSET))
    dataset = ClipDataset(reader, masks=MaskSpec(GRID), num_masks=MASKS)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # fairseq's class is one too
        batch_sampler=batches,
        collate_fn=dataset.collater,
        num_workers=workers,
        persistent_workers=True,
    )


CASES: dict[str, Prepare] = {
    "store_1": storing(1, is_cached=False),
    "store_2": storing(2, is_cached=False),
    "store_1_cached": storing(1, is_cached=True),
    "store_2_cached": storing(2, is_cached=True),
}
