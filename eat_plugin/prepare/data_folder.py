"""The files of a data folder: manifests, labels, classes, weights, reports."""

from __future__ import annotations

import unicodedata
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.files import replacing
from ..data.fingerprints import find_containers, write_archives
from ..data.label_set import LabelSet, write_label_set
from ..data.labels import ClipLabels, clip_weights, count_labels, write_labels, write_weights
from ..data.manifest import write_manifest
from ..data.overlap import check_held_out, is_held_out
from ..data.statistics import check_statistics, read_statistics
from ..data.tables import TableError, read_columns, write_csv
from ..data.urls import Url
from .amounts import count, describe_pixels, describe_time
from .archive_index import readable
from .arrangement import TRAIN, ListedClip
from .layouts import MISSING, QUALITY, REJECTED, held_out_split, report_name
from .listing import Listing
from .splits import hold_out, hold_out_by_class

DESCRIPTORS, COUNTS = "label_descriptors.csv", "class_counts.csv"
CLASSES_SHOWN = 10


def write_data_folder(listing: Listing, options: Namespace) -> list[str]:
    """Write manifests, labels, classes, weights and reports; return lines that name them.

    It is an error if no clip is usable, a split is empty or an earlier split has other classes.
    """
    out, clips = options.out, listing.clips
    out.mkdir(parents=True, exist_ok=True)
    *reports, rejected = _write_reports(listing, options)
    if not clips:
        kind = "image" if options.images else "audio file"
        first = "; the first: {}: {}".format(*listing.rejected[0]) if listing.rejected else ""
        raise ValueError(f"no {kind} under {listing.root} can be used; {rejected}{first}")
    label_set, unused = _used_classes(listing, rejected)
    splits, before = _divide(listing, options, label_set), _read_places(out)
    lines = [] if label_set is None else _write_all_labels(out, splits, label_set)
    lines += _write_manifests(out, listing, splits)
    lines += _name_similar_classes(label_set) + _name_copies(options, splits)
    lines += _name_stale_statistics(out, before) + _name_shared(options)
    if listing.found.others:
        lines.append(f"other files (see --ext): {listing.found.list_others()}")
    if unused:
        shown = ", ".join(map(repr, unused[:CLASSES_SHOWN]))
        more = ", ..." if len(unused) > CLASSES_SHOWN else ""
        excluded = count(len(unused), "class")
        lines.append(f"{excluded} excluded, without a usable clip: {shown}{more}")
    lines += [*reports, f"total: {_amount(clips)}"]
    rates = Counter(clip.rate for clip in clips)
    if 0 not in rates:
        counts = (f"{rate} Hz ({rates[rate]})" for rate in sorted(rates))
        lines.append(f"rates: {', '.join(counts)}")
    return [*lines, rejected]


def _write_reports(listing: Listing, options: Namespace) -> list[str]:
    """Write the reports; return lines that name them, that of the rejected files last."""
    lines, missing = [], listing.arrangement.missing
    if missing is not None:
        path = options.out / report_name(MISSING, options.split)
        with replacing(path) as file:
            file.writelines(f"{line}\n".encode() for line in missing)
        lines.append(f"{path}: {len(missing)} missing")
        lines.append(f"not in the table: {count(listing.arrangement.unlisted, 'file')}")
    path = options.out / report_name(REJECTED, options.split)
    return [*lines, write_rejected(path, listing.rejected)]


def write_rejected(path: Path, rejected: list[tuple[str, str]]) -> str:
    """Write ``name<TAB>reason`` lines, sorted; return a line about them."""
    with replacing(path) as file:
        for name, reason in sorted(rejected):
            file.write(f"{readable(name)}\t{readable(reason)}\n".encode())
    if not rejected:
        return f"{path}: 0 rejected"
    return f"{path}: {count(len(rejected), 'file')} rejected, with the reasons"


