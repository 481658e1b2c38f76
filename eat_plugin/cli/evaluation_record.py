"""What an evaluation leaves for comparison and repetition, next to its metrics."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eat_plugin.data.entries import original_name
from eat_plugin.data.files import replacing
from eat_plugin.prepare.amounts import count
from eat_plugin.prepare.official import OfficialList, read_official
from eat_plugin.reproduction import find_revision, fingerprint_splits, list_versions

if TYPE_CHECKING:
    from eat_plugin.data.manifest import Manifest
    from eat_plugin.inference import Loaded
    from eat_plugin.ranking import RankedScores


def read_list(path: Path, manifest: Manifest) -> OfficialList:
    """Read an official list of clips.

    Raises:
        ValueError: it cannot be read, or has none of the clips of a split.
    """
    official = read_official(path)
    names = (original_name(manifest.name(clip)) for clip in range(len(manifest)))
    if len(official.find_missing(names)[0]) == len(official.ids):
        raise ValueError(
            f"--official {path} has none of the clips: its first id is {official.ids[0]!r}, the "
            f"first clip {original_name(manifest.name(0))!r}"
        )
    return official


def measure_coverage(official: OfficialList, names: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return how much of a list the clips cover, and the ids that no clip has."""
    uncovered, others = official.find_missing(names)
    coverage = {
        "list": official.path, "ids_sha256": official.sha256, "n_listed": len(official.ids),
        "n_covered": len(official.ids) - len(uncovered), "n_unlisted": others,
    }  # fmt: skip
    return coverage, uncovered


def describe_coverage(found: dict[str, Any]) -> str:
    """Return the result of ``measure_coverage`` as text."""
    share = found["n_covered"] / found["n_listed"]
    return (
        f"{found['n_covered']} of {found['n_listed']} ids of {found['list']} ({share:.2%}); "
        f"{count(found['n_unlisted'], 'clip')} not in it"
    )


def write_record(
    args: argparse.Namespace,
    loaded: Loaded,
    names: list[str],
    ranked: RankedScores,
    uncovered: list[str],
) -> None:
    """Write scores, record and, with an official list, its ids that no clip has.

    Args:
        args: of ``eat evaluate``.
        loaded: the classifier.
        names: of the clips that were scored.
        ranked: their scores.
        uncovered: ids of the official list.
    """
    from eat_plugin.inference.scored_clips import FILE, ScoredClips, write_scored

    labels = np.array(loaded.require_labels().ids, dtype=str)
    scored = ScoredClips(np.array(names, dtype=str), labels, ranked.scores, ranked.targets)
    write_scored(args.out / FILE, scored)
    record = {
        "configuration": loaded.cfg,
        "training": loaded.record,
        "evaluation": {
            "checkpoint": loaded.path,
            "device": str(loaded.device),
            "git": find_revision(),
            "versions": list_versions(),
            "data": fingerprint_splits(args.data, [args.split]),
        },
    }
    with replacing(args.out / "record.json") as file:
        file.write(f"{json.dumps(record, indent=2, default=str)}\n".encode())
    if args.official is not None:
        with replacing(args.out / "uncovered.txt") as file:
            file.writelines(f"{clip}\n".encode() for clip in uncovered)
