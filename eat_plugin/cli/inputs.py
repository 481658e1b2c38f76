"""Options and input files of the subcommands that run a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eat_plugin.choices import DEFAULT_BATCH
from eat_plugin.cli import Failures, at_least, progress
from eat_plugin.data.entries import IMAGE_ENDINGS, Entry, Storage, locate, original_name
from eat_plugin.data.fingerprints import check_archives
from eat_plugin.data.manifest import Manifest, encode_name, read_manifest
from eat_plugin.data.sources import probe_clip
from eat_plugin.data.urls import Root, Url, parse_root
from eat_plugin.prepare.find import AUDIO_ENDINGS, Found, endings_of, find_files, probe_all
from eat_plugin.prepare.processes import available_cores

if TYPE_CHECKING:
    from eat_plugin.inference import Loaded

LISTED_BY_MANIFEST = {"tsv", "gz", "tgz", "h5", "hdf5", "parquet", "tar", "zip"}  # endings of files

Clip = tuple[str, Entry]
"""An input file: path below the given folder or the manifest's root; where it is stored."""


class Recording(NamedTuple):
    """A clip with a valid header: its size in ``entry``, and its rate in Hz (0 for an image)."""

    name: str
    entry: Entry
    samples: int
    rate: int


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a subcommand that runs a model."""
    parser.add_argument(
        "--checkpoint", metavar="C", type=Path, required=True, help="checkpoint, ours or published"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=at_least(1),
        default=DEFAULT_BATCH,
        help="windows per batch; does not change results (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)"
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the input files and the windows of a subcommand."""
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=parse_input,
        help=f"audio file, folder (searched for {', '.join(AUDIO_ENDINGS)}) or manifest (.tsv); "
        f"images ({', '.join(IMAGE_ENDINGS)}) for a model of images",
    )
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        type=float,
        help="length of a window, rounded up to whole patches (default: as in training)",
    )
    parser.add_argument(
        "--hop",
        metavar="SECONDS",
        type=float,
        help="distance of the starts of two windows (default: length of a window)",
    )


def add_layer(parser: argparse.ArgumentParser, default: int | str) -> None:
    """Declare ``--layer``."""
    parser.add_argument(
        "--layer",
        metavar="N",
        type=_parse_layer,
        default=default,
        help="block: 1, 2, ..., -1 for the last, mean or all (default: %(default)s)",
    )


def _parse_layer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a subcommand that scores a held-out split."""
    parser.add_argument(
        "--max-missing",
        metavar="SHARE",
        type=_parse_share,
        default=0.0,
        help="largest share of the clips that may be missing with exit code 0 (default: 0)",
    )
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=at_least(0),
        default=1000,
        help="resamples for the interval; 0 for no interval (default: %(default)s)",
    )


def _parse_share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return share


def open_split(data: Path, split: str, loaded: Loaded) -> Manifest:
    """Read the manifest of a split for a model.

    Raises:
        ValueError: it cannot be read, or an archive or the cache does not fit it or the model.
    """
    manifest = read_manifest(data / f"{split}.tsv")
    check_archives(data / f"{split}.archives", manifest.root)
    if manifest.entry(0).storage is Storage.CACHE:
        from eat_plugin.data.feature_cache import check_cache

        front_end = loaded.front_end
        check_cache(manifest.entry(0), front_end.channels, kind=front_end.kind)
    return manifest


def collect(inputs: list[Root], images: bool = False) -> tuple[list[Clip], Failures]:
    """Find the files, in the order of the inputs, those of a folder by name; and unusable files.

    An address is that of a file. Folders are searched for images or audio. A folder without any is
    an error.
    """
    for path in inputs:
        if isinstance(path, Path) and not path.exists():
            raise ValueError(f"{path} does not exist")
    clips: list[Clip] = []
    failures: Failures = {}
    for path in inputs:
        if isinstance(path, Url):
            clips.append((path.rpartition("/")[2], _locate_stored(path)))
        elif path.is_dir():
            clips += _search(path, images, failures)
        elif path.suffix.lower() == ".tsv":
            listed = read_manifest(path)
            check_archives(path.with_suffix(".archives"), listed.root)
            clips += (
                (original_name(listed.name(index)), listed.entry(index))
                for index in range(len(listed))
            )
        else:
            clips.append((path.name, locate(path)))
    usable = []
    for name, entry in dict.fromkeys(clips):
        try:
            encode_name(entry.path)
            usable.append((name, entry))
        except ValueError:
            failures[entry.path] = "has a name that is not UTF-8, or has a tab or line break"
    return usable, failures


def parse_input(text: str) -> Root:
    """Return an argument's path or address; its error does not repeat an address with a secret."""
    try:
        return parse_root(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _locate_stored(url: Url) -> Entry:
    if not set(endings_of(url)) & {*AUDIO_ENDINGS, *IMAGE_ENDINGS}:
        raise ValueError(f"{url} is no audio file by its name; for a folder, run eat manifest")
    return locate(url)


def _search(folder: Path, images: bool, failures: Failures) -> list[Clip]:
    found, others = [], Found()
    endings = IMAGE_ENDINGS if images else AUDIO_ENDINGS
    for name, problem in find_files(folder, set(endings), others.others):
        if problem is None:
            found.append((name, locate(folder / name)))
        else:
            failures[str(folder / name)] = problem
    if not found:
        kind = "images" if images else "audio"
        there = f"; there are {others.list_others()}" if others.others else ""
        if others.others.keys() & LISTED_BY_MANIFEST:
            there += "; for archives and data folders, give the manifest from eat manifest"
        raise ValueError(f"no {kind} ({', '.join(endings)}) found under {folder}{there}")
    if others.others:
        sys.stderr.write(f"other files under {folder} are left out: {others.list_others()}\n")
    return sorted(found)


def probe(clips: list[Clip], failures: Failures, images: bool = False) -> list[Recording]:
    """Read the headers of clips; add those with an invalid header to the failures."""
    read_header: Callable[[Entry], tuple[int, int]] = probe_clip
    if images:
        from eat_plugin.images.decode import probe_image

        read_header = probe_image
    headers = probe_all([entry for _, entry in clips], available_cores(), read_header)
    recordings = []
    found = progress(headers, "reading headers", "file", len(clips))
    for header, (name, entry) in zip(found, clips):  # in this order, or the bar does not end
        if isinstance(header, str):
            failures[entry.path] = header
            continue
        # That of a manifest was compared with the header.
        samples = header[0] if entry.size is None else entry.size
        recordings.append(Recording(name, entry._replace(size=samples), samples, header[1]))
    return recordings
