"""`eat manifest`: list the audio or images of a folder as a data set, with labels or without."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from eat_plugin.cli import layout_options as layouts
from eat_plugin.cli import progress, say
from eat_plugin.cli import quality_report as quality
from eat_plugin.cli.layout_options import EXTENSIONS, LAYOUTS, held_out_name
from eat_plugin.data.entries import HDF5_ENDINGS, IMAGE_ENDINGS
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import ClipLabels
from eat_plugin.data.manifest import encode_name
from eat_plugin.data.sources import probe_clip
from eat_plugin.prepare import listing
from eat_plugin.prepare.clips import Found, find_clips
from eat_plugin.prepare.find import probe_all
from eat_plugin.prepare.layouts import TRAIN, Arrangement
from eat_plugin.prepare.listing import Clip
from eat_plugin.prepare.processes import available_cores
from eat_plugin.prepare.splits import hold_out, hold_out_by_class

NAME = "manifest"
HELP = "list the audio files of a folder, or images: lengths, labels, a hold-out, and what is bad"
EXAMPLE = """
Writes DATA/SPLIT.tsv (the root, then a line 'path<TAB>samples' for each clip, sorted by path), with
--valid also DATA/valid.tsv, and DATA/rejected.tsv ('path<TAB>reason', empty if every file is good).
A run whose clips are partly in a hold-out that an earlier run left in DATA is refused.

Without --check only headers are read. They show a file that is not audio, is empty, or (wav) ends
early; damage further inside shows only when a clip is decoded. Symbolic links are followed, each
folder once.

Archives (.zip, .tar) and HDF5 files (.h5, .hdf5) are looked into where they lie; nothing is
unpacked. A manifest names their clips 'archive.zip:OFFSET:LENGTH' and 'file.h5/key'. Members have
to be stored uncompressed; datasets are [samples] or [samples, channels], floating-point or int16,
with an attribute sample_rate. DATA/SPLIT.archives says which archives there are, their sizes and
times; training refuses those that have changed since, or (--checksum) whose content has.

--images lists images (PNG, JPEG, WebP; needs Pillow); the second column is then the number of
pixels, which training compares with the file. Files and members of archives; not HDF5. With --check
all are decoded, and what is damaged is left out.

Every --layout but plain also writes SPLIT.lbl (labels), label_descriptors.csv (classes),
class_counts.csv and train.weights.csv (for balanced sampling: of a clip, the sum over its classes
of 1000 / (clips of the class + 0.01)), and calls the clips held out 'eval'.

