"""Files next to the manifest of a cache: labels, weights and events of its clips."""

from __future__ import annotations

from pathlib import Path

from ..data.events import name_clips
from ..data.files import replacing
from ..data.labels import split_line
from ..data.manifest import read_manifest
from ..data.tables import TableError, read_lines
from .cache_shards import SplitShards

LABELS, WEIGHTS = ".lbl", ".weights.csv"  # endings of files with one line per clip


def copy_lines(source: Path, shards: SplitShards) -> None:
    """Copy a file with one line per usable clip; labels get the entries of the cache."""
    lines = (line for _, line in read_lines(source))
    with replacing(shards.folder / source.name) as file:
        for line, outcome in zip(lines, shards.outcomes()):
            if outcome.entry is None:
                continue
            name, _ = split_line(line)
            if source.suffix == LABELS and name == outcome.name:  # other names stay
                line = outcome.entry + line[len(name) :]
            file.write(f"{line}\n".encode())


def copy_events(source: Path, shards: SplitShards) -> None:
    """Copy a table of strong labels, without the events of unusable clips.

    Raises:
        TableError: a name is that of several clips, of which the cache may lack some.
    """
    clips = name_clips(read_manifest(source.with_suffix(".tsv")))
    unusable = {number for number, each in enumerate(shards.outcomes()) if each.entry is None}
    with replacing(shards.folder / source.name) as file:
        for number, line in read_lines(source):
            name = line.split("\t")[0].strip()
            found = clips.get(name, set())
            if len(found) > 1:
                raise TableError(f"{source}:{number}: several clips have the name {name!r}")
            if not found or found - unusable:
                file.write(f"{line}\n".encode())
