"""`eat manifest`: list the audio files of a folder as a data set."""

from __future__ import annotations

import argparse
import math
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eat_plugin.cli import progress, say
from eat_plugin.data.manifest import encode_name, replacing, write_manifest
from eat_plugin.data.sources import ClipError, probe_audio

NAME = "manifest"
HELP = "list the audio files of a folder: lengths, a hold-out, and what cannot be used"
EXAMPLE = """
Writes DATA/SPLIT.tsv (the root, then a line 'path<TAB>samples' for each clip, sorted by path), with
--valid also DATA/valid.tsv, and DATA/rejected.tsv ('path<TAB>reason', empty if every file is good).

Only headers are read. They show a file that is not audio, is empty, or (wav) ends early; damage
further inside shows only when a clip is decoded. Symbolic links are followed, each folder once.

example:
  eat manifest /data/audioset --out /data/manifests --valid 0.01
"""
EXTENSIONS = ("wav", "flac", "ogg", "mp3")
REJECTED = "rejected"
CHUNK = 64  # files that a worker process probes at a time


class Clip(NamedTuple):
    """A usable file: its path below the root, its samples, and their rate in Hz."""

    name: str
    samples: int
    rate: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the audio files are")
    parser.add_argument(
        "--out", metavar="DATA", type=Path, required=True, help="folder for the manifests"
    )
    parser.add_argument("--split", default="train", help="name of the split (default: train)")
    parser.add_argument(
        "--valid",
        metavar="FRACTION",
        type=float,
        help="hold out this fraction of the clips, at random, as the split 'valid'",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the hold-out (default: 0)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=_available_cores(),
        help="processes that read headers (default: one a core, here %(default)s)",
    )
    parser.add_argument(
        "--ext",
        metavar="EXT",
        nargs="+",
        default=EXTENSIONS,
        help=f"file name endings to look for (default: {' '.join(EXTENSIONS)})",
    )


def run(args: argparse.Namespace) -> int:
    """List the clips, write the manifests, print a summary.

    Args:
        args: What `add_arguments` declares.

    Returns:
        0.

    Raises:
        ValueError: An option makes no sense, or there is no usable audio.
        OSError: A folder cannot be read, or a file cannot be written.
    """
    _check_options(args)
    root = Path(os.path.abspath(args.folder))
    encode_name(str(root))
    extensions = {ending.lower().lstrip(".") for ending in args.ext}
    names, rejected = _sort_out(progress(find_files(root, extensions), "finding", "file"))
    if not names and not rejected:
        raise ValueError(f"no audio ({', '.join(sorted(extensions))}) found under {root}")
    clips = []
    paths = [os.path.join(root, name) for name in names]
    results = progress(probe_all(paths, args.workers), "reading headers", "file", len(paths))
    for result, name in zip(results, names):  # in this order, or the bar is not seen to end
        if isinstance(result, str):
            rejected.append((name, result))
        else:
            clips.append(Clip(name, *result))
    args.out.mkdir(parents=True, exist_ok=True)
    _write_rejected(args.out, rejected)
    if not clips:
        raise ValueError(
            f"none of the {len(rejected)} audio files under {root} can be used; "
            f"{args.out / 'rejected.tsv'} tells why"
        )
    _write_splits(args, root, clips)
    _summarise(args.out, clips, rejected)
    return 0


def find_files(root: Path, extensions: set[str]) -> Iterator[tuple[str, str | None]]:
    """Walk a folder tree, each folder once, links to folders after all that is really there.

    Args:
        root: The folder.
        extensions: Endings of file names, lower case, without the dot.

    Yields:
        The path below ``root`` of each file with such an ending, and None; or of a folder that
        cannot be listed, and why.

    Raises:
        OSError: ``root`` is not a folder that can be listed.
    """
    folders, links, seen = deque([""]), deque[str](), set()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            yield folder, f"cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            name = f"{folder}{entry.name}"
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(f"{name}/")
            elif os.path.splitext(name)[1].lower().lstrip(".") in extensions:
                yield name, None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False


