"""What has to be known to repeat a run or an evaluation: revision, versions, data, hardware.

A run's record is a list of parts, one for each time it was started, in the order of updates; starts
with the same surroundings are one part. It stands in checkpoints under ``task_state.record``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .data.manifest import digest_clips

RECORD = "record"  # in the state of a task
PACKAGES = (
    "eat-plugin", "fairseq", "fairseq-fixed", "torch", "hydra-core", "omegaconf", "numpy",
)  # fmt: skip
FOLDER = Path(__file__).resolve().parent
PATIENCE = 10  # seconds for git
SUMS = ("hours", "clips")  # of a part, which grow while it runs


def list_versions() -> dict[str, str]:
    """Return the versions of the plugin, of Python and of the packages that results depend on."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def find_revision(folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return the git revision of the plugin: ``commit``, and ``dirty`` if files were changed.

    None where it is not in a repository, as in an installed package.
    """
    try:
        # The package may lie in a repository that does not have it, as below site-packages.
        _ask_git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _ask_git(folder, "rev-parse", "HEAD")
        changed = _ask_git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _ask_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout.strip()


def fingerprint_splits(folder: str | Path, splits: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return checksums of the clips of splits (names and lengths) and of their labels.

    Args:
        folder: the data folder.
        splits: names; those without a manifest are left out.
    """
    found = {}
    for split in splits:
        manifest, labels = (Path(folder, f"{split}.{ending}") for ending in ("tsv", "lbl"))
        if manifest.is_file():
            found[split] = {"clips_sha256": digest_clips(manifest)}
            if labels.is_file():
                found[split]["labels_sha256"] = digest_clips(labels, skip_first=False)
    return found


def add_part(parts: Sequence[Mapping[str, Any]], part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a run with another one; the last grows if its surroundings are equal."""
    before = [dict(each) for each in parts]
    if before and _surroundings(before[-1]) == _surroundings(part):
        return [*before[:-1], {**before[-1], **{k: before[-1][k] + part[k] for k in SUMS}}]
    return [*before, dict(part)]


def _surroundings(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in (*SUMS, "from_update")}


def describe_record(record: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what is in the record of a run."""
    parts = record["parts"]
    hours = {part["device"]: 0.0 for part in parts}
    for part in parts:
        hours[part["device"]] += part["hours"]
    spent = ", ".join(f"{value:.3g} h on {device}" for device, value in hours.items())
    lines = [f"seed {record['seed']}, {sum(p['clips'] for p in parts):,} clips seen, {spent}"]
    if parts and parts[0]["from_update"]:
        lines.append(f"not counted: the first {parts[0]['from_update']} updates, without a record")
    for part in parts:
        lines.append(f"from update {part['from_update']}: {part['processes']} x {part['device']}")
        lines.append(f"  git: {describe_revision(part['git'])}")
        lines.append("  " + ", ".join(f"{k} {v}" for k, v in part["versions"].items()))
        for split, sums in part["data"].items():
            lines.append(f"  {split}: " + ", ".join(f"{k} {v}" for k, v in sums.items()))
    return lines


def describe_revision(git: Mapping[str, Any] | None) -> str:
    """Return a revision as text."""
    if git is None:
        return "no repository"
    return f"{git['commit']}{' with changes' if git['dirty'] else ''}"
