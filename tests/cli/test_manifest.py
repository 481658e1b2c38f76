"""`eat manifest` from the command line."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin import cli
from eat_plugin.data.manifest import read_manifest
from eat_plugin.prepare import find, listing


def add_clip(folder: Path, name: str, samples: int = 800, rate: int = 16_000) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(samples, dtype=np.float32), rate)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "some clips"
    for number in range(10):
        add_clip(folder, f"{number % 3}/clip {number}.wav", 800 + number)
    return folder


def names_in(path: Path) -> list:
    manifest = read_manifest(path)
    return [manifest.name(index) for index in range(len(manifest))]


def run(*arguments: object) -> int:
    return cli.main(["manifest", *map(str, arguments)])


def test_manifest__names_similar_classes_and_copies_with_other_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(
        ("Cat/a.wav", "cat/b.wav", "caf\u00e9/c.wav", "cafe\u0301/d.wav")
    ):
        add_clip(tmp_path / "audio", name, 800 + number % 3)
    assert (
        run(tmp_path / "audio", "--layout", "folders", "--out", tmp_path / "data", "--check") == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert "'Cat' and 'cat' are 2 classes" in lines
    assert "'cafe\\u0301' and 'caf\\xe9' are 2 classes" in lines
    (copies,) = (line for line in lines if line.startswith("copies with other labels"))
    assert copies.endswith("d.wav: see quality.csv") or copies.endswith("a.wav: see quality.csv")


def test_manifest__lists_all_clips_sorted(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_clip(clips, "UPPER.WAV", 48_000, 48_000)
    add_clip(clips, "b.flac")
    (clips / "notes.txt").write_text("not audio by its name")
    out = tmp_path / "new" / "data"
    assert run(clips, "--out", out) == 0
    manifest = read_manifest(out / "train.tsv")
    assert manifest.root == clips
    names = names_in(out / "train.tsv")
    assert names == sorted(names)
    assert len(names) == 12
    assert {"UPPER.WAV", "b.flac", "0/clip 9.wav"} <= set(names)
    assert manifest.sizes[names.index("0/clip 9.wav")] == 809
    assert manifest.sizes[names.index("UPPER.WAV")] == 48_000
    assert (out / "rejected.tsv").read_text() == ""
    shown = capsys.readouterr().out
    assert "12 clips, 1.55 seconds" in shown
    assert shown.endswith(f"rates: 16000 Hz (11), 48000 Hz (1)\n{out}/rejected.tsv: 0 rejected\n")


def test_manifest__relative_folder_gives_an_absolute_root(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(clips.name, "--out", "data")
    assert (tmp_path / "data" / "train.tsv").read_text().startswith(f"{clips}\n")


def test_manifest__names_the_split(clips: Path, tmp_path: Path) -> None:
    run(clips, "--out", tmp_path, "--split", "eval")
    assert len(read_manifest(tmp_path / "eval.tsv")) == 10


def test_manifest__lists_the_endings_given(clips: Path, tmp_path: Path) -> None:
    add_clip(clips, "a.flac")
    add_clip(clips, "a.aiff")
    run(clips, "--out", tmp_path, "--ext", "flac", ".AIFF")
    assert names_in(tmp_path / "train.tsv") == ["a.aiff", "a.flac"]


def test_manifest__holds_out_clips(clips: Path, tmp_path: Path) -> None:
    def split(fraction: float, seed: int) -> tuple:
        run(clips, "--out", tmp_path, "--valid", fraction, "--seed", seed)
        return tuple(names_in(tmp_path / f"{split}.tsv") for split in ("train", "valid"))

    train, valid = split(0.3, seed=1)
    assert (len(train), len(valid)) == (7, 3)
    assert len({*train, *valid}) == 10
    assert valid == sorted(valid)
    assert split(0.3, seed=1) == (train, valid)
    assert split(0.3, seed=2) != (train, valid)
    assert len(split(0.001, seed=1)[1]) == 1


def test_manifest__refuses_to_train_on_clips_held_out_earlier(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(clips, "--out", tmp_path, "--valid", 0.3)
    before = (tmp_path / "train.tsv").read_bytes()
    assert run(clips, "--out", tmp_path) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path}/valid.tsv, written by an earlier run, has 3 of the clips" in shown
    assert (tmp_path / "train.tsv").read_bytes() == before
    assert run(clips, "--out", tmp_path, "--valid", 0.3, "--seed", 1) == 0
    (tmp_path / "valid.tsv").unlink()
    assert run(clips, "--out", tmp_path) == 0


def test_manifest__keeps_a_hold_out_of_other_clips(clips: Path, tmp_path: Path) -> None:
    add_clip(tmp_path / "others", "0/clip 0.wav")
    assert run(tmp_path / "others", "--out", tmp_path, "--split", "valid") == 0
    assert run(clips, "--out", tmp_path) == 0
    assert names_in(tmp_path / "valid.tsv") == ["0/clip 0.wav"]


def test_manifest__rejects_unusable_files(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "empty.wav").touch()
    (clips / "gone.wav").symlink_to("nowhere")
    (clips / "text.mp3").write_text("no audio" * 100)
    add_clip(clips, "silent.wav", samples=0)
    add_clip(clips, "tab\there.wav")
    add_clip(clips, "line\nbreak.wav")
    os.rename(add_clip(clips, "x.wav"), os.fsencode(clips) + b"/caf\xe9.wav")
    assert run(clips, "--out", tmp_path) == 0
    report = f"{tmp_path}/rejected.tsv: 7 files rejected, with the reasons"
    assert capsys.readouterr().out.splitlines()[-1] == report
    assert len(read_manifest(tmp_path / "train.tsv")) == 10
    lines = (tmp_path / "rejected.tsv").read_text("utf-8").splitlines()
    rejected = dict(line.split("\t") for line in lines)
    assert set(rejected) == {
        *("empty.wav", "gone.wav", "text.mp3", "silent.wav"),
        *("tab\\there.wav", "line\\nbreak.wav", "caf\\xe9.wav"),
    }
    assert rejected["empty.wav"] == "is empty: 0 bytes"
    assert "a tab" in rejected["tab\\there.wav"]
    assert "not UTF-8" in rejected["caf\\xe9.wav"]


def test_manifest__replaces_an_earlier_report(clips: Path, tmp_path: Path) -> None:
    (clips / "empty.wav").touch()
    run(clips, "--out", tmp_path)
    assert (tmp_path / "rejected.tsv").read_text()
    (clips / "empty.wav").unlink()
    run(clips, "--out", tmp_path)
    assert (tmp_path / "rejected.tsv").read_text() == ""


def test_manifest__does_not_depend_on_workers(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clips / "empty.wav").touch()
    run(clips, "--out", tmp_path / "one", "--workers", 1)
    monkeypatch.setattr(find, "CHUNK", 2)
    run(clips, "--out", tmp_path / "two", "--workers", 2)
    for name in ("train.tsv", "rejected.tsv"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_manifest__all_files_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").touch()
    assert run(tmp_path, "--out", tmp_path) == 2
    assert (
        f"no audio file under {tmp_path} can be used; {tmp_path}/rejected.tsv: 1 file rejected"
    ) in capsys.readouterr().err
    assert (tmp_path / "rejected.tsv").read_text() == "a.wav\tis empty: 0 bytes\n"
    assert not (tmp_path / "train.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["{}/nowhere", "--out", "{}"], "nowhere does not exist"),
        (["{}/file", "--out", "{}"], "file is not a folder"),
        (["{}/none", "--out", "{}"], "no audio (flac, mp3, ogg, wav) found under"),
        (["{}/one", "--out", "{}/file"], "file, which is not a folder"),
        (["{}/one", "--out", "{}/file/x"], "file/x, but {}/file is not a folder"),
        (["{}/one", "--out", "{}/train.tsv"], "--out is {}/train.tsv; give a folder"),
        (["{}/one", "--out", "{}", "--valid", "0.5"], "leaves no clip to train on"),
        (["{}/one", "--out", "{}", "--valid", "1.5"], "between 0 and 1, got 1.5"),
        (["{}/one", "--out", "{}", "--valid", "nan"], "between 0 and 1, got nan"),
        (["{}/one", "--out", "{}", "--valid", "0.5", "--split", "valid"], "another --split"),
        (["{}/one", "--out", "{}", "--split", "rejected"], "--split 'rejected'"),
        (["{}/one", "--out", "{}", "--split", "../a"], "--split '../a'"),
        (["{}/one", "--out", "{}", "--workers", "0"], "--workers: must be 1 or more, got 0"),
        (["{}/one", "--out", "{}", "--seed", "-1"], "--seed: must be 0 or more, got -1"),
    ],
)
def test_manifest__a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list, problem: str
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "file").touch()
    add_clip(tmp_path / "one", "a.wav")
    assert run(*(argument.format(tmp_path) for argument in arguments)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("eat manifest: error: ")
    assert problem.format(tmp_path) in last


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["manifest"], "eat manifest: error: the following arguments are required: DIR, --out"),
        (["manifest", "a", "--out", "b", "--seed", "x"], "eat manifest: error: argument --seed"),
        (["nonsense"], "eat: error: there is no subcommand 'nonsense'; choose one of manifest"),
    ],
)
def test_main__wrong_arguments_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list,
    line: str,
) -> None:
    monkeypatch.setattr(cli, "SUBCOMMANDS", ("manifest",))
    assert cli.main(arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(line)


def test_main__a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m eat_plugin config | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=Path(__file__).parents[2],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Broken pipe" not in done.stderr


def test_main__interrupted(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(path: str, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "probe_clip", interrupt)
    assert run(clips, "--out", tmp_path / "data") == 130
    assert capsys.readouterr().err.endswith("\neat manifest: interrupted\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["manifest", "--help"]])
def test_main__help(capsys: pytest.CaptureFixture[str], arguments: list) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "list the audio files or images of a folder" in shown.lower()
    wanted = cli.SUBCOMMANDS if arguments == ["--help"] else ["layouts, with examples:", "--valid"]
    for expected in wanted:
        assert expected in shown


def test_main__is_also_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eat_plugin", "manifest", str(tmp_path / "none"), "--out", "x"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("eat manifest: error: ")
    assert "Traceback" not in done.stderr


def test_manifest__real_recordings(shared: Path, tmp_path: Path) -> None:
    assert run(shared / "data" / "esc10", "--out", tmp_path, "--valid", 0.1) == 0
    assert len(read_manifest(tmp_path / "train.tsv")) == 360
    assert len(read_manifest(tmp_path / "valid.tsv")) == 40


def test_manifest__splits_that_share_clips_by_links_are_named(clips, tmp_path, capsys):
    for path in sorted(clips.rglob("*.wav")):
        path.with_name(f"again_{path.name}").symlink_to(path.name)
    capsys.readouterr()
    assert run(clips, "--out", tmp_path / "data", "--valid", 0.5) == 0
    shown = capsys.readouterr().out
    assert "valid.tsv holds out, for example" in shown
    assert "; links to one file are one clip" in shown


def test_manifest__an_archive_that_was_rewritten_since_its_statistics(tmp_path, capsys):
    archive, out = tmp_path / "archives" / "a.tar", tmp_path / "data"
    archive.parent.mkdir()

    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    with tarfile.open(archive, "w") as file:
        file.add(tmp_path / "noise.wav", "noise.wav")
    assert run(archive.parent, "--out", out) == 0
    assert cli.main(["stats", str(out), "--workers", "1"]) == 0
    message = f"stats.json is of the files of before: run eat stats {out} again"
    for seconds, changed in ((1, True), (1, False)):
        os.utime(archive, (seconds, seconds))
        capsys.readouterr()
        assert run(archive.parent, "--out", out) == 0
        assert (message in capsys.readouterr().out) == changed
