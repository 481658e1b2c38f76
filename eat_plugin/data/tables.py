"""Small text files, read line by line; errors name file and line."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from .clip import ClipError
from .files import open_whole, replacing

MOST_COLUMNS_SHOWN = 12


class TableError(ValueError):
    """A file of labels or other data cannot be used. The message is ``file:line: reason``."""


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Read a UTF-8 text file, lines ending in LF or CR LF.

    Yields:
        The number of each line, from 1, and the line without its end.

    Raises:
        TableError: the file cannot be opened, or is not UTF-8.
    """
    for number, line in _decoded(path):
        yield number, line.rstrip("\r\n")


def read_rows(
    path: str | os.PathLike[str], skipinitialspace: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Read a csv file (tab-separated if named ``.tsv``), with or without a byte order mark.

    Yields:
        The number of each row's last line, and its fields; empty lines are skipped.

    Raises:
        TableError: the file cannot be opened, is not UTF-8, or a quotation does not end.
    """
    delimiter = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    lines = (line for _, line in _decoded(path))
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=skipinitialspace, strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise TableError(f"{path}:{rows.line_num}: {error}") from error


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], options: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Read some columns of a csv file by the names in its first row.

    Args:
        path: the file.
        columns: names of the columns.
        options: the option of each column, for messages.

    Yields:
        The number of each row's last line, and its fields in these columns, stripped.

    Raises:
        TableError: as ``read_rows``; a column is missing; a row has other fields than the header.
    """
    rows = read_rows(path)
    first, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    if not names:
        raise TableError(f"{path}: is empty; expected a first row with {', '.join(columns)}")
    for column, option in zip_longest(columns, options):
        if column not in names:
            shown = ", ".join(names[:MOST_COLUMNS_SHOWN])
            more = ", ..." if len(names) > MOST_COLUMNS_SHOWN else ""
            advice = f"; choose one with {option}" if option else ""
            if len(names) == 1 and ";" in names[0]:
                advice = "; fields must be separated by commas (in .tsv files by tabs)"
            raise TableError(
                f"{path}:{first}: no column {column!r}; there are: {shown}{more}{advice}"
            )
        if names.count(column) > 1:
            raise TableError(f"{path}:{first}: {names.count(column)} columns are named {column!r}")
    positions = [names.index(column) for column in columns]
    for number, row in rows:
        if len(row) < len(names) or any(row[len(names) :]):
            advice = "; quote a field that holds a comma" if len(row) > len(names) else ""
            raise TableError(
                f"{path}:{number}: {len(row)} of the header's {len(names)} fields{advice}"
            )
        yield number, [row[position].strip() for position in positions]


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a csv file, complete or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _decoded(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    # Line by line: text files decode in blocks, which hides the line of an error.
    number = 1
    try:
        with open_whole(os.fspath(path)) as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, text.decode("utf-8")
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except ClipError as error:
        raise TableError(f"{path}: {str(error).partition(';')[0]}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}:{number}: is not UTF-8") from error