layouts, with examples:
  plain            no labels
    eat manifest /my/audio --out data --valid 0.01
  folders          CLASS/any/FILE; an archive counts as a folder of its name, so CLASS.zip will do
    eat manifest /my/audio --out data --layout folders --valid 0.1
    eat manifest /my/images --images --out data --layout folders --valid 0.1
  esc50            meta/esc50.csv and audio/FILE; the fold is held out
    eat manifest ESC-50-master --out data --layout esc50 --fold 1
  speech_commands  WORD/FILE, validation_list.txt, testing_list.txt; writes train, valid, eval
    eat manifest speech_commands_v0.02 --out data --layout speech_commands
  audioset         ID.ext, YID.ext or ID_START_END.ext, in any folder; run it once a split. It also
                   writes missing.tsv: 'id<TAB>start<TAB>end' of each segment without a file
    eat manifest audio/train --out data --layout audioset --csv balanced_train_segments.csv \\
      --classes class_labels_indices.csv
    eat manifest audio/eval --out data --layout audioset --csv eval_segments.csv \\
      --classes class_labels_indices.csv --split eval
  csv              columns of a table (.tsv: parted by tabs); paths are relative to DIR
    eat manifest /my/audio --out data --layout csv --csv table.csv --path-column file \\
      --label-column tags --label-separator ';' --split-column subset
  pattern          a regular expression searched for in the path below DIR
    eat manifest /my/audio --out data --layout pattern --valid-groups anna,ben \\
      --pattern '^(?P<group>[^/]+)/(?P<label>[a-z]+)_[0-9]+'
    eat manifest /my/audio --out data --layout pattern --valid-groups test \\
      --pattern '^(?P<group>train|test)/(?P<label>[^/]+)/'
    eat manifest /my/archives --out data --layout pattern \\
      --pattern '[.]zip/(?P<label>[^/]+)/'
  webdataset       shards (.tar, .zip): KEY.wav with a label in KEY.cls or KEY.json beside it
    eat manifest /my/shards --out data --layout webdataset --json-key label --valid 0.1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE + quality.EPILOG
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the files are")
    parser.add_argument(
        "--out", metavar="DATA", type=Path, required=True, help="folder for the manifests"
    )
    parser.add_argument("--split", metavar="NAME", help=f"name of the split (default: {TRAIN})")
    parser.add_argument(
        "--valid",
        metavar="FRACTION",
        type=float,
        help="hold out this fraction of the clips, at random, as the split 'valid'; with labels, "
        "this fraction of each class, as 'eval'",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the hold-out (default: 0)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=available_cores(),
        help="processes that read headers (default: one a core, here %(default)s)",
    )
    parser.add_argument(
        "--ext",
        metavar="EXT",
        nargs="+",
        help=f"file name endings to look for (default: {' '.join(EXTENSIONS)}; with --images "
        f"{' '.join(IMAGE_ENDINGS)})",
    )
    parser.add_argument(
        "--images", action="store_true", help="list images, for training with task.images"
    )
    parser.add_argument(
        "--checksum",
        action="store_true",
        help="read archives and HDF5 files whole, for their SHA-256: a copy of another time passes",
    )
    quality.add_arguments(parser)
    layouts.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List the clips, write the manifests and labels, print a summary.

    Args:
        args: What `add_arguments` declares.

    Returns:
        0.

    Raises:
        ValueError: An option makes no sense, a table is wrong, or there is no usable audio.
        OSError: A folder cannot be read, or a file cannot be written.
    """
    _check_options(args)
    args.split = args.split or TRAIN
    root = Path(os.path.abspath(args.folder))
    encode_name(str(root))
    files = _find(args, root)
    found = LAYOUTS[args.layout].arrange(args, root, files)
    planned = sorted({entry.split for entry in found.entries}, key=lambda s: (s != TRAIN, s))
    for split in planned:
        listing.check_split_name(split, "the split")
    names = [files.entry(entry.name) for entry in found.entries]
    if args.valid is None and len({TRAIN, held_out_name(args)} & set(planned)) == 1:
        other = held_out_name(args) if TRAIN in planned else TRAIN
        listing.refuse_overlap(args.out / f"{other}.tsv", root, names)
    fingerprints = files.take_fingerprints(root, names, args.checksum)
    clips, damaged = _probe(args, root, found, names)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.check and not args.images:
        seen = {files.entry(entry.name): entry.name for entry in found.entries}
        clips, flawed = quality.check(args.out, root, clips, args.workers, args.drop)
        damaged += [(seen[name], reason) for name, reason in flawed]
    rejected = [
        (files.shown(name), reason) for name, reason in files.rejected + found.rejected + damaged
    ]
    rejected_path = args.out / listing.report_of(listing.REJECTED, args.split)
    listing.write_rejected(rejected_path, rejected)
    if found.missing is not None:
        missing_path = args.out / listing.report_of(listing.MISSING, args.split)
        listing.write_missing(missing_path, found.missing)
    if not clips:
        kind = "images" if args.images else "audio files"
        raise ValueError(
            f"none of the {len(rejected)} {kind} under {root} can be used; "
            f"{rejected_path} tells why"
        )
    label_set, dropped = _used_classes(found, clips, root)
    splits = _divide(args, clips, label_set, planned)
    if label_set is not None:
        listing.write_all_labels(args.out, splits, label_set)
    listing.write_splits(args.out, root, splits, fingerprints)
    if files.others:
        say(f"other files (see --ext): {files.tell_others()}")
    listing.summarise(args.out, args.split, clips, len(rejected), dropped, found)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if not args.folder.exists():
        raise ValueError(f"{args.folder} does not exist")
    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is not a folder")
    if args.split is not None:
        listing.check_split_name(args.split, "--split")
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.valid is not None and not 0 < args.valid < 1:
        raise ValueError(f"--valid must be a fraction between 0 and 1, got {args.valid}")
    if args.images and args.layout in layouts.OF_SOUND:
        raise ValueError(f"--layout {args.layout} is a data set of sound; leave --images out")
    if args.images and args.drop:
        raise ValueError("--drop is for sound; leave --images out")
    quality.check_options(args)
    layouts.check_options(args)


def _find(args: argparse.Namespace, root: Path) -> Found:
    """Find the clips; none where a table says which there are."""
    layout = LAYOUTS[args.layout]
    if "ext" not in layout.options:
        return Found()
    endings, containers, kind = EXTENSIONS, layout.containers, "audio"
    if args.images:
        kind = "images"
        endings, containers = IMAGE_ENDINGS, tuple(c for c in containers if c not in HDF5_ENDINGS)
    extensions = {ending.lower().lstrip(".") for ending in args.ext or endings}
    return find_clips(
        root, extensions, containers, layout.texts, args.checksum, args.workers, kind
    )


def _probe(
    args: argparse.Namespace, root: Path, found: Arrangement, names: list[str]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Read the headers of all clips; part those that can be used from the others.

    The others keep the names that layouts see; those of manifests are ``names``.
    """
    clips, damaged = [], []
    paths = [os.path.join(root, name) for name in names]
    probe: Callable[[str], tuple[int, int]] = probe_clip
    if args.images:
        from eat_plugin.images.decode import probe_entry

        probe = partial(probe_entry, decode=args.check)
    headers = probe_all(paths, args.workers, probe)
    results = progress(headers, "reading headers", "file", len(paths))
    for result, entry, name in zip(results, found.entries, names):  # the bar ends with the first
        if isinstance(result, str):
            damaged.append((entry.name, result))
        else:
            clips.append(Clip(name, entry.split, entry.labels, *result))
    return clips, damaged