def _sort_out(
    found: Iterable[tuple[str, str | None]],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Part the files to probe, sorted, from what a manifest cannot hold, with the reason."""
    names, rejected = [], []
    for name, problem in found:
        if problem is None:
            try:
                encode_name(name)
            except ValueError as error:
                problem = str(error)
        if problem is None:
            names.append(name)
        else:
            rejected.append((name, problem))
    return sorted(names), rejected


def probe_all(paths: list[str], workers: int) -> Iterator[tuple[int, int] | str]:
    """Read the headers of files, in parallel.

    Args:
        paths: The files.
        workers: Processes to use at most. (Threads do not help: next to what soundfile does in
            Python, reading a header is quick.)

    Yields:
        For each file, in order: its samples and rate in Hz, or what is wrong with it.

    Raises:
        OSError: A worker process died.
    """
    workers = min(workers, math.ceil(len(paths) / CHUNK))
    if workers < 2:
        yield from map(_probe, paths)
        return
    pool = ProcessPoolExecutor(workers, initializer=_ignore_interrupts)
    try:
        yield from pool.map(_probe, paths, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise OSError("a process that reads headers died; is there enough memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _probe(path: str) -> tuple[int, int] | str:
    try:
        return probe_audio(path)
    except ClipError as error:
        return str(error)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends its workers


def _check_options(args: argparse.Namespace) -> None:
    if not args.folder.exists():
        raise ValueError(f"{args.folder} does not exist")
    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is not a folder")
    if args.split in ("", REJECTED) or set(args.split) & set("/\\\t\n\r\0"):
        raise ValueError(f"--split {args.split!r} cannot be the name of a manifest")
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.valid is not None and not 0 < args.valid < 1:
        raise ValueError(f"--valid must be a fraction between 0 and 1, got {args.valid}")
    if args.valid is not None and args.split == "valid":
        raise ValueError("--valid needs another --split than 'valid'")


def _write_splits(args: argparse.Namespace, root: Path, clips: list[Clip]) -> None:
    splits = {args.split: clips}
    if args.valid is not None:
        held_out = hold_out(len(clips), args.valid, args.seed)
        splits = {
            args.split: [clip for clip, held in zip(clips, held_out) if not held],
            "valid": [clip for clip, held in zip(clips, held_out) if held],
        }
    for split, chosen in splits.items():
        path = args.out / f"{split}.tsv"
        write_manifest(path, root, ((clip.name, clip.samples) for clip in chosen))
        say(f"{path}: {len(chosen)} clips, {_hours(chosen):.2f} hours")


def hold_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw the clips of a validation split.

    Args:
        count: Number of clips.
        fraction: Part to hold out; at least one clip is.
        seed: Of the draw.

    Returns:
        `[count]` bool, true where a clip is held out.

    Raises:
        ValueError: No clip would be left to train on.
    """
    number = max(1, round(count * fraction))
    if number >= count:
        raise ValueError(f"--valid {fraction} of {count} clips leaves none to train on")
    held_out = np.zeros(count, dtype=bool)
    held_out[np.random.default_rng(seed).permutation(count)[:number]] = True
    return held_out


def _write_rejected(out: Path, rejected: list[tuple[str, str]]) -> None:
    with replacing(out / f"{REJECTED}.tsv") as file:
        for name, reason in sorted(rejected):
            file.write(f"{_escape(name)}\t{_escape(reason)}\n".encode())


def _escape(text: str) -> str:
    """Spell what a line of UTF-8 cannot hold with backslashes."""
    readable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return readable.translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})


def _summarise(out: Path, clips: list[Clip], rejected: list[tuple[str, str]]) -> None:
    rates = Counter(clip.rate for clip in clips)
    say(f"{out / REJECTED}.tsv: {len(rejected)} rejected")
    say(f"total: {len(clips)} clips, {_hours(clips):.2f} hours")
    say("rates: " + ", ".join(f"{rate} Hz ({rates[rate]})" for rate in sorted(rates)))


def _hours(clips: list[Clip]) -> float:
    return sum(clip.samples / clip.rate for clip in clips) / 3600


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # what the job may use, not what the machine has
    return os.cpu_count() or 1
