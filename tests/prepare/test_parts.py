"""`eat manifest` in parts, merged: byte for byte the result of one process."""

import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin import cli
from eat_plugin.prepare import find, listing
from eat_plugin.prepare.work import RecordedWork
from eat_plugin.report import charts

PARTS = 3
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm" / "parts.sbatch"


@pytest.fixture
def clips(tmp_path):
    """Clips of three classes, plain and in archives, damaged and useless ones among them."""
    folder = tmp_path / "clips"
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / "abc"[number % 3] / f"{number} ü.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(0, 0.1, 1000 + number) * (number != 4)  # the fifth is silent
        soundfile.write(path, noise, 16_000)
    (folder / "a" / "text.wav").write_text("no audio")
    (folder / "a" / "short.wav").write_bytes((folder / "a" / "0 ü.wav").read_bytes()[:50])
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number in range(0, 12, 3):
            archive.add(folder / "a" / f"{number} ü.wav", f"{number}.wav")
            (tmp_path / "label").write_bytes(b"\xff\xfe" if number else b"dog")
            archive.add(tmp_path / "label", f"{number}.cls")
    with zipfile.ZipFile(folder / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "b" / "1 ü.wav", "packed.wav")
    (folder / "c.tar").write_bytes((folder / "a.tar").read_bytes()[:9000])
    return folder


def manifest(clips, out, *options):
    return cli.main(["manifest", str(clips), "--out", str(out), "--workers", "1", *options])


def run_parts(clips, out, *options):
    for number in range(1, PARTS + 1):
        assert manifest(clips, out, *options, "--part", f"{number}/{PARTS}") == 0


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--checksum", "--valid", "0.3"),
        ("--layout", "folders", "--valid", "0.3", "--check", "--drop", "silent"),
        ("--layout", "webdataset", "--split", "some"),
        ("--layout", "csv", "--label-column", "label"),
    ],
    ids=lambda options: " ".join(options),
)
def test_parts__give_the_files_of_one_process(clips, tmp_path, options, capsys, monkeypatch):
    if "webdataset" in options:
        (clips / "a.tar").rename(clips / "shard.tar")
        with tarfile.open(clips / "more.tar", "w") as archive:
            archive.add(clips / "b" / "1 ü.wav", "1.wav")
            (tmp_path / "label").write_text("cat")
            archive.add(tmp_path / "label", "1.cls")
    monkeypatch.setattr(charts, "write_picture", lambda *_: None)  # it takes seconds
    if "csv" in options:
        rows = [f"{'abc'[number % 3]}/{number} ü.wav,{number % 2}" for number in range(12)]
        (tmp_path / "table.csv").write_text("\n".join(["filename,label", *rows, "a/none.wav,1"]))
        options = (*options, "--csv", str(tmp_path / "table.csv"))
    assert manifest(clips, tmp_path / "one", *options) == 0
    expected = capsys.readouterr().out.replace(str(tmp_path / "one"), "OUT")
    run_parts(clips, tmp_path / "many", *options)
    capsys.readouterr()
    for module, name in ((find, "index_archive"), (listing, "probe_clip")):
        monkeypatch.setattr(module, name, None)  # no file is opened again
    assert manifest(clips, tmp_path / "many", *options, "--merge", str(PARTS)) == 0
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    assert capsys.readouterr().out.replace(str(tmp_path / "many"), "OUT") == expected


def test_parts__divide_the_work(clips, tmp_path):
    run_parts(clips, tmp_path / "data")
    seen = []
    for path in sorted((tmp_path / "data" / "parts").iterdir()):
        _, *lines = path.read_text().splitlines()
        seen += [tuple(json.loads(line)[:2]) for line in lines]
    assert len(seen) == len(set(seen)) == 14 + 3 + 4 + 1
    work = [RecordedWork(number, 7, None) for number in range(1, 8)]
    shares = [sum(one.takes(f"clip {number}.wav") for number in range(700)) for one in work]
    assert sum(shares) == 700
    assert min(shares) > 50


def test_merge__refuses_what_does_not_fit(clips, tmp_path, capsys):
    def problem(*options):
        assert manifest(clips, tmp_path, "--merge", str(PARTS), *options) == 2
        return capsys.readouterr().err.splitlines()[-1]

    run_parts(clips, tmp_path)
    assert "other options; run eat manifest with --part again" in problem("--check")
    assert "there is no " in problem("--split", "eval")
    soundfile.write(clips / "new.wav", np.zeros(1000), 16_000)
    assert "'new.wav' was not there when the parts were listed; run" in problem()
    (tmp_path / "parts" / f"train-2-of-{PARTS}.jsonl").unlink()
    assert f"run eat manifest with --part 2/{PARTS} first" in problem()
    assert not (tmp_path / "train.tsv").exists()


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/-3"])
def test_part__must_be_one(clips, tmp_path, part, capsys):
    assert manifest(clips, tmp_path, "--part", part) == 2
    assert "must be from 1/N to N/N" in capsys.readouterr().err


def run_sbatch(folder, count, last):
    """Run the script as a task of an array of `count` tasks up to number `last`."""
    (folder / "eat").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (folder / "eat").chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MAX": str(last),
    }  # fmt: skip
    command = ["bash", str(SCRIPT), "manifest", "/my audio", "--out", "/data"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_sbatch__gives_each_task_its_part(tmp_path):
    result = run_sbatch(tmp_path, count=32, last=32)
    assert result.returncode == 0
    assert result.stdout == "manifest|/my audio|--out|/data|--part|2/32|"


@pytest.mark.parametrize(("count", "last"), [(1, 2), (32, 31)])
def test_sbatch__refuses_an_array_without_some_parts(tmp_path, count, last):
    result = run_sbatch(tmp_path, count, last)
    assert result.returncode == 2
    assert "give --array=1-N with all parts" in result.stderr
    assert result.stdout == ""
