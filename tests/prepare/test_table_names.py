"""Names in tables and the files that they mean."""

import unicodedata

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.tables import TableError
from eat_plugin.prepare.table_layouts import arrange_esc50, arrange_table
from eat_plugin.prepare.table_names import TableNames

NFC, NFD = (unicodedata.normalize(form, "Café é") for form in ("NFC", "NFD"))


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return TableNames(root, ("wav", "flac"))


def test_find__exact_name_wins(tmp_path):
    names = make(tmp_path, "a", "a.wav", "a.WAV", f"{NFC}.wav", f"{NFD}.wav", "b/c.d.wav")
    for name in ("a", "a.wav", f"{NFC}.wav", f"{NFD}.wav", "b/c.d.wav"):
        assert names.find(name) == (name, "")


@pytest.mark.parametrize(("table", "disk"), [(NFC, NFD), (NFD, NFC)])
def test_find__name_in_another_unicode_form(tmp_path, table, disk):
    names = make(tmp_path, f"{disk}/x.wav", f"{disk}/{disk}.wav", f"{disk}.h5")
    for name in ("x.wav", f"{table}.wav"):
        found, hint = names.find(f"{table}/{name}")
        assert (tmp_path / found).is_file()
        assert hint == ""
    assert names.find(f"{table}/{table}")[0] == f"{disk}/{disk}.wav"
    assert names.find(f"{table}.h5/key")[0] == f"{disk}.h5/key"


def test_find__name_without_its_ending(tmp_path):
    names = make(tmp_path, "10.wav", "x/1.5.FLAC", "x/1.txt", "y/clip", "d/e.wav")
    assert names.find("10")[0] == "10.wav"
    assert names.find("x/1.5")[0] == "x/1.5.FLAC"
    assert names.find("x/1") == ("x/1", "")  # not a sound
    make(tmp_path, "d.wav")  # next to a folder of that name
    assert TableNames(tmp_path, ("wav",)).find("d")[0] == "d.wav"


def test_find__several_files_are_refused_by_name(tmp_path):
    names = make(tmp_path, "a.wav", "a.flac", f"{NFD}x.wav", "b.wav", "b.WAV")
    with pytest.raises(ValueError, match="^'a' may be 'a.flac' or 'a.wav'; write the whole name"):
        names.find("a")
    with pytest.raises(ValueError, match="^'b' may be 'b.WAV' or 'b.wav'"):
        names.find("b")
    composed, mixed = "\u1e69.wav", ("s\u0323\u0307.wav", "\u1e63\u0307.wav")  # dots on an s
    names = make(tmp_path / "c", *mixed)
    with pytest.raises(ValueError, match=r"may be 's\\u0323\\u0307.wav' or '\\u1e63\\u0307.wav'"):
        names.find(composed)


def test_find__says_which_file_is_similar(tmp_path):
    names = make(tmp_path, "A.wav", "audio/b.flac", "c.flac", "\udcff.wav")
    assert names.find("a.wav") == ("a.wav", "there is 'A.wav'")
    assert names.find("c.wav") == ("c.wav", "there is 'c.flac'")
    assert names.find("b") == ("b", "there is 'audio/b.flac'")
    assert names.find("meta/b.wav") == ("meta/b.wav", "")
    assert names.find("z.wav") == ("z.wav", "")
    assert names.find("A.wav/x:1:2") == ("A.wav/x:1:2", "")  # no folder


def test_arrange_table__one_file_in_two_rows_is_refused(tmp_path):
    make(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("file,tag\na,x\na.wav,y\n")
    with pytest.raises(TableError, match="t.csv:3: 'a.wav' is already in line 2"):
        arrange_table(tmp_path, tmp_path / "t.csv", "file", "tag", None, None, "train")
    make(tmp_path, "a.flac")
    with pytest.raises(TableError, match="t.csv:2: 'a' may be 'a.flac' or 'a.wav'"):
        arrange_table(tmp_path, tmp_path / "t.csv", "file", "tag", None, None, "train")


def test_arrange_esc50__finds_names_without_an_ending(tmp_path):
    make(tmp_path, "audio/a.wav")
    lines = ("filename,fold,target,category", "a,1,0,dog", "b,1,1,cat")
    (tmp_path / "esc50.csv").write_text("\n".join(lines))
    found = arrange_esc50(tmp_path, None, "train")
    assert [item.name for item in found.items] == ["audio/a.wav", "audio/b"]


def test_manifest__lists_the_files_and_hints_at_others(tmp_path, capsys):
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in ("10.wav", f"{NFD}.wav", "Upper.wav"):
        soundfile.write(audio / name, np.zeros(16_000), 16_000)
    table = tmp_path / "t.csv"
    table.write_text(f'filename,label\n10,"man, speaking;dog"\n{NFC}.wav,dog\nupper.wav,dog\n')
    options = ("--layout", "csv", "--csv", str(table), "--label-separator", ";")
    assert main(["manifest", str(audio), "--out", f"{tmp_path}/data", *options]) == 0
    manifest = read_manifest(tmp_path / "data" / "train.tsv")
    assert [manifest.name(index) for index in range(2)] == ["10.wav", f"{NFD}.wav"]
    rejected = (tmp_path / "data" / "rejected.tsv").read_text()
    assert rejected == (
        "upper.wav\tcannot be opened: No such file or directory; there is 'Upper.wav'\n"
    )
    text = (tmp_path / "data" / "train.lbl").read_text().splitlines()[0]
    assert text == '10.wav\t"man, speaking",dog'
    assert '1,"man, speaking","man, speaking"' in (
        (tmp_path / "data" / "label_descriptors.csv").read_text()
    )
