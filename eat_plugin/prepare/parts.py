"""A part of the work of ``eat manifest``, for a task of an array job."""

from __future__ import annotations

import json
from argparse import Namespace

from ..data.entries import file_of
from ..data.files import replacing
from .amounts import count
from .arrangement import Arrangement, ListedClip
from .layouts import LAYOUTS
from .listing import Listing, find_all, read_headers, read_options
from .processes import Progress
from .quality import examine_all
from .work import RecordedWork, describe, part_path


def write_part(options: Namespace, progress: Progress) -> str:
    """Do the work on the files of part ``options.part``, record it; return a line about it."""
    root = read_options(options)
    number, total = options.part
    path = part_path(options.out, number, total, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(describe(options)).encode() + b"\n")
        work = RecordedWork(number, total, file)
        found = find_all(options, root, progress, work)
        listing = Listing(root, found, Arrangement([]), [], [])
        names = [found.entry(name) for name in found.names]
        if LAYOUTS[options.layout].is_table:
            items = LAYOUTS[options.layout].arrange(options, root, found).items
            names = [item.name for item in items if work.takes(file_of(item.name))]
        headers = read_headers(listing, names, options, work)
        results = progress(headers, "reading headers", "file", len(names))
        usable = [name for name, one in zip(names, results) if not isinstance(one, str)]
        if options.check and not options.images:
            clips = [ListedClip(name, "", (), 0, 0, name) for name in usable]
            for _ in examine_all(listing, clips, options, progress, work):
                pass
    return f"{path}: {count(len(names), 'clip')} of part {number} of {total}"