def _used_classes(
    found: Arrangement, clips: list[Clip], root: Path
) -> tuple[LabelSet | None, list[str]]:
    """Return the classes that some clip has, in the layout's order, and those that none has."""
    label_set = found.label_set
    if label_set is None or found.keeps_every_class:
        return label_set, []
    used = {label for clip in clips for label in clip.labels}
    kept = [label in used for label in label_set.ids]
    columns = (label_set.ids, label_set.names)
    ids, names = (tuple(c for c, keep in zip(column, kept) if keep) for column in columns)
    if len(ids) < 2:
        raise ValueError(f"all clips under {root} are of one class, {ids[0]!r}; two are needed")
    return LabelSet(ids, names), [label for label in label_set.ids if label not in used]


def _divide(
    args: argparse.Namespace, clips: list[Clip], label_set: LabelSet | None, planned: list[str]
) -> dict[str, list[Clip]]:
    """Part the clips into splits, none of them empty."""
    splits: dict[str, list[Clip]] = {split: [] for split in planned}
    for clip in clips:
        splits[clip.split].append(clip)
    for split, chosen in splits.items():
        if not chosen:
            raise ValueError(
                f"the split {split!r} has no usable clip; "
                f"{args.out / listing.report_of(listing.REJECTED, args.split)} tells why"
            )
    if args.valid is None:
        return splits
    if label_set is None:
        held_out = hold_out(len(clips), args.valid, args.seed)
    else:
        labels = ClipLabels.from_ids((clip.labels for clip in clips), label_set)
        held_out = hold_out_by_class(labels, args.valid, args.seed)
    return {
        args.split: [clip for clip, held in zip(clips, held_out) if not held],
        held_out_name(args): [clip for clip, held in zip(clips, held_out) if held],
    }
