"""Layouts that read splits and labels from a table."""

from pathlib import Path

import pytest

from eat_plugin.data.tables import TableError
from eat_plugin.prepare.arrangement import Arrangement
from eat_plugin.prepare.table_layouts import arrange_audioset, arrange_esc50, arrange_table


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def labels_of(found: Arrangement) -> dict:
    return {item.name: (item.split, *item.labels) for item in found.items}


def read_table(folder: Path, *lines: str, splits: bool = False, separator: str = "") -> Arrangement:
    table = write(folder / "t.csv", *lines)
    split = "subset" if splits else None
    return arrange_table(folder, table, "file", "tag", split, separator or None, "train")


def test_arrange_table__one_label(tmp_path: Path) -> None:
    found = read_table(tmp_path, "tag,file", "10,./sub//a b.wav", "9,c/../z.wav", "dog;x,b.wav")
    assert labels_of(found) == {
        "b.wav": ("train", "dog;x"),
        "sub/a b.wav": ("train", "10"),
        "z.wav": ("train", "9"),
    }
    assert [item.name for item in found.items] == ["b.wav", "sub/a b.wav", "z.wav"]
    assert found.label_set.ids == ("10", "9", "dog;x")


def test_arrange_table__several_labels_and_splits(tmp_path: Path) -> None:
    lines = ("file,tag,subset", "b,dog; cat;;dog,test", f"{tmp_path}/a,cat,dev")
    found = read_table(tmp_path, *lines, splits=True, separator=";")
    assert labels_of(found) == {"a": ("dev", "cat"), "b": ("test", "dog", "cat")}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,cat", ":3: 'a' is already in line 2"),
        ("./x/../a,cat", ":3: 'a' is already in line 2"),
        ("../b,cat", ":3: expected the path of a file below /.*, got '../b'"),
        ("/b,cat", ":3: expected the path of a file below"),
        (",cat", ":3: expected the path of a file below /.*, got ''"),
        ("c\td,cat", ":3: a manifest cannot hold a path with a tab"),
        ("b,", ":3: a clip without a label"),
        (
            'b,"cat,dog"',
            ":3: the label 'cat,dog' holds a comma; if these are several labels, add "
            "--label-separator ','; if it is one, name a separator .*, as --label-separator ';'$",
        ),
        ("b", ":3: 1 of the header's 2 fields"),
    ],
)
def test_arrange_table__names_the_invalid_line(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(TableError, match=f"^{tmp_path}/t.csv{problem}"):
        read_table(tmp_path, "file,tag", "a,dog", line)


def test_arrange_table__no_split_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=":2: no split in the column 'subset'"):
        read_table(tmp_path, "file,tag,subset", "a,dog,", splits=True)
    with pytest.raises(TableError, match="t.csv: no rows below the header"):
        read_table(tmp_path, "file,tag")
    problem = ":1: no column 'subset'; there are: file, tag; choose one with --split-column"
    with pytest.raises(TableError, match=problem):
        read_table(tmp_path, "file,tag", "a,dog", splits=True)


def test_arrange_table__labels_that_hold_a_comma(tmp_path: Path) -> None:
    lines = ("file,tag", 'a,"man, speaking;dog"', "b,dog")
    found = read_table(tmp_path, *lines, separator=";")
    assert labels_of(found)["a"] == ("train", "man, speaking", "dog")
    lines = ("file,tag", 'a,"""man, speaking"",dog"', "b,dog")
    assert labels_of(read_table(tmp_path, *lines, separator=",")) == labels_of(found)
    with pytest.raises(TableError, match="t.csv:2: the labels .* have invalid double quotes"):
        read_table(tmp_path, "file,tag", 'a,"""man, speaking,dog"', separator=",")


ESC50 = ("filename,fold,target,category,take", "b,1,10,rain,A", "a,2,3,dog,A", "c,2,10,rain,B")


@pytest.mark.parametrize("place", ["meta/esc50.csv", "esc50.csv"])
def test_arrange_esc50__folds_and_targets(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, *ESC50)
    found = arrange_esc50(tmp_path, 2, "train")
    assert labels_of(found) == {
        "audio/a": ("eval", "dog"),
        "audio/b": ("train", "rain"),
        "audio/c": ("eval", "rain"),
    }
    assert [item.name for item in found.items] == ["audio/a", "audio/b", "audio/c"]
    assert found.label_set.ids == ("dog", "rain")
    assert {item.split for item in arrange_esc50(tmp_path, None, "all").items} == {"all"}


def test_arrange_esc50__a_category_may_hold_a_comma(tmp_path: Path) -> None:
    write(tmp_path / "esc50.csv", ESC50[0], 'b,1,3,"rain, heavy",A', "a,2,10,dog,A")
    assert arrange_esc50(tmp_path, None, "train").label_set.ids == ("rain, heavy", "dog")


def test_arrange_esc50__classes_are_in_order_of_targets(tmp_path: Path) -> None:
    write(tmp_path / "esc50.csv", ESC50[0], "b,1,3,rain,A", "a,2,10,dog,A", "c,2,9,cat,A")
    assert arrange_esc50(tmp_path, None, "train").label_set.ids == ("rain", "cat", "dog")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("d,1,10,dog,A", ":5: target 10 is 'dog', unlike in an earlier row"),
        ("d,1,11,dog,A", ":5: target 11 is 'dog', unlike in an earlier row"),
        ("d,x,3,dog,A", ":5: expected a fold and a target, both whole numbers, got 'x'"),
        ("d,1,-3,dog,A", ":5: expected a fold and a target, both whole numbers, got '-3'"),
        ("a,1,3,dog,A", ":5: 'audio/a' is already in line 3"),
        (",1,3,dog,A", ":5: expected the path of a file"),
        ("../../x,1,3,dog,A", ":5: expected the path of a file"),
        ("d,1,5,,A", ":5: a clip without a label"),
    ],
)
def test_arrange_esc50__names_the_invalid_line(tmp_path: Path, line: str, problem: str) -> None:
    write(tmp_path / "esc50.csv", *ESC50, line)
    with pytest.raises(TableError, match=f"^{tmp_path}/esc50.csv{problem}"):
        arrange_esc50(tmp_path, 1, "train")


