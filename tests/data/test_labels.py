"""Labels and weights of clips: hand-computed cases, errors of invalid files."""

import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import (
    ClipLabels,
    clip_weights,
    count_labels,
    read_labels,
    read_weights,
    split_line,
    write_labels,
    write_weights,
)
from eat_plugin.data.manifest import Manifest, read_manifest, write_manifest
from eat_plugin.data.tables import TableError

CLASSES = LabelSet(("a", "b", "two words"))
NAMES = ("x/1.wav", "x/2.wav", "with space/3 c.wav")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_manifest(tmp_path / "train.tsv", tmp_path, [(name, 1) for name in NAMES])
    return read_manifest(tmp_path / "train.tsv")


def write(folder: Path, *lines: str) -> Path:
    path = folder / "train.lbl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def lists(labels: ClipLabels) -> list:
    return [labels.classes(index).tolist() for index in range(len(labels))]


def test_clip_labels__hand_computed() -> None:
    labels = ClipLabels.from_ids([["b"], ["a", "b"], ["b", "b"]], CLASSES)
    assert lists(labels) == [[1], [0, 1], [1]]
    assert labels.classes(1).dtype == np.int32
    rows = labels.multi_hot(np.array([2, 1]))
    assert (rows.dtype, rows.tolist()) == (np.float32, [[0, 1, 0], [1, 1, 0]])
    assert labels.multi_hot(np.array([], dtype=int)).shape == (0, 3)
    assert labels.counts().tolist() == [1, 3, 0]
    assert labels.counts().dtype == np.int64
    assert labels.combine(np.add, np.array([1, 10, 100])).tolist() == [10, 11, 10]
    assert lists(labels.select(np.array([1, 0]))) == [[0, 1], [1]]
    assert lists(labels.select(np.array([], dtype=int))) == []
    assert lists(pickle.loads(pickle.dumps(labels))) == lists(labels)


def test_clip_labels__invalid_labels_are_refused() -> None:
    labels = ClipLabels.from_ids([["a"], ["b"]], CLASSES)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"clip {index} of the labels of 2 clips"):
            labels.classes(index)
        with pytest.raises(IndexError):
            labels.multi_hot(np.array([0, index]))
    with pytest.raises(ValueError, match="clip 1 has no label"):
        ClipLabels.from_ids([["a"], []], CLASSES)
    with pytest.raises(ValueError, match="unknown label 'c'"):
        ClipLabels.from_ids([["a"], ["c"]], CLASSES)


def test_read_labels__round_trip(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "train.lbl"
    write_labels(path, NAMES, [["a"], ["two words", "b"], ["a"]])
    labels = read_labels(path, CLASSES, manifest, single_label=False)
    assert lists(labels) == [[0], [2, 1], [0]]
    assert (len(labels), labels.num_classes, labels.names_match) == (3, 3, True)
    assert count_labels(path, CLASSES).tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    "lines",
    [
        ("x/1.wav\ta", "x/2.wav\tb,a", "with space/3 c.wav\ttwo words"),
        ("1.wav a", "2.wav\tb , a,b", "3 c.wav\ttwo words"),
        ("1   a", "2\tb,a", "3 c\t two words "),
        ("1\ta", "2\tmore\tb,a", "3 c\ttwo words"),
    ],
)
def test_read_labels__forms_of_names(tmp_path: Path, manifest: Manifest, lines: tuple) -> None:
    labels = read_labels(write(tmp_path, *lines), CLASSES, manifest, single_label=False)
    assert (lists(labels), labels.names_match) == ([[0], [1, 0], [2]], True)


@pytest.mark.parametrize(
    ("line", "name", "labels"),
    [
        ("a b.wav\tdog, big cat", "a b.wav", "dog, big cat"),
        ("a\tb\tc", "a", "c"),
        ("a b.wav  dog", "a b.wav", "dog"),
        ("a.wav\t", "a.wav", ""),
        ("a.wav", "a.wav", ""),
        (" ", "", ""),
    ],
)
def test_split_line__forms(line: str, name: str, labels: str) -> None:
    assert split_line(line) == (name, labels)


def test_read_labels__unrelated_names(tmp_path: Path, manifest: Manifest) -> None:
    labels = read_labels(write(tmp_path, "p a", "q b", "r a"), CLASSES, manifest, True)
    assert (lists(labels), labels.names_match) == ([[0], [1], [0]], False)


@pytest.mark.parametrize("form", ["{}", "./{}", "/other/{}", "other/{}"])
def test_read_labels__files_in_other_folders(tmp_path: Path, manifest: Manifest, form: str) -> None:
    files = [Path(name).name for name in NAMES]
    rows = [f"{form.format(name)}\t{label}" for name, label in zip(files, "aba")]
    labels = read_labels(write(tmp_path, *rows), CLASSES, manifest, True)
    assert (lists(labels), labels.names_match) == ([[0], [1], [0]], True)
    with pytest.raises(TableError, match=r"train.lbl:1: expected the labels of 'x/1.wav'"):
        read_labels(write(tmp_path, *rows[1:], rows[0]), CLASSES, manifest, True)  # rotated


