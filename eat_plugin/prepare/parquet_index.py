"""The rows of parquet files with a column of sound, as Hugging Face's ``datasets`` writes them.

The bytes of a sound lie in the file as they are, or within compressed pages. A row of the first
kind is listed as a range of bytes, found by comparing them; one of the second kind by its number.
"""

from __future__ import annotations

import json
import mmap
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..data.clip import ClipError
from ..data.files import open_whole
from ..data.json_text import parse_json
from ..data.label_set import LabelSet, check_label
from ..data.parquet import bytes_path, parse_parquet, read_values
from ..data.urls import is_url
from .archive_members import Contents
from .arrangement import Arrangement, Item, sort_classes
from .path_layouts import SPLIT_FOLDERS

NAMES = "names"  # the text with the names of the classes of a file
_SHARD = re.compile(r"(.+?)-[0-9]{5}-of-[0-9]{5}(?:-[0-9a-f]+)?")  # of a split, without ending


def index_parquet(
    path: str, contents: Contents, audio_column: str | None, label_column: str | None
) -> None:
    """Add the rows of a parquet file to its contents.

    A row is named ``column:group:row``; its text is JSON of its id and its labels.

    Raises:
        ValueError: the file cannot be read, or has not exactly one such column.
        UnreachableError: its store cannot be used.
    """
    stored = contents.fingerprint if is_url(path) else None
    try:
        # The whole file is read, so that of a store is fetched.
        with open_whole(path, stored) as file, parse_parquet(file if stored else path) as table:
            column = _find_audio(table, audio_column)
            features = _features(table)
            reader = _Labels(table, features, label_column)
            contents.texts[NAMES] = json.dumps(reader.names).encode()
            for group in range(table.metadata.num_row_groups):
                rows = zip(_places(file, table, column, group), reader.rows(column, group))
                for number, (place, text) in enumerate(rows):
                    name = f"{column}:{group}:{number}"
                    if place is None:
                        reason = "has no bytes; a row that names a file cannot be read"
                        contents.rejected.append((name, reason))
                        continue
                    contents.clips[name] = place or f"/{name}"
                    contents.texts[name] = text
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError as error:
        if is_url(path):
            raise
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def arrange_parquet(
    names: list[str], texts: Mapping[str, bytes], with_labels: bool, split: str
) -> Arrangement:
    """Arrange the rows of parquet files, ``file/column:group:row``.

    The split of ``data/validation-00000-of-00002.parquet`` and ``validation/0000.parquet`` is
    ``validation``; of other names it is ``split``.

    Args:
        names: of the rows, sorted.
        texts: of ``index_parquet``.
        with_labels: rows without labels are rejected.
        split: name of the split.

    Raises:
        ValueError: the files have different classes.
    """
    items, rejected, classes = [], [], None
    combinations: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple per set saves memory
    splits: dict[str, str] = {}
    for name in sorted(names, key=_order):
        file, _, _ = name.rpartition("/")
        if file not in splits:
            splits[file] = _split_of(file) or split
            named = parse_json(texts[f"{file}/{NAMES}"])
            if classes not in (None, named):
                raise ValueError(f"{file} has other classes than the files before it")
            classes = named
        key, labels = parse_json(texts[name])
        if with_labels and not labels:
            rejected.append((name, "has no label"))
            continue
        chosen = tuple(labels or ())
        items.append(Item(name, splits[file], combinations.setdefault(chosen, chosen), key or ""))
    if not with_labels:
        return Arrangement(items, rejected)
    return Arrangement(
        items, rejected, LabelSet(tuple(classes)) if classes else sort_classes(items)
    )


def _order(name: str) -> tuple[str, int, int]:
    place, group, row = name.rsplit(":", 2)
    return place, int(group), int(row)


def _split_of(file: str) -> str | None:
    """Return the split that the name of a file, or of its folder, says; None for none."""
    folder, name = posixpath.split(file)
    match = _SHARD.fullmatch(name.rpartition(".")[0])
    if match is not None:
        return match[1]
    parent = posixpath.basename(folder)
    return parent if parent.lower() in SPLIT_FOLDERS else None


