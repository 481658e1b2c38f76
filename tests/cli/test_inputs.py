"""Input files of the subcommands, and the unusable ones."""

import os

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.cli import conclude, inputs, main
from eat_plugin.cli.inputs import collect
from eat_plugin.data.entries import locate
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import SpectrogramReader


def test_collect__files_folders_and_manifests_in_the_order_given(sounds, tmp_path):
    (tmp_path / "x.tsv").write_text(f"{sounds}\ndeep er/b.flac\t20480\n")
    (sounds / "notes.txt").write_text("no audio")
    single = sounds / "deep er" / "b.flac"
    clips, failures = collect([single, sounds, tmp_path / "x.tsv", single])
    assert clips == [
        ("b.flac", locate(single)),
        ("a.wav", locate(sounds / "a.wav")),
        ("c.wav", locate(sounds / "c.wav")),
        ("deep er/b.flac", locate(single)),
        ("deep er/b.flac", locate(single)._replace(size=20_480)),
    ]
    assert failures == {}


def test_collect__refuses_names_that_no_manifest_can_have(sounds):
    strange = sounds / os.fsdecode(b"\xff.wav")
    strange.write_bytes(b"")
    (sounds / "a\tb.wav").write_bytes(b"")
    clips, failures = collect([sounds])
    assert len(clips) == 3
    assert failures.keys() == {str(strange), str(sounds / "a\tb.wav")}


def test_collect__a_folder_that_cannot_be_listed(sounds, monkeypatch):
    found = [("a.wav", None), ("locked/", "cannot be listed: Permission denied")]
    monkeypatch.setattr(inputs, "find_files", lambda *_: iter(found))
    clips, failures = collect([sounds])
    assert clips == [("a.wav", locate(sounds / "a.wav"))]
    assert failures == {str(sounds / "locked"): "cannot be listed: Permission denied"}


def test_commands__agree_that_a_clip_shorter_than_a_frame_is_unusable(
    make_checkpoint, sounds, tmp_path, capsys
):
    short, reason = sounds / "short.wav", "is shorter than one frame (25 ms)"
    soundfile.write(short, np.zeros(399), 16_000)
    data, cache = tmp_path / "data", tmp_path / "cache"
    assert main(["manifest", str(sounds), "--out", str(data)]) == 0
    assert (data / "rejected.tsv").read_text() == f"short.wav\t{reason}\n"
    with open(data / "train.tsv", "a", encoding="utf-8") as file:
        file.write("short.wav\t399\n")  # as of another program
    assert main(["stats", str(data)]) == 1
    assert f"{short}: {reason}\n" in capsys.readouterr().err
    assert main(["cache", str(data), "--out", str(cache)]) == 0
    assert (cache / "rejected.tsv").read_text() == f"short.wav\t{reason}\n"
    checkpoint = make_checkpoint("classification")
    for command in (["predict"], ["features", "--out", str(tmp_path / "x.npz")]):
        arguments = ["--checkpoint", str(checkpoint), str(data / "train.tsv")]
        assert main([*command, *arguments]) == 1
        assert f"{short}: {reason}\n" in capsys.readouterr().err
    manifest = read_manifest(data / "train.tsv")
    (index,) = (n for n in range(len(manifest)) if manifest.name(n) == "short.wav")
    with pytest.raises(ValueError, match="shorter than one frame"):
        SpectrogramReader(manifest, FrontEnd(128, -4.0, 4.0)).read(index, torch.Generator())


def test_conclude__exit_codes_and_lines(capsys):
    assert conclude("predict", {}, 3) == 0
    assert capsys.readouterr().err == ""
    assert conclude("predict", {"a\nb.wav": "is empty"}, 2) == 1
    listed = "eat predict: 1 of 2 files cannot be used:\n  a b.wav: is empty\n"
    assert capsys.readouterr().err == listed
    with pytest.raises(ValueError, match="^a.wav: is empty$"):
        conclude("predict", {"a.wav": "is empty"}, 1)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="none of the 2 files can be used"):
        conclude("predict", {"a.wav": "is empty", "b.wav": "is empty"}, 2)
    assert capsys.readouterr().err.count("\n") == 3
