"""`eat manifest`: list the audio files of a folder as a data set, with labels or without."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from eat_plugin.cli import layouts, listing, progress
from eat_plugin.cli.layouts import EXTENSIONS, LAYOUTS, held_out_name
from eat_plugin.cli.listing import Clip
from eat_plugin.data.discovery import available_cores, find_files, probe_all, sort_out
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import ClipLabels
from eat_plugin.data.layouts import TRAIN, Arrangement
from eat_plugin.data.manifest import encode_name
from eat_plugin.data.splits import hold_out, hold_out_by_class

NAME = "manifest"
HELP = "list the audio files of a folder: lengths, labels, a hold-out, and what cannot be used"
EXAMPLE = """
Writes DATA/SPLIT.tsv (the root, then a line 'path<TAB>samples' for each clip, sorted by path), with
--valid also DATA/valid.tsv, and DATA/rejected.tsv ('path<TAB>reason', empty if every file is good).
A run whose clips are partly in a hold-out that an earlier run left in DATA is refused.

Only headers are read. They show a file that is not audio, is empty, or (wav) ends early; damage
further inside shows only when a clip is decoded. Symbolic links are followed, each folder once.

Every --layout but plain also writes SPLIT.lbl (labels), label_descriptors.csv (classes),
class_counts.csv and train.weights.csv (for balanced sampling: of a clip, the sum over its classes
of 1000 / (clips of the class + 0.01)), and calls the clips held out 'eval'.

layouts, with examples:
  plain            no labels
    eat manifest /my/audio --out data --valid 0.01
  folders          CLASS/any/FILE
    eat manifest /my/audio --out data --layout folders --valid 0.1
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
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the audio files are")
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
        help=f"file name endings to look for (default: {' '.join(EXTENSIONS)})",
    )
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
    found = _arrange(args, root)
    planned = sorted({entry.split for entry in found.entries}, key=lambda s: (s != TRAIN, s))
    for split in planned:
        listing.check_split_name(split, "the split")
    if held_out_name(args) not in planned and args.valid is None:
        earlier = args.out / f"{held_out_name(args)}.tsv"
        listing.refuse_overlap(earlier, root, (entry.name for entry in found.entries))
    clips, damaged = _probe(root, found, args.workers)
    rejected = found.rejected + damaged
    args.out.mkdir(parents=True, exist_ok=True)
    listing.write_rejected(args.out, rejected)
    if found.missing is not None:
        listing.write_missing(args.out, found.missing)
    if not clips:
        raise ValueError(
            f"none of the {len(rejected)} audio files under {root} can be used; "
            f"{args.out / 'rejected.tsv'} tells why"
        )
    label_set, dropped = _used_classes(found, clips, root)
    splits = _divide(args, clips, label_set, planned)
    if label_set is not None:
        listing.write_all_labels(args.out, splits, label_set)
    listing.write_splits(args.out, root, splits)
    listing.summarise(args.out, clips, len(rejected), dropped, found)
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
    layouts.check_options(args)


def _arrange(args: argparse.Namespace, root: Path) -> Arrangement:
    """Find the clips and what the layout says of them."""
    layout = LAYOUTS[args.layout]
    if "ext" not in layout.options:  # a table says what files there are
        return layout.arrange(args, root, [])
    extensions = {ending.lower().lstrip(".") for ending in args.ext or EXTENSIONS}
    names, rejected = sort_out(progress(find_files(root, extensions), "finding", "file"))
    if not names and not rejected:
        raise ValueError(f"no audio ({', '.join(sorted(extensions))}) found under {root}")
    found = layout.arrange(args, root, names)
    found.rejected += rejected
    return found


def _probe(
    root: Path, found: Arrangement, workers: int
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Read the headers of all clips; part those that can be used from the others."""
    clips, damaged = [], []
    paths = [os.path.join(root, entry.name) for entry in found.entries]
    results = progress(probe_all(paths, workers), "reading headers", "file", len(paths))
    for result, entry in zip(results, found.entries):  # in this order, or the bar does not end
        if isinstance(result, str):
            damaged.append((entry.name, result))
        else:
            clips.append(Clip(*entry, *result))
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
                f"the split {split!r} has no usable clip; {args.out / 'rejected.tsv'} tells why"
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