def test_read_labels__wrong_order(tmp_path: Path, manifest: Manifest) -> None:
    path = write(tmp_path, "x/1.wav\ta", "3 c\tb", "x/2.wav\ta")
    with pytest.raises(
        TableError, match=f"^{path}:2: .*'x/2.wav', as in line 3 of {tmp_path}/train.tsv"
    ):
        read_labels(path, CLASSES, manifest, single_label=False)
    path = write(tmp_path, "z\ta", "x/2.wav\tb", "3 c\ta")
    with pytest.raises(TableError, match=f"^{path}:1: expected the labels of 'x/1.wav'"):
        read_labels(path, CLASSES, manifest, single_label=False)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_read_labels__wrong_line_count(tmp_path: Path, manifest: Manifest, number: int) -> None:
    path = write(tmp_path, *["x/1.wav\ta"] * number)
    problem = f"^{path} has the labels of {number} clips, but {tmp_path}/train.tsv has 3 clips"
    with pytest.raises(TableError, match=problem):
        read_labels(path, CLASSES, manifest, single_label=False)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x/2.wav\tc", "unknown label 'c'; 3 are known, they begin with 'a', 'b', 'two words'"),
        ("x/2.wav\ttwo word", "did you mean 'two words'?"),
        ("x/2.wav\t", "a clip without label"),
        ("x/2.wav\t ", "a clip without label"),
        ("x/2.wav", "a clip without label in 'x/2.wav'"),
        ("", "a clip without label in ''"),
        ("x/2.wav\ta,,b", "unknown label ''"),
    ],
)
def test_read_labels__error_names_the_line(
    tmp_path: Path, manifest: Manifest, line: str, problem: str
) -> None:
    path = write(tmp_path, "x/1.wav\ta", line, "3 c\ta")
    with pytest.raises(TableError) as caught:
        read_labels(path, CLASSES, manifest, single_label=False)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert problem in str(caught.value)


def test_read_labels__single_label(tmp_path: Path, manifest: Manifest) -> None:
    path = write(tmp_path, "1\ta", "2\tb,b", "3 c\tb,two words")
    with pytest.raises(TableError, match=f"^{path}:3: expected one label, got 'b', 'two words'"):
        read_labels(path, CLASSES, manifest, single_label=True)


def test_write_labels__a_label_with_a_comma_is_read_back(
    tmp_path: Path, manifest: Manifest
) -> None:
    classes = LabelSet(("man, speaking", '"dog"', "a"))
    clips = [["a", "man, speaking"], ["man, speaking"], ['"dog"']]
    names = [manifest.name(index) for index in range(3)]
    write_labels(tmp_path / "train.lbl", names, clips)
    found = read_labels(tmp_path / "train.lbl", classes, manifest, single_label=False)
    assert [[classes.ids[i] for i in found.classes(n)] for n in range(3)] == clips
    assert found.names_match
    assert count_labels(tmp_path / "train.lbl", classes).tolist() == [2, 1, 1]


def test_read_labels__names_in_another_unicode_form_match(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é/\u00fc 1.wav") for form in ("NFD", "NFC")]
    clips = [(names[0], 100), ("x.wav", 100)]
    write_manifest(tmp_path / "train.tsv", tmp_path, clips)
    path = write(tmp_path, f"{names[1]}\ta", "x.wav\tb")
    found = read_labels(path, CLASSES, read_manifest(tmp_path / "train.tsv"), single_label=True)
    assert found.names_match


@pytest.mark.parametrize(
    ("names", "labels", "problem"),
    [
        (["a\tb"], [["a"]], "a tab"),
        (["x"], [["a\tb"]], "holds a tab, which a label file cannot hold; write a space"),
        (["x"], [[]], "'x' has no label"),
    ],
)
def test_write_labels__unreadable_labels_are_refused(
    tmp_path: Path, names: list, labels: list, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        write_labels(tmp_path / "train.lbl", names, labels)
    assert not list(tmp_path.iterdir())


def test_clip_weights__hand_computed() -> None:
    labels = ClipLabels.from_ids([["a"], ["a", "b"], ["a"]], CLASSES)
    frequent, rare = 1000 / 3.01, 1000 / 1.01
    np.testing.assert_allclose(
        clip_weights(labels), [frequent, frequent + rare, frequent], rtol=1e-15
    )


def test_clip_weights__balance_the_classes() -> None:
    labels = ClipLabels.from_ids([["a"]] * 98 + [["b"]] * 2, CLASSES)
    weights = clip_weights(labels)
    assert weights[:98].sum() == pytest.approx(weights[98:].sum(), rel=0.01)


def test_read_weights__round_trip(tmp_path: Path) -> None:
    weights = np.array([0.1 + 0.2, 1e-7, 0.0, 99009.90099])
    write_weights(tmp_path / "w.csv", weights)
    read = read_weights(tmp_path / "w.csv", 4)
    assert read.tolist() == weights.tolist()
    assert read.dtype == np.float64
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "w.csv"), weights)
    write_weights(tmp_path / "w.csv", np.array([1, 2]))
    assert read_weights(tmp_path / "w.csv", 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1\n-2\n3\n", ":2: expected a weight of 0 or more, got '-2'"),
        ("1\nnan\n3\n", ":2: expected"),
        ("1\n2\ninf\n", ":3: expected"),
        ("1\nx\n3\n", ":2: expected a weight of 0 or more, got 'x'"),
        ("1\n\n3\n", ":2: expected a weight of 0 or more, got ''"),
        ("1\n2\n", " has 2 weights, but there are 3 clips"),
        ("0\n0\n0\n", ": every weight is 0"),
    ],
)
def test_read_weights__error_names_the_cause(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=f"^{path}{problem}"):
        read_weights(path, 3)