def _used_classes(listing: Listing, rejected: str) -> tuple[LabelSet | None, list[str]]:
    """Return the classes with a usable clip, in the layout's order, and the other classes."""
    label_set = listing.arrangement.label_set
    if label_set is None or listing.arrangement.keeps_every_class:
        return label_set, []
    used = {label for clip in listing.clips for label in clip.labels}
    pairs = [pair for pair in zip(label_set.ids, label_set.names) if pair[0] in used]
    if len(pairs) < 2:
        raise ValueError(
            f"all clips under {listing.root} are of one class, {pairs[0][0]!r}; two are needed: "
            f"with --layout folders give the folder whose folders are the classes; {rejected}"
        )
    ids, names = zip(*pairs)
    return LabelSet(ids, names), [label for label in label_set.ids if label not in used]


def _divide(
    listing: Listing, options: Namespace, label_set: LabelSet | None
) -> dict[str, list[ListedClip]]:
    """Divide the clips into splits, none of them empty."""
    splits: dict[str, list[ListedClip]] = {split: [] for split in listing.splits}
    for clip in listing.clips:
        splits[clip.split].append(clip)
    for split, chosen in splits.items():
        if not chosen:
            raise ValueError(
                f"the split {split!r} has no usable clip; "
                f"{options.out / report_name(REJECTED, options.split)} gives the reasons"
            )
    if options.valid is None:
        return splits
    if label_set is None:
        held_out = hold_out(len(listing.clips), options.valid, options.seed)
    else:
        labels = ClipLabels.from_ids((clip.labels for clip in listing.clips), label_set)
        held_out = hold_out_by_class(labels, options.valid, options.seed)
    return {
        options.split: [clip for clip, held in zip(listing.clips, held_out) if not held],
        held_out_split(options): [clip for clip, held in zip(listing.clips, held_out) if held],
    }


def _write_manifests(out: Path, listing: Listing, splits: dict[str, list[ListedClip]]) -> list[str]:
    lines = []
    for split, clips in splits.items():
        path, root = out / f"{split}.tsv", listing.root
        # The manifest first: if interrupted before the next file, check_archives refuses it.
        write_manifest(path, root, ((clip.name, clip.samples) for clip in clips))
        lines.append(f"{path}: {_amount(clips)}")
        names = (clip.name for clip in clips)
        fingerprints = listing.found.fingerprints
        used = find_containers(root, names) if fingerprints else []
        _write_ids(path.with_suffix(".ids"), clips)
        archives = path.with_suffix(".archives")
        write_archives(archives, {name: fingerprints[name] for name in used})
        if used:
            is_url = isinstance(root, Url)
            in_place = "archive", "(zip, tar, HDF5, parquet)"
            kind, rest = ("file", "of the store") if is_url else in_place
            lines.append(f"{archives}: {count(len(used), kind)} {rest}")
    return lines


def _write_ids(path: Path, clips: list[ListedClip]) -> None:
    """Write ``entry<TAB>id`` lines of the clips that have an id; remove those of an earlier run."""
    if not any(clip.id for clip in clips):
        path.unlink(missing_ok=True)
        return
    with replacing(path) as file:
        file.writelines(f"{clip.name}\t{readable(clip.id)}\n".encode() for clip in clips)


def _name_similar_classes(label_set: LabelSet | None) -> list[str]:
    """Return lines for classes whose names differ in case or Unicode form only."""
    groups: dict[str, list[str]] = {}
    for name in () if label_set is None else label_set.ids:
        groups.setdefault(unicodedata.normalize("NFC", name.casefold()), []).append(name)
    return [
        f"{' and '.join(map(ascii, names))} are {len(names)} classes"
        for names in groups.values()
        if len(names) > 1
    ]


def _name_copies(options: Namespace, splits: dict[str, list[ListedClip]]) -> list[str]:
    """Return lines if copies (``--check``) have other labels, or are held out."""
    clips = [clip for own in splits.values() for clip in own if clip.digest]
    first: dict[str, ListedClip] = {}
    differ = [
        clip for clip in clips
        if set(clip.labels) != set(first.setdefault(clip.digest, clip).labels)
    ]  # fmt: skip
    lines = []
    if differ:
        table = report_name(QUALITY, options.split, "csv")
        lines.append(f"copies with other labels, for example {differ[0].shown}: see {table}")
    contents = {
        split: [(clip.digest, clip.shown) for clip in own if clip.digest]
        for split, own in splits.items()
    }
    if clips:
        contents = {**_read_contents(options.out, splits), **contents}
    held_out = {one for split, own in contents.items() if is_held_out(split) for one, _ in own}
    copies = [name for digest, name in contents.get(TRAIN, []) if digest in held_out]
    if copies:
        lines.append(
            f"{len(copies)} clips of {TRAIN} are copies of held-out clips, for example "
            f"{copies[0]}: exclude copies with --drop duplicate"
        )
    return lines


