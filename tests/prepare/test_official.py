"""Coverage of an official list of clips."""

import hashlib

import pytest

from eat_plugin.data.tables import TableError
from eat_plugin.prepare.official import read_official

SEGMENTS = """\
# Segments csv created Sun Mar  5 10:54:25 2017
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"
Yb0RFKhbpFJ, 30.000, 40.000, "/m/02lkt"
_123_456_78, 0.000, 10.000, "/m/02lkt"
--4gqARaEJE, 10.000, 20.000, "/m/068hy"
"""


@pytest.fixture
def segments(tmp_path):
    (tmp_path / "eval.csv").write_text(SEGMENTS)
    return read_official(tmp_path / "eval.csv")


def test_read_official__audioset(segments):
    assert segments.ids == ["--4gqARaEJE", "Yb0RFKhbpFJ", "_123_456_78"]
    text = "--4gqARaEJE\nYb0RFKhbpFJ\n_123_456_78"
    assert segments.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("eval/--4gqARaEJE.wav", [1, 2]),
        ("Y--4gqARaEJE.flac", [1, 2]),
        ("Yb0RFKhbpFJ.wav", [0, 2]),  # an id that begins with Y
        ("YYb0RFKhbpFJ_30.000_40.000.wav", [0, 2]),
        ("_123_456_78_0_10.wav", [0, 1]),
        ("set.h5/--4gqARaEJE", [1, 2]),
        ("b0RFKhbpFJx.wav", [0, 1, 2]),
    ],
)
def test_find_missing__knows_the_names_of_copies(segments, name, missing):
    found, others = segments.find_missing([name])
    assert found == [segments.ids[number] for number in missing]
    assert others == (len(missing) == 3)


def test_find_missing__counts_clips_that_are_not_listed(tmp_path):
    (tmp_path / "list.txt").write_text("a b.wav\nfolder/c.wav\n\nd\n")
    official = read_official(tmp_path / "list.txt")
    names = ["x/a b.wav", "folder/c.wav", "c.wav", "other.wav"]
    assert official.find_missing(names) == (["d"], 2)


def test_read_official__empty(tmp_path):
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(TableError, match="list.txt: no clips; expected an id in each line"):
        read_official(tmp_path / "list.txt")
