"""What `eat manifest` writes: manifests, labels, classes, weights, and a summary on the screen.

In this file:
    Clip                a usable file
    report_of           what a report of a split is called
    refuse_overlap      a split of an earlier run must not share clips with this one's
    write_rejected      rejected.tsv
    write_missing       missing.tsv
    write_splits        SPLIT.tsv, SPLIT.archives
    write_all_labels    SPLIT.lbl, label_descriptors.csv, class_counts.csv, train.weights.csv
    summarise           totals
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cli import say
from ..data.containers import Fingerprint, find_containers, write_archives
from ..data.files import replacing
from ..data.label_set import LabelSet, write_label_set
from ..data.labels import ClipLabels, clip_weights, count_labels, write_labels, write_weights
from ..data.manifest import encode_name, write_manifest
from ..data.tables import TableError, write_csv
from .archive_index import readable
from .layouts import TRAIN, Arrangement

REJECTED, MISSING = "rejected", "missing"
RESERVED = ("", REJECTED, MISSING)  # names that a split cannot have
DESCRIPTORS = "label_descriptors.csv"
CLASSES_SHOWN = 10


class Clip(NamedTuple):
    """A usable file: path below the root, split, labels, samples, and their rate in Hz.

    Of an image the samples are its pixels, and the rate is 0.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    samples: int
    rate: int


def check_split_name(name: str, source: str) -> None:
    """Check that a split can be called by a name.

    Args:
        name: The name.
        source: The option that gives it.

    Raises:
        ValueError: It cannot.
    """
    if name.partition(".")[0] in RESERVED or set(name) & set("/\\\t\n\r\0"):
        raise ValueError(f"{source} {name!r} cannot be the name of a manifest")


def report_of(kind: str, split: str) -> str:
    """Return the name of a report, ``rejected`` or ``missing``: each split has its own."""
    return f"{kind}.tsv" if split == TRAIN else f"{kind}.{split}.tsv"


def refuse_overlap(manifest: Path, root: Path, names: Iterable[str]) -> None:
    """Make sure that training clips and clips held out are not the same, from run to run.

    Args:
        manifest: Where an earlier run may have left the manifest of the other of the two.
        root: The root of this run.
        names: The clips of this run.

    Raises:
        ValueError: The manifest has the same root and some of these clips.
        OSError: It cannot be read.
    """
    if not manifest.exists():
        return
    with open(manifest, "rb") as file:
        if file.readline().rstrip(b"\r\n") != encode_name(str(root)):
            return
        held_out = {line.partition(b"\t")[0] for line in file}
    shared = [name for name in names if encode_name(name) in held_out]
    if shared:
        raise ValueError(
            f"{manifest}, of an earlier run, has {len(shared)} of the clips of this run, "
            f"{shared[0]!r} for one; remove it, hold out clips again or choose another --out"
        )


def write_rejected(path: Path, rejected: list[tuple[str, str]]) -> None:
    """Write the paths that cannot be used, each with the reason."""
    with replacing(path) as file:
        for name, reason in sorted(rejected):
            file.write(f"{readable(name)}\t{readable(reason)}\n".encode())


def write_missing(path: Path, missing: list[str]) -> None:
    """Write the lines on clips that are not there."""
    with replacing(path) as file:
        file.writelines(f"{line}\n".encode() for line in missing)


def write_splits(
    out: Path,
    root: Path,
    splits: dict[str, list[Clip]],
    fingerprints: Mapping[str, Fingerprint],
) -> None:
    """Write a manifest for each split with what tells whether its archives change, and say so.

    Args:
        out: The folder.
        root: The root of the manifests.
        splits: The clips.
        fingerprints: Of all archives and HDF5 files that clips are in.
    """
    for split, clips in splits.items():
        path = out / f"{split}.tsv"
        # In this order: an interruption in between leaves what check_archives refuses.
        write_manifest(path, root, ((clip.name, clip.samples) for clip in clips))
        say(f"{path}: {_amount(clips)}")
        used = find_containers(root, (clip.name for clip in clips)) if fingerprints else []
        write_archives(out / f"{split}.archives", {name: fingerprints[name] for name in used})
        if used:
            say(f"{out / split}.archives: {len(used)} archives or HDF5 files that clips are in")


