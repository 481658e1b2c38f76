"""`eat features`: what a model makes of audio, as arrays."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from eat_plugin.cli import inputs, progress, say
from eat_plugin.cli.array_stores import Store, open_store
from eat_plugin.cli.inputs import Failures, Recording
from eat_plugin.data.clip import ClipError
from eat_plugin.inference import ALONG_TIME, GRANULARITIES, Loaded
from eat_plugin.inference.windows import ClipLayout, Windowing, column_times

NAME = "features"
HELP = "write the features that a model computes of audio files"
EXAMPLE = """
examples:
  eat features --checkpoint checkpoint_last.pt /my/audio --out features
  eat features --checkpoint checkpoint_last.pt an_hour.wav --out hour.npz --granularity grid

what is written, float32, for each file (T frames of 10 ms, F mel bins, patch p, width D):
  utterance    [D], the CLS token (the mean over patches in a model without one)
  frame        [columns, D], a column for each p frames, the mean over the mel axis
  grid         [columns, F/p, D], and beside it the times of the columns' centres in seconds
  all          [1 + (T/p)(F/p), D], all tokens, CLS first, then patches by time and mel band
With --layer all an axis of blocks comes first: [blocks, ...].

where:
  --out DIR        DIR/a/b.npy for a/b.wav, DIR/a/b.times.npy for the times of grid
  --out FILE.npz   an array 'a/b.wav' for each file, 'a/b.wav.times' for the times
  --out FILE.h5    data sets of those names (needs h5py)
a/b.wav is the path below the folder or the manifest's root; a file given itself has no folder.

A file longer than a window is cut into windows, one after the other, or as --hop says; a rest of
less than half a patch is left out. Of frame and grid the windows are joined along time: each
moment comes once, from the window in whose middle it is nearest, and columns of padding are left
out; without --hop, column i has its centre at (i + 1/2) p / 100 s. Of utterance and all, a file of
several windows gives a row for each: [windows, ...]. Shorter files are padded as in training.

A model of images takes images, whole: of H x W pixels, frame is [H/p, D], the mean over each row of
patches, grid [H/p, W/p, D], without times.

Files that cannot be used are named at the end; the exit code is then 1 (2 if none can).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    inputs.add_input_arguments(parser)
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--out", metavar="OUT", type=Path, required=True, help="folder, FILE.npz or FILE.h5"
    )
    parser.add_argument(
        "--granularity",
        choices=GRANULARITIES,
        default="utterance",
        help="what there is to be a vector for (default: %(default)s)",
    )
    parser.add_argument(
        "--layer",
        metavar="N",
        type=_parse_layer,
        default=-1,
        help="block whose output is taken: 1, 2, ..., -1 for the last, mean or all (default: "
        "%(default)s)",
    )


def _parse_layer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def run(args: argparse.Namespace) -> int:
    """Write the features of all files, and say where.

    Returns:
        0, or 1 if some files could not be used.

    Raises:
        ValueError: An option or an input makes no sense, or no file can be used.
        OSError: A file cannot be read or written.
    """
    loaded = inputs.load_model(args)
    images = loaded.images is not None
    clips, failures = inputs.collect(args.inputs, images)
    total = len(clips) + len(failures)
    loaded.check_features(args.granularity, args.layer)
    windowing = loaded.windowing(args.window, args.hop)
    with open_store(args.out) as store:
        with_times = args.granularity == "grid" and not images
        _check_names(store, [clip.name for clip in clips], with_times)
        recordings = inputs.probe(clips, failures, images)
        _extract(args, loaded, windowing, recordings, failures, store)
        code = inputs.conclude(NAME, failures, total)
    say(f"{args.out}: features of {total - len(failures)} of {total} files")
    return code


def _check_names(store: Store, names: list[str], with_times: bool) -> None:
    """Make sure that no file's features replace another's."""
    owners: dict[str, int] = {}
    for number, name in enumerate(names):
        key = store.key(name)
        for taken in (key, store.times_key(key))[: 1 + with_times]:
            owner = owners.setdefault(taken, number)
            if owner != number:
                raise ValueError(
                    f"the features of {names[owner]!r} and of {name!r} would both be called "
                    f"{taken!r}; give the folder that holds both, and --out FILE.npz, which keeps "
                    "the endings of names"
                )


def _extract(
    args: argparse.Namespace,
    loaded: Loaded,
    windowing: Windowing,
    recordings: list[Recording],
    failures: Failures,
    store: Store,
) -> None:
    """Compute all windows of all recordings, in order, and store each recording when complete."""
    plans = [loaded.plan(windowing, recording.samples, recording.rate) for recording in recordings]
    along_time = args.granularity in ALONG_TIME
    layouts = [ClipLayout(windows, along_time, args.layer == "all") for windows in plans]
    compute = partial(loaded.features, granularity=args.granularity, layer=args.layer)
    jobs = inputs.lay_windows(recordings, plans, failures)
    results = loaded.map_windows(jobs, windowing, compute, args.batch_size)
    array = None
    for job, row in progress(results, "computing features", "window", sum(map(len, plans))):
        if str(job.path) in failures:
            continue
        if isinstance(row, ClipError):
            failures[str(job.path)] = str(row)
            store.discard()
            continue
        layout, name = layouts[job.clip], recordings[job.clip].name
        if job.number == 0:
            array = store.begin(store.key(name), layout.shape(row.shape))
        assert array is not None
        layout.put(array, job.number, row)
        if job.number == len(layout.windows) - 1:
            times = None
            if args.granularity == "grid" and loaded.images is None:
                times = column_times(windowing, layout.windows)
            store.commit(times)
