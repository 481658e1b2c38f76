"""The work on archives and clips of ``eat manifest``: done here, or by the tasks of an array job.

A task does the work on a part of the files, chosen by their names, and records the results in
``DATA/parts``. Afterwards one process reads them in place of the files.
"""

from __future__ import annotations

import json
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..data.json_text import parse_json
from .processes import try_in_processes

FOLDER = "parts"
OPTIONS = (  # on which results depend
    "layout", "ext", "images", "checksum", "check", "channels", "audio_column", "label_column",
)  # fmt: skip
AGAIN = "run eat manifest with --part again for each part"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Work:
    """Work that is done by this process and its workers."""

    is_whole = True

    def takes(self, name: str) -> bool:
        """Whether the work on a file, named by its path below the root, is to be done here."""
        return True

    def map(
        self,
        kind: str,
        function: Callable[[Item], Result],
        items: list[Item],
        names: list[str],
        workers: int,
        chunk: int,
        *,
        decode: Callable[[Any], Result] | None = None,
    ) -> Iterator[Result | str]:
        """Yield the result of a function for each item, or the message of its ClipError.

        Args:
            kind: of the results.
            function: picklable.
            items: what it is called with.
            names: a name for each item.
            workers: number of processes.
            chunk: items per task of a process.
            decode: makes a result of its JSON.
        """
        return try_in_processes(function, items, workers, chunk)


class RecordedWork(Work):
    """Work on a part of the files, whose results are written to a file.

    Args:
        number: of the part, from 1.
        total: number of parts.
        file: open for writing.
    """

    is_whole = False

    def __init__(self, number: int, total: int, file: BinaryIO) -> None:
        self._number, self._total, self._file = number, total, file

    def takes(self, name: str) -> bool:
        """Whether a file is in this part; it does not depend on other files."""
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self._total == self._number - 1

    def map(
        self, kind: str, function: Any, items: Any, names: Any, *arguments: Any, **options: Any
    ) -> Iterator[Any]:
        """Do the same, and write the results."""
        results = super().map(kind, function, items, names, *arguments, **options)
        for result, name in zip(results, names):
            value = asdict(result) if is_dataclass(result) else result  # type: ignore[arg-type]
            line = json.dumps([kind, name, value], default=_encode_bytes)
            self._file.write(line.encode() + b"\n")
            yield result


def _encode_bytes(value: Any) -> str:
    return bytes(value).decode("latin-1")


class MergedWork(Work):
    """Results that were recorded.

    Args:
        folder: with the files of all parts.
        total: number of parts.
        options: of the command, which the parts must have had too.

    Raises:
        ValueError: a part is missing, or had other options.
    """

    def __init__(self, folder: Path, total: int, options: Namespace) -> None:
        self._records: dict[tuple[str, str], Any] = {}
        for number in range(1, total + 1):
            path = part_path(folder, number, total, options)
            if not path.is_file():
                raise ValueError(
                    f"there is no {path}; run eat manifest with --part {number}/{total} first"
                )
            with open(path, "rb") as file:
                if parse_json(file.readline()) != describe(options):
                    raise ValueError(f"{path} is of another folder or other options; {AGAIN}")
                for line in file:
                    kind, name, value = parse_json(line)
                    self._records[kind, name] = value

    def map(
        self, kind: str, function: Any, items: Any, names: Any, *arguments: Any, decode: Any = None
    ) -> Iterator[Any]:
        """Return the recorded results.

        Raises:
            ValueError: one is missing.
        """
        for name in names:
            if (kind, name) not in self._records:
                raise ValueError(f"{name!r} was not there when the parts were listed; {AGAIN}")
            value = self._records[kind, name]
            yield value if decode is None or isinstance(value, str) else decode(value)


def describe(options: Namespace) -> dict[str, Any]:
    """Return the options on which recorded results depend."""
    return {"folder": str(options.folder), **{name: getattr(options, name) for name in OPTIONS}}


def part_path(folder: Path, number: int, total: int, options: Namespace) -> Path:
    """Return the file with the results of a part, from 1; each split has its own."""
    return folder / FOLDER / f"{options.split}-{number}-of-{total}.jsonl"
