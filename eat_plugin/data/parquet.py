"""Rows of parquet files as clips: ``file.parquet/column:group:row``, the bytes of a sound file.

These are the clips of compressed files; those of others are ranges of bytes. A row cannot be read
alone: its row group is decoded once, and all of its clips go to the cache of remote files. Local
files are read in place; of files in stores, the ranges that hold the column.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .clip import ClipError
from .entries import Row
from .fingerprints import AGAIN, Fingerprint, take_fingerprint
from .remote_cache import Cache, find_cache
from .stores import UnreachableError
from .urls import is_url

LENGTH = 8  # bytes before a clip in the cache, its size
BATCH = 16  # rows that are decoded at once
MOST_BYTES = 1 << 31  # of a column in a row group, decoded; writers make about 100 MB
_decoding = threading.Lock()  # a row group may need 100 MB


def _begin_process() -> None:
    """Forget a lock that a thread of the parent may hold."""
    global _decoding
    _decoding = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_process)


def require_pyarrow() -> ModuleType:
    """Import pyarrow.parquet, or raise ClipError if it is not installed."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ClipError(
            "needs pyarrow, which is not installed (pip install 'eat-plugin[parquet]')"
        ) from error
    return parquet


@contextmanager
def open_parquet(path: str, stored: Fingerprint | None = None) -> Iterator[Any]:
    """Open a parquet file, here or in a store, as ``pyarrow.parquet.ParquetFile``.

    Args:
        path: path or address.
        stored: size and version of a file in a store.

    Raises:
        ClipError: it is missing, damaged, or has changed in its store; also while it is open.
        UnreachableError: its store cannot be used.
    """
    source: Any = path
    if is_url(path):
        from .remote import StoredFile

        source = StoredFile(path, stored)
    with parse_parquet(source) as file:
        yield file


@contextmanager
def parse_parquet(source: Any) -> Iterator[Any]:
    """Do the same with a local path or an open file."""
    parquet = require_pyarrow()
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(source, memory_map=True, pre_buffer=False) as file:
            yield file
    except (ClipError, UnreachableError):
        raise
    except (ArrowException, OSError) as error:
        text = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClipError(f"is damaged, cut off or no parquet file: {text}") from error


def read_values(file: Any, column: str, group: int) -> Iterator[Any]:
    """Yield the bytes of a column in a row group, as buffers; None where there are none.

    Args:
        file: from ``open_parquet``.
        column: of bytes, or of structures with a field ``bytes``.
        group: the row group.

    Raises:
        ClipError: they declare more than can be read at once.
    """
    path = bytes_path(file, column)
    chunks = file.metadata.row_group(group)
    for number in range(chunks.num_columns):
        chunk = chunks.column(number)
        if chunk.path_in_schema == path and chunk.total_uncompressed_size > MOST_BYTES:
            raise ClipError(
                f"has {chunk.total_uncompressed_size} bytes in the column {column!r} of a row "
                f"group, at most {MOST_BYTES} can be read; write smaller row groups"
            )
    for batch in file.iter_batches(BATCH, [group], [path], use_threads=False):
        values = batch.column(0)
        if path != column:
            values = values.field(0)
        for value in values:
            yield value.as_buffer() if value.is_valid else None


def bytes_path(file: Any, column: str) -> str:
    """Return the path of the bytes of a column; raise ClipError if it has none."""
    from pyarrow import types

    schema = file.schema_arrow
    index = schema.get_field_index(column)
    kind = None if index < 0 else schema.field(index).type
    if kind is not None and (types.is_binary(kind) or types.is_large_binary(kind)):
        return column
    if kind is not None and types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = kind.field("bytes").type
        if types.is_binary(inner) or types.is_large_binary(inner):
            return f"{column}.bytes"
    raise ClipError(f"has no column {column!r} of sound; {AGAIN}")


def group_key(row: Row, stored: Fingerprint) -> str:
    """Return the key of the row group of a row."""
    return _key(row, stored, f"{row.column}:{row.group}")


def open_row(row: Row, stored: Fingerprint | None) -> tuple[int, int, int]:
    """Open the sound file in a row; see ``files.open_range``.

    Args:
        row: the row.
        stored: size and version of a file in a store, if they are known.

    Raises:
        ClipError: the file cannot be read or has no such row, or it holds no bytes.
        UnreachableError: its store, or the cache on this machine, cannot be used.
    """
    if stored is None:
        stored = _identify(row.file)
    cache = find_cache()
    found = _open_cached(cache, row, stored)
    if found is None:
        with _decoding:  # of its group, maybe, by a thread that reads ahead
            found = _open_cached(cache, row, stored) or _decode(cache, row, stored)
    return found


def _identify(path: str) -> Fingerprint:
    if is_url(path):
        from .stores import take_stored

        return take_stored(path)
    try:
        return take_fingerprint(path, checksum=False)
    except OSError as error:
        raise ClipError(f"its parquet file cannot be opened: {error.strerror}") from error


def _key(row: Row, stored: Fingerprint, place: str | None = None) -> str:
    place = place or f"{row.column}:{row.group}:{row.number}"
    file = row.file if is_url(row.file) else os.path.abspath(row.file)
    return f"{stored.size} {stored.mtime_ns} {place} {file}"


def _open_cached(cache: Cache, row: Row, stored: Fingerprint) -> tuple[int, int, int] | None:
    descriptor = cache.open(_key(row, stored), None)
    if descriptor is None:
        return None
    size = os.fstat(descriptor).st_size
    if int.from_bytes(os.read(descriptor, LENGTH), "little") == size - LENGTH:
        return descriptor, LENGTH, size
    os.close(descriptor)  # cut off by a crash of the machine
    return None


def _decode(cache: Cache, row: Row, stored: Fingerprint) -> tuple[int, int, int]:
    """Put the clips of a row group into the cache, and open that of a row."""
    wanted: tuple[int, int] | None = None
    with open_parquet(row.file, stored) as file:
        _check_place(file, row)
        for number, value in enumerate(read_values(file, row.column, row.group)):
            if value is None:
                continue
            parts = [value.size.to_bytes(LENGTH, "little"), value]
            key = _key(row._replace(number=number), stored)
            try:
                descriptor = cache.add(key, parts.__iter__)
            except OSError as error:
                text = f"the cache: {error.strerror}"
                raise UnreachableError(error.errno, text, row.file) from error
            if number == row.number:
                wanted = descriptor, value.size
            else:
                os.close(descriptor)
    if wanted is None:
        raise ClipError("has no bytes in its row; the sound may be in a file that the row names")
    return wanted[0], LENGTH, LENGTH + wanted[1]


def _check_place(file: Any, row: Row) -> None:
    groups = file.metadata.num_row_groups
    if row.group >= groups:
        raise ClipError(f"is in row group {row.group}, but its file has {groups}; {AGAIN}")
    rows = file.metadata.row_group(row.group).num_rows
    if row.number >= rows:
        raise ClipError(f"is row {row.number} of a row group of {rows} rows; {AGAIN}")
