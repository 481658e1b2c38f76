"""Text tables: contents, errors of invalid files."""

from pathlib import Path

import pytest

from eat_plugin.data.tables import TableError, read_columns, read_lines, read_rows, write_csv


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_read_lines__any_line_end_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\n two\xc3\xbc \nthree")
    assert list(read_lines(path)) == [(1, "one"), (2, ""), (3, " two\u00fc "), (4, "three")]


def test_read_lines__error_names_the_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"good\n" * 9 + b"caf\xe9\n")
    with pytest.raises(TableError, match=f"^{path}:10: is not UTF-8$"):
        list(read_lines(path))


def test_read_lines__missing_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=f"^{tmp_path}/a: cannot be read: No such file"):
        list(read_lines(tmp_path / "a"))


def test_read_rows__quotes_and_empty_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'a,"b, ""c"""\n\nd,"two\nlines"\ne, "f"\n')
    rows = [(1, ["a", 'b, "c"']), (4, ["d", "two\nlines"]), (5, ["e", ' "f"'])]
    assert list(read_rows(path)) == rows
    path = write(path, b'e, "f, g"\n')
    assert list(read_rows(path, skipinitialspace=True)) == [(1, ["e", "f, g"])]


def test_read_rows__tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.TSV", b"a,b\tc\n")
    assert list(read_rows(path)) == [(1, ["a,b", "c"])]


def test_read_rows__unclosed_quotation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'a,b\nc,"d\ne,f\n')
    with pytest.raises(TableError, match=f"^{path}:3: unexpected end of data"):
        list(read_rows(path))


def test_read_columns__in_the_requested_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"x, y ,z\n1, 2 ,3\n4,5,6,,\n")
    assert list(read_columns(path, ["y", "x"])) == [(2, ["2", "1"]), (3, ["5", "4"])]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a,b\n1,2\n", ":1: no column 'y'; there are: a, b$"),
        (b"y,a,y\n1,2,3\n", ":1: 2 columns are named 'y'$"),
        (b"x;y\n1;2\n", ":1: no column 'y'; .*; fields must be separated by commas"),
        (b"", ": is empty; expected a first row with y$"),
        (b"a," * 12 + b"z", r":1: .* there are: (a, ){12}\.\.\.$"),
        (b"x,y\n1,2\n3\n", ":3: 1 of the header's 2 fields$"),
        (b"x,y\n1,dog, big\n", ":2: 3 of the header's 2 fields; quote a field that holds a comma$"),
    ],
)
def test_read_columns__error_names_the_cause(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path / "a.csv", data)
    with pytest.raises(TableError, match=f"^{path}{problem}"):
        list(read_columns(path, ["y"]))


def test_read_columns__names_the_option_of_a_missing_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"file,tag\nx,y\n")
    problem = ":1: no column 'label'; there are: file, tag; choose one with --label-column$"
    with pytest.raises(TableError, match=f"^{path}{problem}"):
        list(read_columns(path, ["file", "label"], ["--path-column", "--label-column"]))


def test_write_csv__round_trip(tmp_path: Path) -> None:
    rows = [["a", 'b "c", d'], ["\u00fc", "two\nlines"]]
    write_csv(tmp_path / "a.csv", rows)
    assert [row for _, row in read_rows(tmp_path / "a.csv")] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