def _read_contents(out: Path, new: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """Return hash and name of the clips of splits that were listed and checked earlier."""
    contents = {}
    for path in out.glob(f"{QUALITY}*.csv"):
        split = path.stem.partition(".")[2] or TRAIN
        manifest = out / f"{split}.tsv"
        if split in new or not manifest.is_file():
            continue
        lines = manifest.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        kept = {line.partition("\t")[0] for line in lines[1:]}
        with suppress(TableError):  # another file of this name
            rows = [row for _, row in read_columns(path, ["hash", "path"])]
            contents[split] = [(digest, name) for digest, name in rows if name in kept]
    return contents


def _name_shared(options: Namespace) -> list[str]:
    """Return a line if splits share clips, as by links; a run refuses them."""
    try:
        if (options.out / f"{TRAIN}.tsv").is_file():
            check_held_out(options.out)
    except ValueError as error:
        return [f"{error}; links to one file are one clip"]
    return []


def _read_places(out: Path) -> list[bytes]:
    """Return the root of the training clips, and the fingerprints of their archives."""
    found = []
    for name, size in ((f"{TRAIN}.tsv", 1), (f"{TRAIN}.archives", None)):
        with suppress(FileNotFoundError), open(out / name, "rb") as file:
            found += list(islice(file, size))
    return found


def _name_stale_statistics(out: Path, before: list[bytes]) -> list[str]:
    """Return a line if ``stats.json`` does not fit the new manifest (a run refuses it) or files."""
    try:
        statistics = read_statistics(out)
        if statistics is not None:
            check_statistics(out, statistics)
            if before != _read_places(out):
                return [f"stats.json is of the files of before: run eat stats {out} again"]
    except ValueError as error:
        return [str(error)]
    return []


def _write_all_labels(
    out: Path, splits: dict[str, list[ListedClip]], label_set: LabelSet
) -> list[str]:
    """Write labels, classes, their counts, and weights; splits of earlier runs stay."""
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
    write_counts(out, label_set, {**counts, **earlier})
    total, classes = np.sum([*counts.values()], axis=0), label_set.names
    few, most = int(total.argmin()), int(total.argmax())
    fewest = count(int(total[few]), "clip")
    spread = f"from {fewest} ({classes[few]!r}) to {total[most]} ({classes[most]!r})"
    if total[few] == total[most]:
        spread = f"of {fewest} each"
    return [f"{out / DESCRIPTORS}: {len(label_set)} classes {spread}"]


def write_counts(out: Path, label_set: LabelSet, columns: dict[str, np.ndarray]) -> None:
    """Write ``class_counts.csv``: the number of clips of each class per split."""
    rows = zip(label_set.ids, label_set.names, *(column.tolist() for column in columns.values()))
    write_csv(out / COUNTS, [("label", "name", *columns), *rows])


def _count_earlier(out: Path, splits: Iterable[str], label_set: LabelSet) -> dict[str, np.ndarray]:
    """Count the classes of the splits of earlier runs."""
    paths = sorted(path for path in out.glob("*.lbl") if path.stem not in splits)
    try:
        return {path.stem: count_labels(path, label_set) for path in paths}
    except TableError as error:
        raise ValueError(
            f"{error}; that split was written by an earlier run and does not fit the "
            f"{len(label_set)} classes of this one: remove it or choose another --out"
        ) from error


def _amount(clips: list[ListedClip]) -> str:
    if clips and clips[0].rate == 0:
        pixels = sum(clip.samples for clip in clips)
        return f"{count(len(clips), 'image')}, {describe_pixels(pixels)}"
    seconds = sum(clip.samples / clip.rate for clip in clips)
    return f"{count(len(clips), 'clip')}, {describe_time(seconds)}"
