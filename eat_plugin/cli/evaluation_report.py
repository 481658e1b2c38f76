"""What every evaluation says of its clips, and writes."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.cli import SOME_FAILED, Failures, say
from eat_plugin.cli.outputs import check_folder
from eat_plugin.data.entries import original_name
from eat_plugin.data.files import replacing
from eat_plugin.data.manifest import Manifest
from eat_plugin.prepare.amounts import count
from eat_plugin.prepare.data_folder import DESCRIPTORS

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded

# Of --out; the metrics are written last.
FILES = (
    "metrics.json", "classes.csv", "classes.png", "missing.tsv", "clips.npz", "record.json",
    "uncovered.txt",
)  # fmt: skip


def exit_code(args: argparse.Namespace, metrics: dict[str, Any]) -> int:
    """Return 1 if more clips are missing than ``--max-missing`` allows, else 0."""
    return SOME_FAILED if metrics["n_missing"] > args.max_missing * metrics["n_listed"] else 0


def describe(
    args: argparse.Namespace,
    loaded: Loaded,
    manifest: Manifest,
    clips: list[int],
    found: dict[str, Any],
) -> dict[str, Any]:
    """Say on what metrics were measured."""
    from eat_plugin.prepare.cache_folder import count_listed

    listed = count_listed(args.data, args.split, manifest)
    # The same checksum for a cache and its audio.
    names = sorted(original_name(manifest.name(clip)) for clip in clips)
    return {
        "on": f"{len(clips)} of {count(listed, 'clip')}",
        **found,
        "n_clips": len(clips),
        "n_missing": listed - len(clips),
        "n_listed": listed,
        "n_classes": len(loaded.require_labels()),
        "clips_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "split": args.split,
        "data": str(args.data),
        "checkpoint": loaded.path,
    }


def finite(value: float) -> float | None:
    """Return a number, or None if it is infinite or NaN."""
    return float(value) if math.isfinite(value) else None


def show_clips(metrics: dict[str, Any]) -> None:
    """Print on which clips metrics were measured."""
    for name in ("n_clips", "n_missing", "clips_sha256"):
        say(f"{name:<12} {metrics[name]}")


def check_results(out: Path, data: Path) -> None:
    """Raise ValueError if results of an evaluation cannot be written to a folder, or hide data."""
    check_folder(out)
    if (out / DESCRIPTORS).exists() or out.resolve() == data.resolve():
        raise ValueError(f"--out is {out}, a data folder; give another one")
    for name in FILES:
        if (out / name).is_dir():
            raise ValueError(f"{out / name} is a folder, where a file is written; remove it")


@contextmanager
def new_results(out: Path, metrics: dict[str, Any], failures: Failures) -> Iterator[None]:
    """Write ``missing.tsv``, and ``metrics.json`` after what the caller writes.

    Those of an earlier evaluation are removed before, so that a folder never has files of two, and
    one with ``metrics.json`` is complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    with replacing(out / "missing.tsv") as file:
        file.writelines(f"{name}\t{reason}\n".encode() for name, reason in failures.items())
    yield
    with replacing(out / FILES[0]) as file:
        file.write(f"{json.dumps(metrics, indent=2)}\n".encode())