def _features(table: Any) -> dict[str, Any]:
    """Return what ``datasets`` wrote about the columns; nothing for other files."""
    text = (table.schema_arrow.metadata or {}).get(b"huggingface")
    try:
        features = parse_json(text)["info"]["features"] if text else {}
    except (ValueError, LookupError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _find_audio(table: Any, wanted: str | None) -> str:
    """Return the column of sound."""
    schema, features = table.schema_arrow, _features(table)
    columns = [name for name in schema.names if _kind(features.get(name)) in ("Audio", None)]
    found = [name for name in columns if _has_bytes(table, name)]
    found = [name for name in found if _kind(features.get(name)) == "Audio"] or [
        name for name in found if name not in features and schema.field(name).type.num_fields
    ]
    shown = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is not None:
        if wanted not in schema.names or not _has_bytes(table, wanted):
            raise ValueError(f"--audio-column {wanted}: no such column of sound; it has: {shown}")
        found = [wanted]
    if not found:
        raise ValueError(
            f"has no column of sound (a structure with 'bytes'); its columns: {shown}; name one "
            "by --audio-column"
        )
    if len(found) > 1:
        raise ValueError(
            f"has several columns of sound; choose --audio-column {' or '.join(found)}"
        )
    if "/" in found[0] or ":" in found[0]:
        raise ValueError(f"the column {found[0]!r} has '/' or ':' in its name; rename it")
    return found[0]


def _has_bytes(table: Any, name: str) -> bool:
    try:
        return bool(bytes_path(table, name))
    except ClipError:
        return False


def _kind(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _places(file: Any, table: Any, column: str, group: int) -> Iterator[str | None]:
    """Yield ``:offset:length`` of the bytes of each row, "" if they are not in one piece, or None.

    Plain pages hold each value as four bytes of its length, and its bytes.
    """
    start, end = _extent(table, column, group)
    page = start - start % mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(file.fileno(), end - page, access=mmap.ACCESS_READ, offset=page) as content:
        position, is_plain = start - page, True
        for value in read_values(table, column, group):
            if value is None:
                yield None
                continue
            data = value.size.to_bytes(4, "little") + value.to_pybytes()
            found = content.find(data, position) if is_plain else -1
            if found < 0:
                is_plain = False  # nor will the others be, and a search reads all of them
                yield ""
                continue
            position = found + len(data)
            yield f":{page + found + 4}:{value.size}"


def _extent(table: Any, column: str, group: int) -> tuple[int, int]:
    """Return the first byte of a column in a row group, and the byte after its last one."""
    path, chunks = bytes_path(table, column), table.metadata.row_group(group)
    for number in range(chunks.num_columns):
        chunk = chunks.column(number)
        if chunk.path_in_schema == path:
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                first = min(first, chunk.dictionary_page_offset)
            return first, first + chunk.total_compressed_size
    raise ClipError(f"has no values in the column {path!r}")


class _Labels:
    """Ids and labels of the rows.

    Args:
        table: the open file.
        features: of the columns.
        column: of labels; None for none.
    """

    def __init__(self, table: Any, features: dict[str, Any], column: str | None) -> None:
        self._table, self._column = table, column
        if column is not None and column not in table.schema_arrow.names:
            shown = ", ".join(table.schema_arrow.names)
            raise ValueError(f"--label-column {column}: no such column; it has: {shown}")
        feature = features.get(column) if column else None
        if isinstance(feature, list) and feature:  # of older versions
            feature = feature[0]
        if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, dict) else None
        self.names: list[str] | None = names if isinstance(names, list) else None

    def rows(self, audio: str, group: int) -> Iterator[bytes]:
        """Yield the JSON of each row of a row group."""
        ids, wanted = [], [self._column] if self._column else []
        kind = self._table.schema_arrow.field(audio).type
        if bytes_path(self._table, audio) != audio and kind.get_field_index("path") >= 0:
            ids = [f"{audio}.path"]
        if not ids + wanted:
            yield from [b"[null, null]"] * self._table.metadata.row_group(group).num_rows
            return
        read = self._table.read_row_group(group, columns=ids + wanted, use_threads=False)
        for row in read.to_pylist():
            name = (row.get(audio) or {}).get("path") if ids else None
            value = row[self._column] if self._column else None
            yield json.dumps([name, self._convert(value)]).encode()

    def _convert(self, value: Any) -> list[str] | None:
        """Return the labels of a row; None for none."""
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        values = [each for each in values if each is not None]
        is_wrong = any(
            isinstance(each, bool) or not isinstance(each, (str, int)) for each in values
        )
        if self.names is not None and not is_wrong:  # -1 stands for no label
            named = dict(enumerate(self.names))
            values = [named.get(each, each) for each in values if each != -1]
            is_wrong = not set(values) <= set(self.names)
        if is_wrong:
            raise ValueError(
                f"--label-column {self._column}: found {value!r}, expected a text, an integer, a "
                "class or a list of them"
            )
        return [check_label(str(each)) for each in dict.fromkeys(values)]
