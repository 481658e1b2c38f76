"""What the subcommands that run a model share: its options, the files to work on, the bad ones.

In this file:
    add_model_arguments    --checkpoint, --batch-size, --device
    add_input_arguments    INPUT, --window, --hop
    load_model             a checkpoint, as the options say
    Clip, collect          files, folders and manifests -> clips
    Recording, probe       clips -> those whose headers can be read, with their lengths
    lay_windows            recordings -> their windows
    conclude               names the bad files at the end
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from eat_plugin.cli import SOME_FAILED, progress
from eat_plugin.data.containers import check_archives
from eat_plugin.data.entries import IMAGE_ENDINGS, original_name
from eat_plugin.data.manifest import encode_name, read_manifest
from eat_plugin.data.sources import probe_clip
from eat_plugin.inference import DEFAULT_BATCH, Loaded, load_checkpoint
from eat_plugin.inference.windows import Job, Window
from eat_plugin.prepare.find import AUDIO_ENDINGS, find_files, probe_all
from eat_plugin.prepare.processes import available_cores

Failures = dict[str, str]
"""Path of each file that cannot be used -> the reason."""


class Clip(NamedTuple):
    """A file to work on.

    Attributes:
        name: its path below the folder, or the manifest's root, that was given; its file name
            where it was given itself.
        path: where it is.
        samples: the length that a manifest gives, None without one.
    """

    name: str
    path: Path
    samples: int | None = None


class Recording(NamedTuple):
    """A clip whose header makes sense: samples and their rate in Hz; pixels of an image and 0."""

    name: str
    path: Path
    samples: int
    rate: int


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every subcommand that runs a model."""
    parser.add_argument(
        "--checkpoint", metavar="C", type=Path, required=True, help="checkpoint, ours or published"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=DEFAULT_BATCH,
        help="windows that the model sees at once; results do not depend on it (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)"
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the input of a subcommand, and how long files are cut."""
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=Path,
        help=f"audio file, folder (searched for {', '.join(AUDIO_ENDINGS)}) or manifest (.tsv); of "
        f"a model of images, images ({', '.join(IMAGE_ENDINGS)})",
    )
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        type=float,
        help="length of a window, rounded up to whole patches (default: that of training)",
    )
    parser.add_argument(
        "--hop",
        metavar="SECONDS",
        type=float,
        help="from the start of a window to that of the next (default: the window's length)",
    )


def load_model(args: argparse.Namespace) -> Loaded:
    """Load the checkpoint.

    Raises:
        ValueError: It is none, or an option makes no sense.
        OSError: It cannot be read.
    """
    if args.batch_size < 1:
        raise ValueError(f"--batch-size is {args.batch_size}; it must be 1 or more")
    return load_checkpoint(args.checkpoint, args.device)


def collect(inputs: list[Path], images: bool = False) -> tuple[list[Clip], Failures]:
    """Find the clips that were asked for, in the order given; those of a folder by name.

    Args:
        inputs: Files, folders and manifests.
        images: Look for images in folders, not for audio.

    Returns:
        The clips, and what in a folder cannot be used.

    Raises:
        ValueError: A path does not exist, a folder has no audio, or a manifest is wrong or its
            archives have changed.
        OSError: A folder cannot be listed.
    """
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path} does not exist")
    clips: list[Clip] = []
    failures: Failures = {}
    for path in inputs:
        if path.is_dir():
            clips += _search(path, images, failures)
        elif path.suffix.lower() == ".tsv":
            listed = read_manifest(path)
            check_archives(path.with_suffix(".archives"), listed.root)
            clips += (
                Clip(original_name(listed.name(index)), listed.path(index),
                int(listed.sizes[index])) for index in range(len(listed))
            )
        else:
            clips.append(Clip(path.name, path))
    usable = []
    for clip in dict.fromkeys(clips):
        try:
            encode_name(str(clip.path))
            usable.append(clip)
        except ValueError:
            failures[str(clip.path)] = "has a name that is not UTF-8, or holds a tab or line break"
    return usable, failures


def _search(folder: Path, images: bool, failures: Failures) -> list[Clip]:
    found = []
    endings = IMAGE_ENDINGS if images else AUDIO_ENDINGS
    for name, problem in find_files(folder, set(endings)):
        if problem is None:
            found.append(Clip(name, folder / name))
        else:
            failures[str(folder / name)] = problem
    if not found:
        kind = "images" if images else "audio"
        raise ValueError(f"no {kind} ({', '.join(endings)}) found under {folder}")
    return sorted(found)


def probe(clips: list[Clip], failures: Failures, images: bool = False) -> list[Recording]:
    """Read the headers of clips; those that make no sense are added to the failures."""
    recordings = []
    paths = [str(clip.path) for clip in clips]
    read_header: Callable[[str], tuple[int, int]] = probe_clip
    if images:
        from eat_plugin.images.decode import probe_image

        read_header = probe_image
    headers = probe_all(paths, available_cores(), read_header)
    found = progress(headers, "reading headers", "file", len(clips))
    for header, clip in zip(found, clips):  # in this order, or the bar does not end
        if isinstance(header, str):
            failures[str(clip.path)] = header
        else:
            # A manifest's length is compared with the file's where samples are read.
            samples = header[0] if clip.samples is None else clip.samples
            recordings.append(Recording(clip.name, clip.path, samples, header[1]))
    return recordings


def lay_windows(
    recordings: list[Recording], plans: list[list[Window]], failures: Failures
) -> Iterator[Job]:
    """List all windows of all recordings; of one that has failed meanwhile, no more."""
    for clip, (recording, windows) in enumerate(zip(recordings, plans)):
        for number, window in enumerate(windows):
            if str(recording.path) in failures:
                break
            yield Job(clip, number, recording.path, window.start, recording.samples)


def conclude(command: str, failures: Failures, total: int) -> int:
    """Name the files that could not be used.

    Args:
        command: The subcommand.
        failures: Those files.
        total: How many there are in all.

    Returns:
        The exit code: 0 if there are no failures, 1 otherwise.

    Raises:
        ValueError: No file at all could be used.
    """
    if not failures:
        return 0
    lines = [f"{path}: {reason}" for path, reason in failures.items()]
    if total == len(lines) == 1:
        raise ValueError(lines[0])
    listed = "".join(f"  {' '.join(line.split())}\n" for line in lines)
    sys.stderr.write(f"eat {command}: {len(lines)} of {total} files cannot be used:\n{listed}")
    if len(lines) == total:
        raise ValueError(f"none of the {total} files can be used")
    return SOME_FAILED