def write_all_labels(out: Path, splits: dict[str, list[Clip]], label_set: LabelSet) -> None:
    """Write the labels of each split, the classes, their counts, and weights to train by.

    Args:
        out: The folder. Splits that are there from earlier runs keep their labels.
        splits: The clips of this run.
        label_set: The classes.

    Raises:
        ValueError: An earlier split has a class that is not among them. Nothing is written.
        OSError: A file cannot be written.
    """
    earlier = _count_earlier(out, splits, label_set)
    labels = {
        split: ClipLabels.from_ids((clip.labels for clip in clips), label_set)
        for split, clips in splits.items()
    }
    write_label_set(out / DESCRIPTORS, label_set)
    for split, clips in splits.items():
        names, ids = (clip.name for clip in clips), (clip.labels for clip in clips)
        write_labels(out / f"{split}.lbl", names, ids)
    if TRAIN in labels:
        write_weights(out / f"{TRAIN}.weights.csv", clip_weights(labels[TRAIN]))
    counts = {split: clips.counts() for split, clips in labels.items()}
    columns = {**counts, **earlier}
    rows = zip(label_set.ids, label_set.names, *(column.tolist() for column in columns.values()))
    write_csv(out / "class_counts.csv", [("label", "name", *columns), *rows])
    _say_classes(out, label_set, np.sum([*counts.values()], axis=0))


def _count_earlier(
    out: Path, splits: dict[str, list[Clip]], label_set: LabelSet
) -> dict[str, np.ndarray]:
    """Count the classes of the splits that earlier runs left in the folder."""
    paths = sorted(path for path in out.glob("*.lbl") if path.stem not in splits)
    try:
        return {path.stem: count_labels(path, label_set) for path in paths}
    except TableError as error:
        raise ValueError(
            f"{error}; that split is of an earlier run and does not fit the {len(label_set)} "
            "classes of this one: remove it or choose another --out"
        ) from error


def _say_classes(out: Path, label_set: LabelSet, counts: np.ndarray) -> None:
    names, fewest, most = label_set.names, int(counts.argmin()), int(counts.argmax())
    spread = f"from {counts[fewest]} clips ({names[fewest]!r}) to {counts[most]} ({names[most]!r})"
    if counts[fewest] == counts[most]:
        spread = f"of {counts[most]} clips each"
    say(f"{out / DESCRIPTORS}: {len(label_set)} classes {spread}")


def summarise(
    out: Path,
    split: str,
    clips: list[Clip],
    rejected: int,
    dropped: list[str],
    found: Arrangement,
) -> None:
    """Say how much there is, and what is left out.

    Args:
        out: The folder written.
        split: That was asked for.
        clips: The usable clips.
        rejected: Number of paths that cannot be used.
        dropped: Classes none of whose clips can be used.
        found: What the layout made of the data set.
    """
    if dropped:
        shown = ", ".join(map(repr, dropped[:CLASSES_SHOWN]))
        more = ", ..." if len(dropped) > CLASSES_SHOWN else ""
        say(f"{len(dropped)} classes left out, without a usable clip: {shown}{more}")
    say(f"{out / report_of(REJECTED, split)}: {rejected} rejected")
    if found.missing is not None:
        say(f"{out / report_of(MISSING, split)}: {len(found.missing)} missing")
        say(f"not in the table: {found.unlisted} files")
    say(f"total: {_amount(clips)}")
    rates = Counter(clip.rate for clip in clips)
    if 0 not in rates:
        say("rates: " + ", ".join(f"{rate} Hz ({rates[rate]})" for rate in sorted(rates)))


def _amount(clips: list[Clip]) -> str:
    if clips and clips[0].rate == 0:
        return f"{len(clips)} images, {sum(clip.samples for clip in clips) / 1e6:.2f} megapixels"
    hours = sum(clip.samples / clip.rate for clip in clips) / 3600
    return f"{len(clips)} clips, {hours:.2f} hours"
