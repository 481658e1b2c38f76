"""A data folder: manifests, labels, weights, overlap, and a sample of decoded clips."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..data.channels import MEAN
from ..data.clip import ClipError
from ..data.entries import Storage
from ..data.fingerprints import check_archives
from ..data.label_set import LabelSet, read_label_set
from ..data.labels import ClipLabels, read_labels, read_weights
from ..data.manifest import REPORTS, Manifest, read_manifest
from ..data.overlap import TRAIN, check_held_out
from ..prepare.amounts import count
from ..prepare.quality import Examination, examine, find_copies, name_problems
from .finding import DATA, ERROR, OK, WARNING, Finding, of_problem

DESCRIPTORS, WEIGHTS = "label_descriptors.csv", "train.weights.csv"
MOST_CLIPS, SECONDS = 200, 3.0  # of the sample
LONGEST = 1 << 24  # samples; longer clips would take all of the time
ADVICE = {
    "silent": "eat manifest AUDIO --out DATA --check --drop silent",
    "clipped": "listen to them; eat manifest AUDIO --out DATA --check lists all",
    "phase": "task.channels=first or loudest",
    "short": "eat manifest AUDIO --out DATA --check --drop short",
    "duplicate": "eat manifest AUDIO --out DATA --check --drop duplicate",
}


class Folder(NamedTuple):
    """The splits of a data folder that can be read.

    Attributes:
        path: the folder.
        manifests: by the name of the split.
        labels: of those that have any.
        classes: None without labels.
    """

    path: Path
    manifests: dict[str, Manifest]
    labels: dict[str, ClipLabels]
    classes: LabelSet | None


def attempt(check: Callable[[], object]) -> list[Finding]:
    """Call a check that raises; return its problem as a finding."""
    try:
        check()
    except (ValueError, OSError) as error:
        return [of_problem(DATA, error)]
    return []


def read_folder(
    path: Path, single_label: bool = False, known: Mapping[str, Manifest] = MappingProxyType({})
) -> tuple[Folder, list[Finding]]:
    """Read all splits of a folder, their labels and weights.

    Args:
        path: the folder.
        single_label: each clip must have one label.
        known: manifests by split that a run has read already, and checked.
    """
    folder, findings = Folder(path, {}, {}, None), []
    for file in sorted(path.glob("*.tsv")):
        if file.name.startswith(REPORTS):
            continue
        try:
            manifest = known.get(file.stem) or _read_split(file)
        except (ValueError, OSError) as error:
            findings.append(of_problem(DATA, error))
            continue
        folder.manifests[file.stem] = manifest
        clips = count(len(manifest), "clip")
        findings.append(Finding(DATA, OK, f"{file.name}: {clips} under {manifest.root}"))
    if TRAIN not in folder.manifests and not (path / f"{TRAIN}.tsv").exists():
        fix = f"eat manifest AUDIO --out {path}"
        findings.append(Finding(DATA, ERROR, f"{path} has no {TRAIN}.tsv", fix))
    if any(path.glob("*.lbl")):
        folder = _read_classes(folder, single_label, findings)
    if (path / WEIGHTS).exists() and TRAIN in folder.manifests:
        number = len(folder.manifests[TRAIN])
        findings += attempt(lambda: read_weights(path / WEIGHTS, number))
    return folder, findings


def _read_split(file: Path) -> Manifest:
    manifest = read_manifest(file)
    archives = file.with_suffix(".archives")
    if archives.exists():
        check_archives(archives, manifest.root)
    return manifest


def _read_classes(folder: Folder, single_label: bool, findings: list[Finding]) -> Folder:
    """Read classes and labels, and add what is found."""
    try:
        classes = read_label_set(folder.path / DESCRIPTORS)
    except (ValueError, OSError) as error:
        findings.append(of_problem(DATA, error))
        return folder
    for split, manifest in folder.manifests.items():
        file = folder.path / f"{split}.lbl"
        try:
            if file.exists():
                folder.labels[split] = read_labels(file, classes, manifest, single_label)
        except (ValueError, OSError) as error:
            findings.append(of_problem(DATA, error))
    if TRAIN in folder.labels:
        findings.append(check_classes(folder.labels[TRAIN].counts(), classes.ids))
    return folder._replace(classes=classes)


def check_classes(counts: np.ndarray, names: tuple[str, ...]) -> Finding:
    """Look for classes without training clips: ``counts`` [C] of the clips of each."""
    missing = [name for name, number in zip(names, counts) if number == 0]
    least, most = counts.min(), counts.max()
    clips = f"{least if least == most else f'{least} to {most}'} training clips each"
    seen = f"{count(len(counts), 'class')}, {clips}"
    if not missing:
        return Finding(DATA, OK, seen)
    seen = f"{seen}; {len(missing)} have none, as {missing[0]!r}"
    return Finding(DATA, WARNING, seen, f"add clips, or remove the classes from {DESCRIPTORS}")


def check_overlap(folder: Folder, checked: bool = False) -> list[Finding]:
    """Compare the clips to train on with those that are held out.

    Args:
        folder: from ``read_folder``.
        checked: a run has done so already.
    """
    if TRAIN not in folder.manifests or len(folder.manifests) == 1:
        return []
    problems = [] if checked else attempt(lambda: check_held_out(folder.path))
    return problems or [Finding(DATA, OK, "no training clip is held out")]


class Sample(NamedTuple):
    """Decoded clips of a split: names, properties, and reasons of those that cannot be used."""

    names: list[str]
    clips: list[Examination]
    failures: list[tuple[str, str]]


def decode_sample(manifest: Manifest, channels: str = MEAN, seconds: float = SECONDS) -> Sample:
    """Decode clips, spread evenly over a manifest, for some seconds at most."""
    sample, began = Sample([], [], []), time.monotonic()
    for index in _spread(len(manifest)):
        entry = manifest.entry(index)
        if entry.storage in (Storage.CACHE, Storage.IMAGE) or (entry.size or 0) > LONGEST:
            continue
        try:
            sample.clips.append(examine(entry, channels))
            sample.names.append(manifest.name(index))
        except ClipError as error:
            sample.failures.append((manifest.name(index), str(error)))
        if time.monotonic() - began > seconds:
            break
    return sample


def _spread(total: int) -> Iterator[int]:
    """Yield indices, far from each other, so that any first part of them is spread evenly."""
    chosen = np.linspace(0, total - 1, min(total, MOST_CLIPS)).astype(int)
    yield from np.random.default_rng(0).permutation(chosen).tolist()


def check_sample(sample: Sample) -> list[Finding]:
    """Say what the decoded clips are like."""
    total = len(sample.clips) + len(sample.failures)
    if not total:
        return []
    findings = [] if not sample.clips else [Finding(DATA, OK, _describe(sample.clips))]
    if sample.failures:
        name, reason = sample.failures[0]
        part = f"{len(sample.failures)} of {total}"
        seen = f"{part} sampled clips cannot be used, as {name}: {reason}"
        fix = "eat manifest AUDIO --out DATA --check leaves them out and names each"
        findings.append(Finding(DATA, ERROR, seen, fix))
    copies, having = find_copies(sample.clips), Counter[str]()
    examples: dict[str, str] = {}
    for name, clip, copy in zip(sample.names, sample.clips, copies):
        problems = name_problems(clip, copy is not None)
        # Channels that cancel out are silent together, and silent clips are copies of each other.
        for cause, effect in (("phase", "silent"), ("silent", "duplicate")):
            problems = [one for one in problems if one != effect or cause not in problems]
        having.update(problems)
        examples.update({problem: name for problem in problems if problem not in examples})
    for problem, number in having.items():
        all_silent = problem == "silent" and number == len(sample.clips)
        seen = f"{number} of {total} sampled clips: {problem}, as {examples[problem]}"
        findings.append(Finding(DATA, ERROR if all_silent else WARNING, seen, ADVICE[problem]))
    return findings


def _describe(clips: list[Examination]) -> str:
    rates = ", ".join(f"{rate / 1000:g}" for rate in sorted({clip.rate for clip in clips}))
    channels = ", ".join(map(str, sorted({clip.channels for clip in clips})))
    lengths = [clip.seconds for clip in clips]
    return (
        f"{count(len(clips), 'clip')} decoded: {rates} kHz, channels {channels}, "
        f"{min(lengths):.3g} to {max(lengths):.3g} s"
    )
