"""Checks of the data folder at start, in one line each."""

import os
from pathlib import Path
from typing import Any

from ..data.manifest import Manifest, read_manifest, read_root
from ..data.overlap import TRAIN, check_held_out
from ..options import explain_path
from .run_config import RunConfig

ADVICE = "set it to the absolute path of a folder made by eat manifest"


def check_folder(run: RunConfig) -> None:
    """Raise ValueError if ``task.data`` is not a folder."""
    if run.get("dataset.train_subset") is None:  # no run
        return
    data: Any = run.get("task.data")
    if data is None:
        raise ValueError(f"task.data is not set; {ADVICE}")
    if not os.path.isdir(data):
        is_other = os.path.exists(data)
        problem = f"is not a folder; {ADVICE}" if is_other else explain_path(data, ADVICE)
        raise ValueError(f"task.data is {data!r}, which {problem}")


def check_manifest(run: RunConfig) -> None:
    """Raise ValueError if the manifest to train on, or the folder of its clips, does not exist.

    Not in the constructor of a task: fairseq 0.12.2 does not say that it only loads a checkpoint.
    """
    check_folder(run)
    split, data = run.get("dataset.train_subset"), run.get("task.data")
    if split is None:  # no run
        return
    manifest = Path(data) / f"{split}.tsv"
    if not manifest.is_file():
        seen_from = "" if os.path.isabs(data) else f" in the folder of the run, {os.getcwd()}"
        raise ValueError(f"task.data is {data!r}{seen_from}, and has no {manifest.name}; {ADVICE}")
    read_root(manifest)


def read_split(path: Path) -> Manifest:
    """Read the manifest of a split.

    Raises:
        ValueError: there is none, it is invalid, or an archive has changed since it was written.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no {os.path.abspath(path)}; hold out clips with eat manifest --valid or "
            "--fold, name another split in dataset.valid_subset, or set "
            "dataset.disable_validation=true"
        )
    manifest = read_manifest(path)
    archives = path.with_suffix(".archives")
    if archives.exists():
        from ..data.fingerprints import check_archives

        check_archives(archives, manifest.root)
    return manifest


def check_splits(run: RunConfig, folder: Path) -> None:
    """Compare the split to train on with the held-out splits of the folder and of the run.

    Every rank does so, and stops if they share clips.

    Raises:
        ValueError: they share a clip.
    """
    validates = not run.get("dataset.disable_validation")
    subsets = run.get("dataset.valid_subset") if validates else None
    train = run.get("dataset.train_subset") or TRAIN
    check_held_out(folder, str(subsets or "").split(","), train)
