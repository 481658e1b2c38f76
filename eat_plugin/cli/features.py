"""Compute the features of audio files.

Examples:
  eat features --checkpoint checkpoint_last.pt /my/audio --out features
  eat features --checkpoint checkpoint_last.pt an_hour.wav --out hour.npz --granularity grid

granularities (float32; T frames of 10 ms, F mel bins, patches of p frames and q bins, width
D):
  utterance    [D], the CLS token (mean over patches in a model without one)
  frame        [columns, D], a column per p frames, mean over the mel axis
  grid         [columns, F/q, D], and the times of the columns' centres in seconds
  all          [1 + (T/p)(F/q), D], all tokens: CLS, then patches by time and mel band
With --layer all, an axis of blocks comes first: [blocks, ...].

outputs:
  --out DIR        DIR/a/b.npy for a/b.wav, DIR/a/b.times.npy for the times of grid
  --out FILE.npz   an array 'a/b.wav' per file, 'a/b.wav.times' for the times
  --out FILE.h5    datasets with the same names (needs h5py)
a/b.wav is the path below the folder or the manifest's root; a file given itself has no folder.

A file longer than a window is cut into adjacent windows, or as --hop says. A rest shorter than half
a patch is left out. For frame and grid, windows are joined along time: a moment is taken from the
window with the nearest middle, and padding is excluded. Without --hop, the centre of column i is at
(i + 1/2) p / 100 s. For utterance and all, a file with several windows gives a row per window:
[windows, ...]. Shorter files are padded as in training.

A model of images takes whole images, H x W pixels: frame is [H/p, D], the mean over a row of
patches; grid is [H/p, W/q, D], without times.

Unusable files are listed at the end; the exit code is then 1 (2 if all are unusable).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eat_plugin.choices import ALONG_TIME, GRANULARITIES
from eat_plugin.cli import Failures, conclude, inputs, progress, say
from eat_plugin.cli.array_stores import Store, check_out, open_store
from eat_plugin.cli.inputs import Recording
from eat_plugin.data.clip import ClipError
from eat_plugin.prepare.amounts import count

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded
    from eat_plugin.inference.windows import Windowing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs.add_input_arguments(parser)
    inputs.add_model_arguments(parser)
    parser.add_argument(
        "--out", metavar="OUT", type=Path, required=True, help="folder, FILE.npz or FILE.h5"
    )
    parser.add_argument(
        "--granularity",
        choices=GRANULARITIES,
        default="utterance",
        help="unit of a feature vector (default: %(default)s)",
    )
    inputs.add_layer(parser, -1)


def run(args: argparse.Namespace) -> int:
    from eat_plugin.inference import load_checkpoint

    check_out(args.out)
    loaded = load_checkpoint(args.checkpoint, args.device)
    images = loaded.images is not None
    clips, failures = inputs.collect(args.inputs, images)
    total = len(clips) + len(failures)
    loaded.check_features(args.granularity, args.layer)
    windowing = loaded.windowing(args.window, args.hop)
    with open_store(args.out) as store:
        with_times = args.granularity == "grid" and not images
        _check_names(store, [name for name, _ in clips], with_times)
        recordings = inputs.probe(clips, failures, images)
        _extract(args, loaded, windowing, recordings, failures, store)
        code = conclude("features", failures, total)
    say(f"{args.out}: features of {total - len(failures)} of {count(total, 'file')}")
    return code


def _check_names(store: Store, names: list[str], with_times: bool) -> None:
    """Raise ValueError if the features of two files would have the same name."""
    owners: dict[str, int] = {}
    for number, name in enumerate(names):
        key = store.key(name)
        for taken in (key, store.times_key(key))[: 1 + with_times]:
            owner = owners.setdefault(taken, number)
            if owner != number:
                raise ValueError(
                    f"the features of {names[owner]!r} and {name!r} would have the same name "
                    f"{taken!r}; give the folder that has both, and --out FILE.npz, which keeps "
                    "endings"
                )


def _extract(
    args: argparse.Namespace,
    loaded: Loaded,
    windowing: Windowing,
    recordings: list[Recording],
    failures: Failures,
    store: Store,
) -> None:
    """Compute all windows in order and store each recording when it is complete."""
    from eat_plugin.inference.batches import list_jobs
    from eat_plugin.inference.windows import ClipLayout

    plans = [loaded.plan(windowing, recording.samples, recording.rate) for recording in recordings]
    along_time = args.granularity in ALONG_TIME
    layouts = [ClipLayout(windows, along_time, args.layer == "all") for windows in plans]
    compute = partial(loaded.features, granularity=args.granularity, layer=args.layer)
    jobs = list_jobs(zip((recording.entry for recording in recordings), plans))
    results = loaded.map_windows(jobs, windowing, compute, args.batch_size)
    array = None
    for job, row in progress(results, "computing features", "window", sum(map(len, plans))):
        if isinstance(row, ClipError):
            failures[job.entry.path] = str(row)
            continue
        layout = layouts[job.clip]
        if job.number == 0:
            array = store.begin(store.key(recordings[job.clip].name), layout.shape(row.shape))
        assert array is not None
        layout.put(array, job.number, row)
        if job.is_last:
            with_times = args.granularity == "grid"
            store.commit(loaded.times(windowing, layout.windows) if with_times else None)
