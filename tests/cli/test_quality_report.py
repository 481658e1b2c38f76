"""`eat manifest --check`: every clip is decoded."""

import csv

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.cli import quality_report as quality
from eat_plugin.data.manifest import read_manifest
from eat_plugin.prepare.arrangement import ListedClip
from eat_plugin.prepare.quality import examine

RATE = 8000
SINE = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)


@pytest.fixture
def audio(tmp_path):
    """Two classes with a good clip each; the first also has a clip with each problem."""
    folder = tmp_path / "audio"
    clips = {
        "a/copy.flac": SINE, "a/good.wav": SINE, "a/loud.wav": np.clip(4 * SINE, -1, 1),
        "a/silent.wav": 0 * SINE, "a/tiny.wav": SINE[:80], "b/good.wav": -SINE,
        "b/stereo.wav": np.stack([SINE, SINE / 2], axis=1),
    }  # fmt: skip
    for name, samples in clips.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, (samples * 32767).astype(np.int16), RATE)
    broken = np.where(np.arange(RATE) == 7000, np.nan, SINE)
    soundfile.write(folder / "b" / "broken.wav", broken, RATE, subtype="FLOAT")
    return folder


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def names_in(path):
    manifest = read_manifest(path)
    return [manifest.name(index) for index in range(len(manifest))]


def test_check__reports_all_and_rejects_the_damaged(audio, tmp_path, capsys):
    out = tmp_path / "data"
    assert main(["manifest", str(audio), "--out", str(out), "--check", "--workers", "1"]) == 0
    rows = rows_of(out / "quality.csv")
    assert {name: row["problems"] for name, row in rows.items()} == {
        "a/copy.flac": "", "a/good.wav": "duplicate", "a/loud.wav": "clipped",
        "a/silent.wav": "silent", "b/good.wav": "", "b/stereo.wav": "",
    }  # fmt: skip
    good = rows["a/good.wav"]
    assert (good["seconds"], good["rate"], good["channels"]) == ("1.0000", "8000", "1")
    assert (good["peak_dbfs"], good["rms_dbfs"]) == ("-6.02", "-9.03")
    assert good["hash"] == rows["a/copy.flac"]["hash"] != rows["b/good.wav"]["hash"]
    assert rows["a/silent.wav"]["peak_dbfs"] == "-inf"
    assert names_in(out / "train.tsv") == list(rows)
    rejected = (out / "rejected.tsv").read_text().splitlines()
    assert rejected == [
        "a/tiny.wav\tis shorter than one frame (25 ms)",  # as its header says
        "b/broken.wav\thas samples that are not finite numbers",
    ]
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "1 cannot be decoded, 1 silent, 1 clipped, 0 phase, 0 short, 1 duplicate" in said


@pytest.mark.parametrize("problems", [["silent", "duplicate"], ["silent,duplicate"]])
def test_check__drops_the_problems_given(audio, tmp_path, problems):
    out = tmp_path / "data"
    assert main([
        "manifest", str(audio), "--out", str(out), "--layout", "folders", "--valid", "0.5",
        "--check", "--drop", *problems,
    ]) == 0  # fmt: skip
    kept = names_in(out / "train.tsv") + names_in(out / "eval.tsv")
    assert sorted(kept) == [
        "a/copy.flac", "a/loud.wav", "b/good.wav", "b/stereo.wav"
    ]  # fmt: skip
    rejected = dict(line.split("\t") for line in (out / "rejected.tsv").read_text().splitlines())
    assert rejected == {
        "a/good.wav": "excluded by --drop: duplicate, a copy of a/copy.flac",
        "a/silent.wav": "excluded by --drop: silent",
        "a/tiny.wav": "is shorter than one frame (25 ms)",
        "b/broken.wav": "has samples that are not finite numbers",
    }
    assert len(rows_of(out / "quality.csv")) == 6  # dropped clips are described too
    assert (out / "class_counts.csv").read_text().count("\n") == 3


def test_check__drops_copies_with_other_labels(audio, tmp_path, capsys):
    (audio / "b" / "again.wav").write_bytes((audio / "a" / "copy.flac").read_bytes())
    out = tmp_path / "data"
    given = ["manifest", str(audio), "--out", str(out), "--layout", "folders"]
    assert main([*given, "--check", "--drop", "duplicate"]) == 0
    assert "excluded copies with other labels: 1, see rejected.tsv" in capsys.readouterr().out
    rejected = dict(line.split("\t") for line in (out / "rejected.tsv").read_text().splitlines())
    copy = "excluded by --drop: duplicate, a copy of a/copy.flac"
    assert (rejected["a/good.wav"], rejected["b/again.wav"]) == (copy, f"{copy} with other labels")


def test_check__splits_that_are_listed_one_by_one(audio, tmp_path, capsys):
    out = tmp_path / "data"
    for name, split in (("a", "train"), ("b", "eval")):
        (audio / name / "both.wav").write_bytes((audio / "b" / "good.wav").read_bytes())
        given = ["manifest", str(audio / name), "--out", str(out), "--split", split, "--check"]
        assert main(given) == 0
    shown = capsys.readouterr().out
    assert "1 clips of train are copies of held-out clips, for example both.wav" in shown
    assert set(rows_of(out / "quality.csv")) == set(names_in(out / "train.tsv"))
    assert set(rows_of(out / "quality.eval.csv")) == set(names_in(out / "eval.tsv"))


def test_draw__class_names_are_not_formulas(audio):
    clip = ListedClip("a/good.wav", "train", ("$a$",), RATE, RATE, "a/good.wav")
    axes = quality.draw([(clip, examine(audio / clip.name))]).get_axes()[3]
    assert [text.get_text() for text in axes.get_xticklabels()] == [r"\$a\$"]


def test_check__without_matplotlib_there_is_no_picture(audio, tmp_path, monkeypatch, capsys):
    def draw(*_):
        raise ValueError("drawing needs matplotlib")

    monkeypatch.setattr(quality, "draw", draw)
    out = tmp_path / "data"
    assert main(["manifest", str(audio), "--out", str(out), "--check"]) == 0
    assert "eat manifest: no picture: drawing needs matplotlib" in capsys.readouterr().err
    assert len(rows_of(out / "quality.csv")) == len(names_in(out / "train.tsv")) == 6
    assert "\nb/broken.wav\t" in (out / "rejected.tsv").read_text()
    assert not (out / "quality.png").exists()


def test_check__nothing_left(audio, tmp_path, capsys):
    for name in ("copy.flac", "good.wav", "loud.wav", "tiny.wav"):
        (audio / "a" / name).unlink()
    out = tmp_path / "data"
    arguments = ["--out", str(out), "--check", "--drop", "silent"]
    assert main(["manifest", str(audio / "a"), *arguments]) == 2
    assert "no audio file under" in capsys.readouterr().err
    assert "silent.wav\texcluded by --drop" in (out / "rejected.tsv").read_text()


def test_check__mistakes(audio, tmp_path, capsys):
    arguments = ["manifest", str(audio), "--out", str(tmp_path / "data")]
    assert main([*arguments, "--drop", "silent"]) == 2
    message = "--drop needs --check"
    assert message in capsys.readouterr().err
    assert main([*arguments, "--check", "--drop", "quiet"]) == 2
    expected = "argument --drop: 'quiet': choose from silent, clipped, phase, short, duplicate"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
