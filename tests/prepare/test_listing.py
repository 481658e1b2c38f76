"""Listings that would train on held-out clips, in any order of the runs."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main

SPEAKERS = {
    "pattern": ["--layout", "pattern", "--pattern", "(?P<group>ann|ben)/(?P<label>.)"],
    "folders": ["--layout", "folders"],
    "plain": [],
}


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Four clips of each of two speakers."""
    for number, name in enumerate(f"{who}/{what}.wav" for who in ("ann", "ben") for what in "abcd"):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 4000), 16_000)
    return tmp_path / "audio"


def run(root: Path, out: Path, *options: str) -> int:
    return main(["manifest", str(root), "--out", str(out), "--workers", "1", *options])


HOLD_OUTS = {
    "groups": [*SPEAKERS["pattern"], "--valid-groups", "ben"],
    "classes": [*SPEAKERS["folders"], "--valid", "0.5"],
    "random": ["--valid", "0.5"],
    "test": ["--split", "test"],
}


@pytest.mark.parametrize("first", HOLD_OUTS)
@pytest.mark.parametrize(
    ("root", "second"),
    [
        ("audio", "plain"), ("audio", "folders"), ("audio", "pattern"), ("link", "plain"),
        ("link", "pattern"), (".", "plain"), ("audio/ben", "plain"),
    ],
)  # fmt: skip
def test_train__refuses_clips_held_out_before(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    first: str, second: str, root: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    os.symlink(audio, tmp_path / "link")
    assert run(audio, out, *HOLD_OUTS[first]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(tmp_path / root, out, *SPEAKERS[second]) == 2
    assert "written by an earlier run, has" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("later", HOLD_OUTS)
def test_hold_out__refuses_training_clips_of_an_earlier_run(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], later: str
) -> None:
    link = tmp_path / "link"
    os.symlink(audio, link)
    assert run(audio, tmp_path / "out") == 0
    code = run(link, tmp_path / "out", *HOLD_OUTS[later])
    if later == "test":
        assert code == 2
        assert "train.tsv, written by an earlier run, has 8" in capsys.readouterr().err
    else:
        assert code == 0  # both splits are written again


def test_train__other_clips_and_other_splits_are_allowed(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(audio / "ben", out, "--split", "test") == 0
    assert run(audio / "ann", out) == 0
    assert run(audio, out, "--split", "all") == 0
    assert run(audio, out, "--split", "valid_2") == 2  # has clips of train


def test_train__refuses_held_out_clips_of_a_cache(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    assert run(audio, data, *HOLD_OUTS["groups"]) == 0
    assert main(["cache", str(data), "--out", str(cache), "--workers", "1"]) == 0
    assert run(audio, cache) == 2
    assert f"{cache}/eval.tsv, written by an earlier run, has 4" in capsys.readouterr().err


def test_cache__refuses_a_folder_with_held_out_clips_in_train(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert run(audio, data, *HOLD_OUTS["random"]) == 0
    shutil.copy(data / "train.tsv", data / "eval.tsv")
    assert main(["cache", str(data), "--out", str(tmp_path / "cache"), "--workers", "1"]) == 2
    assert "train.tsv has 4 of the clips that" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("checksum", [["--checksum"], []])
def test_train__refuses_a_copy_of_a_held_out_archive(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checksum: list
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with zipfile.ZipFile(tmp_path / "one" / "x.zip", "w") as archive:
        for path in sorted(audio.rglob("*.wav")):
            archive.write(path, path.relative_to(audio))
    shutil.copy(tmp_path / "one" / "x.zip", tmp_path / "two" / "y.zip")
    out = tmp_path / "out"
    assert run(tmp_path / "one", out, "--split", "eval", *checksum) == 0
    assert run(tmp_path / "two", out, *checksum) == (2 if checksum else 0)
    if checksum:
        assert "eval.tsv, written by an earlier run, has 8" in capsys.readouterr().err


def test_check__names_training_copies_of_held_out_clips(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(audio / "ann" / "a.wav", audio / "ben" / "a.wav")
    out = tmp_path / "out"
    assert run(audio, out, *HOLD_OUTS["groups"], "--check") == 0
    assert "1 clips of train are copies of held-out clips, for example ann/a.wav" in (
        capsys.readouterr().out
    )
    assert run(audio, out, *HOLD_OUTS["groups"], "--check", "--drop", "duplicate") == 0
    assert run(audio, out, *HOLD_OUTS["groups"]) == 0
    assert "copies of held-out" not in capsys.readouterr().out


def test_listing__names_stale_statistics(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(audio / "ann", out) == 0
    assert main(["stats", str(out), "--workers", "1"]) == 0
    assert run(audio / "ann", out) == 0
    assert "holds the statistics of other clips" not in capsys.readouterr().out
    assert run(audio, out) == 0
    assert f"run eat stats {out} again" in capsys.readouterr().out
