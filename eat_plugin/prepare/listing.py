"""The clips of a data set: found, arranged by a layout, their headers read."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.entries import HDF5_ENDINGS, IMAGE_ENDINGS, PARQUET, Clip, file_of, locate
from ..data.fingerprints import Fingerprint, find_containers, take_fingerprint
from ..data.frames import FRAME_LENGTH, SAMPLE_RATE, TOO_SHORT
from ..data.manifest import encode_name
from ..data.overlap import SplitFiles, find_shared, is_held_out
from ..data.sources import probe_clip
from ..data.urls import Root, Url
from .arrangement import TRAIN, Arrangement, ListedClip, sort_splits
from .find import AUDIO_ENDINGS, CHUNK, WHOLE, Found, find_clips
from .layouts import (
    LAYOUTS,
    PLAIN,
    check_options,
    check_split_name,
    find_layout,
    held_out_split,
)
from .processes import Progress
from .work import Work


@dataclass
class Listing:
    """The clips of a data set."""

    root: Root
    found: Found
    arrangement: Arrangement
    clips: list[ListedClip]  # the usable ones
    rejected: list[tuple[str, str]]  # names of the others, each with the reason

    @property
    def splits(self) -> list[str]:
        """Splits of the layout, ``train`` first."""
        return sort_splits({item.split for item in self.arrangement.items})

    def clip(self, name: str) -> Clip:
        """Return the clip of an entry, to be read."""
        path = os.path.join(self.root, name)
        if not isinstance(self.root, Url):
            return path
        return locate(path)._replace(stored=self.found.fingerprints.get(file_of(name)))


def read_options(options: Namespace) -> Root:
    """Check the options, set layout and split, and return the root of the clips."""
    if options.layout is None:
        options.layout = PLAIN
        if isinstance(options.folder, Url) or options.folder.is_dir():
            options.layout = find_layout(options.folder)
    check_options(options)
    options.split = options.split or TRAIN
    root = options.folder
    if not isinstance(root, Url):
        root = Path(os.path.abspath(root))
    encode_name(str(root))
    return root


def list_clips(options: Namespace, progress: Progress, work: Work = WHOLE) -> Listing:
    """Find the clips of a data set and read their headers.

    It is an error if an earlier run holds some of them out, or this run holds out training clips.
    """
    root = read_options(options)
    found = find_all(options, root, progress, work)
    arrangement = LAYOUTS[options.layout].arrange(options, root, found)
    listing = Listing(root, found, arrangement, [], found.rejected + arrangement.rejected)
    names = [found.entry(item.name) for item in arrangement.items]
    for split in listing.splits:
        check_split_name(split, "the split")
    if options.valid and listing.splits not in ([], [options.split]):
        raise ValueError(
            f"--valid: the data set has the splits {', '.join(listing.splits)} already; omit it"
        )
    _identify(listing, names, options)
    _refuse_overlap(listing, names, options)
    _probe(listing, names, options, progress, work)
    listing.rejected = [(found.shown(name), reason) for name, reason in listing.rejected]
    return listing


def _identify(listing: Listing, names: list[str], options: Namespace) -> None:
    """Take the fingerprints of files that a table lists."""
    root, known = listing.root, listing.found.fingerprints
    missing = [file for file in find_containers(root, names) if file not in known]
    if isinstance(root, Url) and missing:
        from ..data.stores import take_all  # needs an optional library

        answers = zip(missing, take_all(root / file for file in missing))
        known.update((file, each) for file, each in answers if isinstance(each, Fingerprint))
    else:
        known.update((file, take_fingerprint(root / file, options.checksum)) for file in missing)


def find_all(options: Namespace, root: Root, progress: Progress, work: Work) -> Found:
    """Find the clips; none if the layout lists those of this machine in a table."""
    layout = LAYOUTS[options.layout]
    if layout.is_table and not isinstance(root, Url):
        return Found()
    endings, containers, kind = (*AUDIO_ENDINGS, *layout.endings), layout.containers, "audio"
    if options.images:
        containers = tuple(each for each in containers if each not in HDF5_ENDINGS)
        endings, kind = IMAGE_ENDINGS, "images"
    wanted = {ending.lower().lstrip(".") for ending in options.ext or endings}
    if options.layout == PARQUET:
        wanted.clear()
    return find_clips(
        root, wanted, containers, layout.texts, options.checksum, options.workers, progress, kind,
        work, layout.only, (options.audio_column, options.label_column),
    )  # fmt: skip


def _refuse_overlap(listing: Listing, names: list[str], options: Namespace) -> None:
    """Raise ValueError if an earlier run holds out training clips of this run, or the reverse."""
    written = {*listing.splits, *([held_out_split(options)] if options.valid else [])}
    places = list(zip((item.split for item in listing.arrangement.items), names))
    for manifest in sorted(options.out.glob("*.tsv")):
        if manifest.stem in written:
            continue
        if manifest.stem == TRAIN:
            chosen = [name for split, name in places if options.valid or is_held_out(split)]
        elif is_held_out(manifest.stem):
            chosen = [name for split, name in places if split == TRAIN]
        else:
            continue
        prints = listing.found.fingerprints.items()
        archives = {each.sha256: name for name, each in prints if each.sha256}
        encoded = [list(map(encode_name, chosen))]
        here = SplitFiles(listing.root, partial(iter, encoded), archives)
        shared = find_shared(here, SplitFiles.of_manifest(manifest))
        if shared:
            raise ValueError(
                f"{manifest}, written by an earlier run, has {len(shared)} of the clips of this "
                f"run, for example {shared[0]!r}; remove it, hold out clips again or choose "
                "another --out"
            )


def read_headers(
    listing: Listing, names: list[str], options: Namespace, work: Work
) -> Iterator[Any]:
    """Yield samples and rate of each clip, whose entries are ``names``, or why there are none."""
    probe: Callable[[Clip], tuple[int, int]] = probe_clip
    if options.images:
        from ..images.decode import probe_entry

        probe = partial(probe_entry, decode=options.check)
    clips = list(map(listing.clip, names))
    return work.map("header", probe, clips, names, options.workers, CHUNK)


def _probe(
    listing: Listing, names: list[str], options: Namespace, progress: Progress, work: Work
) -> None:
    """Read the headers of the clips, whose entries are ``names``."""
    headers = read_headers(listing, names, options, work)
    results = progress(headers, "reading headers", "file", len(names))
    for result, item, name in zip(results, listing.arrangement.items, names):
        if isinstance(result, str):
            hint = listing.arrangement.hints.get(item.name)
            listing.rejected.append((item.name, f"{result}; {hint}" if hint else result))
        else:
            samples, rate = result
            if rate and math.ceil(samples * SAMPLE_RATE / rate) < FRAME_LENGTH:
                listing.rejected.append((item.name, TOO_SHORT))
                continue
            shown = listing.found.shown(item.name)
            clip = ListedClip(name, item.split, item.labels, samples, rate, shown, id=item.id)
            listing.clips.append(clip)
