"""The classes of a data set: round trip, errors of invalid files."""

from pathlib import Path

import pytest

from eat_plugin.data.label_set import (
    LabelSet,
    join_labels,
    read_label_set,
    split_labels,
    write_label_set,
)
from eat_plugin.data.tables import TableError


def write(folder: Path, *lines: str) -> Path:
    path = folder / "label_descriptors.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_label_set__positions() -> None:
    label_set = LabelSet(("dog", "cat"), ("A dog", "A cat"))
    assert len(label_set) == 2
    assert [label_set.index(label) for label in ("dog", "cat")] == [0, 1]
    assert LabelSet(("dog", "cat")).names == ("dog", "cat")


def test_label_set__unknown_label() -> None:
    label_set = LabelSet(("dog", "cat", "c", "d", "e", "f"))
    with pytest.raises(ValueError, match="^unknown label 'dogs'; 6 are known, did you mean 'dog'"):
        label_set.index("dogs")
    with pytest.raises(ValueError, match="begin with 'dog', 'cat', 'c', 'd', 'e'$"):
        label_set.index("/m/012")


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["dog", "a b"], "dog,a b"),
        (["man, speaking", "dog"], '"man, speaking",dog'),
        (['"a, b"', 'the 12" disc'], '"""a, b""",the 12" disc'),
        (['"quoted"'], '"""quoted"""'),
    ],
)
def test_join_labels__split_labels_is_its_inverse(labels: list, text: str) -> None:
    assert join_labels(labels) == text
    assert split_labels(text) == labels
    assert split_labels(text, labels) == labels


def test_split_labels__double_quotes_of_earlier_files_stay() -> None:
    assert split_labels('"quoted",dog', ['"quoted"', "dog"]) == ['"quoted"', "dog"]
    assert split_labels('"quoted", "a,b"', ["dog"]) == ["quoted", "a,b"]
    with pytest.raises(ValueError, match="have invalid double quotes"):
        split_labels('"a,b')


@pytest.mark.parametrize(
    ("ids", "names", "problem"),
    [
        (("a", "b", "a"), (), "'a' occurs twice"),
        (("a", ""), (), "an empty label"),
        (("a", "b\tc"), (), "holds a tab"),
        (("a", "b\rc"), (), "holds a line break"),
        (("a", " b"), (), "' b' begins or ends with a space"),
        (("a", "b"), ("A",), "1 names for 2 classes"),
    ],
)
def test_label_set__invalid_sets_are_refused(ids: tuple, names: tuple, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LabelSet(ids, names)


def test_label_set__from_a_checkpoint() -> None:
    assert LabelSet.from_indices({"b": "1", "a": "0", "c": 2}).ids == ("a", "b", "c")


@pytest.mark.parametrize(
    "indices", [{"a": "0", "b": "0"}, {"a": 1, "b": 2}, {"a": "0", "b": "x"}, {"a": 0, "b": -1}]
)
def test_label_set__gaps_in_a_checkpoint_are_refused(indices: dict) -> None:
    with pytest.raises(ValueError, match=r"label '\w' has the index .* 2 classes are 0 to 1"):
        LabelSet.from_indices(indices)


def test_read_label_set__round_trip(tmp_path: Path) -> None:
    label_set = LabelSet(("/m/09x0r", 'd "x"'), ("Speech, human", "plain"))
    write_label_set(tmp_path / "a.csv", label_set)
    assert (tmp_path / "a.csv").read_text().startswith('0,/m/09x0r,"Speech, human"\n')
    assert read_label_set(tmp_path / "a.csv") == label_set


@pytest.mark.parametrize("header", ["index,mid,display_name", "index,label,name", None])
def test_read_label_set__published_files(tmp_path: Path, header: str) -> None:
    lines = ['0,/m/09x0r,"Speech"', '1,/m/05zppz,"Male speech, man speaking"']
    label_set = read_label_set(write(tmp_path, *([header] if header else []), *lines))
    assert label_set.ids == ("/m/09x0r", "/m/05zppz")
    assert label_set.names == ("Speech", "Male speech, man speaking")


def test_read_label_set__any_order_and_no_names(tmp_path: Path) -> None:
    label_set = read_label_set(write(tmp_path, "2,c", "0,a,A", "1, b ,"))
    assert label_set == LabelSet(("a", "b", "c"), ("A", "b", "c"))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((), ":1: no classes"),
        (("index,mid,display_name",), ":1: no classes"),
        (("0,a", "1"), ":2: expected 'index,label,name' .*, got '1'"),
        (("0,a", "x,b"), ":2: expected .*, got 'x,b'"),
        (("0,a,A, or B",), ":1: expected .* in double quotes"),
        (("0,a", "-1,b"), ":2: expected"),
        (("0,a", "0,b"), ":2: the index 0 is in line 1 already"),
        (("0,a", "1,a"), ":2: the label 'a' is in line 1 already"),
        (("0,a", "2,b"), ": no class has the index 1; the indices of 2 classes are 0 to 1"),
        (("0,a", "1,"), ":2: an empty label"),
        (("0,a", "index,mid,display_name"), ":2: expected"),
    ],
)
def test_read_label_set__error_names_the_line(tmp_path: Path, lines: tuple, problem: str) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(TableError, match=f"^{path}{problem}"):
        read_label_set(path)