def test_arrange_esc50__no_table_no_column_no_fold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither meta/esc50.csv nor esc50.csv in"):
        arrange_esc50(tmp_path, 1, "train")
    table = write(tmp_path / "esc50.csv", "filename,target,category")
    with pytest.raises(TableError, match="no column 'fold'; there are: filename, target, category"):
        arrange_esc50(tmp_path, 1, "train")
    write(table, ESC50[0])
    with pytest.raises(TableError, match="esc50.csv: no rows below the header"):
        arrange_esc50(tmp_path, 1, "train")
    write(table, *ESC50)
    with pytest.raises(ValueError, match="--fold 3: .*esc50.csv has the folds 1, 2$"):
        arrange_esc50(tmp_path, 3, "train")


CLASSES = ("index,mid,display_name", '0,/m/b,"Bark, dog"', '1,/m/a,"Rain"', '2,/m/c,"Sea"')
HEAD = ("# made", "# num_ytids=3, num_segs=3", "# YTID, start_seconds, end_seconds, labels")


def read_audioset(folder: Path, names: list, *rows: str) -> Arrangement:
    classes = write(folder / "classes.csv", *CLASSES)
    return arrange_audioset(names, write(folder / "s.csv", *HEAD, *rows), classes, "eval")


def test_arrange_audioset__names_by_id(tmp_path: Path) -> None:
    names = [
        "-aaaaaaaaaa.wav",
        "0/Ybbbbbbbbbbb.flac",
        "1/ccccc_ccccc_30.000_40.000.wav",
        "1/Yddddddddddd_30000_40000.wav",
        "Yeeeeeeeeee.wav",  # an id may begin with Y
        "notinthetab.wav",
        "nothing.wav",
        "ffffffffffff.wav",
    ]
    ids = ("-aaaaaaaaaa", "bbbbbbbbbbb", "ccccc_ccccc", "ddddddddddd", "Yeeeeeeeeee", "fffffffffff")
    found = read_audioset(tmp_path, names, *(f'{clip}, 30.0, 40.0, "/m/a,/m/b"' for clip in ids))
    assert labels_of(found) == dict.fromkeys(names[:5], ("eval", "/m/a", "/m/b"))
    assert found.missing == ["fffffffffff\t30.0\t40.0"]
    assert (found.unlisted, found.rejected) == (3, [])
    assert found.label_set.ids == ("/m/b", "/m/a", "/m/c")
    assert found.label_set.names == ("Bark, dog", "Rain", "Sea")
    assert found.keeps_every_class


def test_arrange_audioset__ambiguous_names(tmp_path: Path) -> None:
    # Either the id 'Yaaaaaaaaaa' and '_', or 'Y', the id 'aaaaaaaaaa_' and the rest.
    name = "Yaaaaaaaaaa__0.wav"
    for clip in ("Yaaaaaaaaaa", "aaaaaaaaaa_"):
        found = read_audioset(tmp_path, [name], f"{clip}, 0, 1, /m/a")
        assert labels_of(found) == {name: ("eval", "/m/a")}


def test_arrange_audioset__an_id_may_end_in_an_underscore(tmp_path: Path) -> None:
    rows = ("Yaaaaaaaaaa, 0, 1, /m/a", "aaaaaaaaaa_, 0, 1, /m/b")
    found = read_audioset(tmp_path, ["Yaaaaaaaaaa_.wav"], *rows)
    assert labels_of(found) == {"Yaaaaaaaaaa_.wav": ("eval", "/m/b")}


def test_arrange_audioset__two_files_for_a_clip(tmp_path: Path) -> None:
    names = ["aaaaaaaaaaa.wav", "b/Yaaaaaaaaaaa.wav"]
    found = read_audioset(tmp_path, names, "aaaaaaaaaaa, 0, 1, /m/a")
    assert list(labels_of(found)) == names[:1]
    assert found.rejected == [(names[1], "is a second file for the clip aaaaaaaaaaa")]
    assert found.unlisted == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("aaaaaaaaaaa, 0, 1, /m/a", ":5: 'aaaaaaaaaaa' is already in line 4"),
        ('b, 0, 1, "/m/a,/m/x"', ":5: unknown label '/m/x'; 3 are known"),
        ('b, 0, 1, ""', ":5: a clip without a label"),
        ("b, 0, 1", r""":5: expected 'id, start, end, "label,label"', got \['b', '0', '1'\]"""),
        (", 0, 1, /m/a", ":5: expected 'id, start"),
        ("b, 0, 1, /m/a,/m/b", ":5: expected 'id, start"),
    ],
)
def test_arrange_audioset__names_the_invalid_line(tmp_path: Path, row: str, problem: str) -> None:
    with pytest.raises(TableError, match=f"^{tmp_path}/s.csv{problem}"):
        read_audioset(tmp_path, [], "aaaaaaaaaaa, 0, 1, /m/a", row)


def test_arrange_audioset__no_segment_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="s.csv: no segments"):
        read_audioset(tmp_path, ["aaaaaaaaaaa.wav"])
    with pytest.raises(ValueError, match="no file is named after an id in .*; files: 1, ids: 1"):
        read_audioset(tmp_path, ["aaaaaaaaaaa.wav"], "bbbbbbbbbbb, 0, 1, /m/a")
