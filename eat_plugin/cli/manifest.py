r"""List the audio files or images of a folder: lengths, labels, a hold-out, problems.

Writes DATA/SPLIT.tsv (the root, then a line 'path<TAB>samples' per clip, sorted by path), with
--valid also DATA/valid.tsv, and DATA/rejected.tsv ('path<TAB>reason', empty if every file is good).
Rejected files do not change the exit code, 0.
If an earlier run left a hold-out in DATA with some of the clips, the run is refused.

Without --check only headers are read. They show files that are not audio, are empty, shorter than
25 ms or (wav) truncated; other damage shows only when a clip is decoded. Symbolic links are
followed, each folder is visited once.

DIR may be an address, as s3://bucket/folder or https://host/folder (needs the extra 'remote'; see
docs/data.md). --part I/N does the work on a part of the files, as a task of an array job; --merge N
takes the results of all parts, with the same other options, and writes the files.

Archives (.zip, .tar) and HDF5 files (.h5, .hdf5) are read in place, nothing is unpacked. The
manifest's entries are 'archive.zip:OFFSET:LENGTH' and 'file.h5/key'. Members have to be stored
uncompressed; datasets are [samples] or [samples, channels], floating-point or int16, with an
attribute sample_rate. DATA/SPLIT.archives lists the archives with size and mtime; training refuses
archives that have changed since. With --checksum, a new mtime alone is not a change.

--images lists images (PNG, JPEG, WebP; needs Pillow); the second column is then the number of
pixels, which training compares with the file. HDF5 files are ignored. With --check all images are
decoded, and damaged ones are excluded.

Every --layout except plain also writes SPLIT.lbl (labels), label_descriptors.csv (classes),
class_counts.csv and train.weights.csv (for balanced sampling; the weight of a clip is the sum over
its classes of 1000 / (clips of the class + 0.01)). Held-out clips are the split 'eval'.

layouts, with examples:
  plain            no labels
    eat manifest /my/audio --out data --valid 0.01
    eat manifest s3://bucket/clips --out data
    eat manifest /my/audio --out data --part 3/32    # and so on; then --merge 32
  folders          CLASS/any/FILE; an archive CLASS.zip is a folder CLASS
    eat manifest /my/audio --out data --layout folders --valid 0.1
    eat manifest /my/images --images --out data --layout folders --valid 0.1
  esc50            meta/esc50.csv and audio/FILE; the fold is held out
    eat manifest ESC-50-master --out data --layout esc50 --fold 1
  speech_commands  WORD/FILE, validation_list.txt, testing_list.txt; writes train, valid, eval
    eat manifest speech_commands_v0.02 --out data --layout speech_commands
  audioset         ID.ext, YID.ext or ID_START_END.ext, in any folder; run it once per split. Also
                   writes missing.tsv: 'id<TAB>start<TAB>end' of each segment without a file
    eat manifest audio/train --out data --layout audioset --csv balanced_train_segments.csv \
      --classes class_labels_indices.csv
    eat manifest audio/eval --out data --layout audioset --csv eval_segments.csv \
      --classes class_labels_indices.csv --split eval
  csv              columns of a table (.tsv: separated by tabs); paths are relative to DIR
    eat manifest /my/audio --out data --layout csv --csv table.csv --path-column file \
      --label-column tags --label-separator ';' --split-column subset
  pattern          a regular expression searched for in the path below DIR
    eat manifest /my/audio --out data --layout pattern --valid-groups anna,ben \
      --pattern '^(?P<group>[^/]+)/(?P<label>[a-z]+)_[0-9]+'
    eat manifest /my/audio --out data --layout pattern --valid-groups test \
      --pattern '^(?P<group>train|test)/(?P<label>[^/]+)/'
    eat manifest /my/archives --out data --layout pattern \
      --pattern '[.]zip/(?P<label>[^/]+)/'
  webdataset       shards (.tar, .zip): KEY.wav, with a label in KEY.cls or KEY.json; an index
                   (.idx) next to a shard has to fit it
    eat manifest /my/shards --out data --layout webdataset --json-key label --valid 0.1
  lhotse           Lhotse Shar: recording.NUMBER.tar and cuts.NUMBER.jsonl.gz
    eat manifest /my/shar --out data --layout lhotse --json-key language
  energon          Megatron Energon: shards, and .nv-meta with their splits
    eat manifest s3://bucket/prepared --out data --layout energon
  parquet          as of Hugging Face's datasets: a column of sounds. Files named as a split, as
                   test-00000-of-00002.parquet or test/0.parquet, are in it
    eat manifest /my/downloaded --out data --layout parquet --label-column label
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from eat_plugin.cli import add_workers, at_least, part_of, progress, quality_report, say
from eat_plugin.cli.inputs import parse_input
from eat_plugin.cli.outputs import check_folder
from eat_plugin.data.entries import IMAGE_ENDINGS
from eat_plugin.prepare.arrangement import TRAIN
from eat_plugin.prepare.data_folder import write_data_folder
from eat_plugin.prepare.find import AUDIO_ENDINGS
from eat_plugin.prepare.layouts import LAYOUTS, PLAIN, QUALITY, report_name
from eat_plugin.prepare.listing import list_clips, read_options
from eat_plugin.prepare.parts import write_part
from eat_plugin.prepare.quality import check_clips
from eat_plugin.prepare.work import MergedWork, Work
from eat_plugin.report import charts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}{quality_report.EPILOG}"
    parser.add_argument(
        "folder",
        metavar="DIR",
        type=parse_input,
        help="folder with the files, or s3://bucket/folder",
    )
    parser.add_argument(
        "--out", metavar="DATA", type=Path, required=True, help="folder for the manifests"
    )
    parser.add_argument("--split", metavar="NAME", help=f"name of the split (default: {TRAIN})")
    parser.add_argument(
        "--valid",
        metavar="FRACTION",
        type=float,
        help="hold out this fraction of the clips, at random, as the split 'valid'; with labels "
        "this fraction of each class, as the split 'eval'",
    )
    parser.add_argument(
        "--seed", metavar="N", type=at_least(0), default=0, help="seed of the hold-out (default: 0)"
    )
    add_workers(parser)
    parser.add_argument(
        "--ext",
        metavar="EXT",
        nargs="+",
        help=f"file name endings to list (default: {' '.join(AUDIO_ENDINGS)}; with --images "
        f"{' '.join(IMAGE_ENDINGS)})",
    )
    parser.add_argument(
        "--images", action="store_true", help="list images, for training with task.images"
    )
    parser.add_argument(
        "--checksum",
        action="store_true",
        help="store the SHA-256 of archives and HDF5 files, so that copies with a new mtime are "
        "accepted",
    )
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--part", metavar="I/N", type=part_of, help="work on part I of N alone, for array jobs"
    )
    parts.add_argument(
        "--merge", metavar="N", type=at_least(1), help="take the work of N parts, and finish"
    )
    quality_report.add_arguments(parser)
    _add_layout_arguments(parser)


def _add_layout_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layouts with labels")
    group.add_argument(
        "--layout",
        choices=tuple(LAYOUTS),
        metavar="LAYOUT",
        help=f"how clips and labels are stored: {', '.join(LAYOUTS)} (default: energon or lhotse, "
        f"if their files are in DIR, else {PLAIN})",
    )
    for flag, metavar, kind, text in (
        ("--fold", "N", int, "esc50: hold out this fold"),
        ("--csv", "FILE", Path, "audioset: the segments; csv: the table"),
        ("--classes", "FILE", Path, "audioset: class_labels_indices.csv"),
        ("--path-column", "NAME", str, "csv: column of paths (default: filename)"),
        ("--label-column", "NAME", str, "csv: column of labels (default: label); parquet: the same "
         "(default: no labels)"),
        ("--audio-column", "NAME", str, "parquet: column of sounds, if there are several"),
        ("--split-column", "NAME", str, "csv: column of splits (default: one split)"),
        ("--label-separator", "TEXT", str, "csv: separates labels (default: one label per field)"),
        ("--pattern", "REGEX", str, "pattern: with a group 'label' and optionally 'group'"),
        ("--valid-groups", "A,B", _split_names, "pattern: hold out the clips with these 'group's "
         "(speakers, sites, folders...)"),
        ("--json-key", "NAME", str, "webdataset: field of KEY.json with the label (default: "
         "KEY.cls, or else the field 'label'); energon: the same, or cls (default: no labels); "
         "lhotse: field of supervisions or cuts (default: no labels)"),
    ):  # fmt: skip
        group.add_argument(flag, metavar=metavar, type=kind, help=text)


def _split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def run(args: argparse.Namespace) -> int:
    args.drop = [problem for problems in args.drop for problem in problems]
    check_folder(args.out)
    if args.part is not None:
        say(write_part(args, progress))
        return 0
    work = Work()
    if args.merge is not None:
        read_options(args)
        work = MergedWork(args.out, args.merge, args)
    was_given = args.layout is not None
    listing = list_clips(args, progress, work)
    if not was_given and args.layout != PLAIN:
        say(f"layout: {args.layout}; --layout {PLAIN} lists all clips without it")
    if args.check and not args.images:
        examined, summary = check_clips(listing, args, progress, work)
        if examined:
            picture = args.out / report_name(QUALITY, args.split, "png")
            charts.write_picture("manifest", picture, partial(quality_report.draw, examined))
        say(summary)
    for line in write_data_folder(listing, args):
        say(line)
    return 0
