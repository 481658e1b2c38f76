"""`eat manifest` on archives and HDF5 files, from the command line."""

import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin import cli
from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import read_labels
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.sources import read_audio
from eat_plugin.prepare.find import find_clips

h5py = pytest.importorskip("h5py")
RATE = 8_000


def encode(folder: Path, value: float, samples: int = 800) -> bytes:
    """An audio file of one value, by default 800 samples at 8 kHz."""
    path = folder / "scratch"
    soundfile.write(path, np.full(samples, value, np.float32), RATE, "FLOAT", format="wav")
    data = path.read_bytes()
    path.unlink()
    return data


def make_zip(path: Path, members: dict, method: int = zipfile.ZIP_STORED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "a", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def make_tar(path: Path, members: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_name("member")
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            source.write_bytes(data)
            archive.add(source, name)
    source.unlink()


def run(*arguments: object) -> int:
    return cli.main(["manifest", *map(str, arguments)])


def values_in(path: Path) -> list:
    """The first sample of each clip of a manifest, in order, read as training does."""
    manifest = read_manifest(path)
    return [
        round(float(read_audio(manifest.entry(index))[0][0]), 3) for index in range(len(manifest))
    ]


def rejected_in(data: Path) -> dict:
    lines = (data / "rejected.tsv").read_text().splitlines()
    return dict(line.split("\t") for line in lines)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Clips with the values 0.1 to 0.6, in order of their names; two each in zip, tar and HDF5."""
    root = tmp_path / "sounds"
    wavs = {number: encode(tmp_path, number / 10) for number in range(1, 5)}
    make_zip(root / "1.zip", {"b/2.wav": wavs[2], "a/10.wav": wavs[1], "notes.txt": b"-"})
    make_tar(root / "2" / "x.tar", {"./b.wav": wavs[4], "./a.wav": wavs[3], "./a.cls": b"-"})
    with h5py.File(root / "3.h5", "w") as file:
        file["b"] = np.full(800, 0.6, np.float32)
        file["a"] = np.full(800, 0.5, np.float32)
        file["labels"] = np.arange(2)
        file.attrs["sample_rate"] = RATE
    return root


def test_manifest__clips_in_archives_sorted_by_name(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    soundfile.write(sounds / "2" / "a.wav", np.full(800, 0.7), RATE, "FLOAT")
    before = sorted(sounds.rglob("*"))
    assert run(sounds, "--out", data) == 0
    assert values_in(data / "train.tsv") == [0.1, 0.2, 0.7, 0.3, 0.4, 0.5, 0.6]
    assert sorted(sounds.rglob("*")) == before
    assert rejected_in(data) == {}
    archives = (data / "train.archives").read_text().splitlines()
    status = os.stat(sounds / "1.zip")
    assert archives[0] == f"1.zip\t{status.st_size}\t{status.st_mtime_ns}"
    assert [line.split("\t")[0] for line in archives] == ["1.zip", "2/x.tar", "3.h5"]
    shown = capsys.readouterr().out
    assert "train.archives: 3 archives (zip, tar, HDF5, parquet)" in shown
    assert "total: 7 clips" in shown


def test_manifest__other_files_are_counted(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sounds, "--out", tmp_path / "data") == 0
    assert "other files" not in capsys.readouterr().out
    for name in ("a.m4a", "b/c.M4A", "LICENSE", *(f"x.{ending}" for ending in "abcdef")):
        (sounds / name).parent.mkdir(exist_ok=True)
        (sounds / name).touch()
    assert run(sounds, "--out", tmp_path / "data") == 0
    told = r"^other files \(see --ext\): 2 m4a(, 1 [a-z ]+){5}, \.\.\.$"
    assert re.search(told, capsys.readouterr().out, re.MULTILINE)


def test_manifest__only_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").touch()
    with pytest.raises(ValueError, match=r"no audio \(.*wav\) found under .*; there are 1 m4a$"):
        find_clips(tmp_path, {"wav"}, (), (), False, 1, lambda items, *_: items)


def test_manifest__archives_by_several_workers(sounds: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        run(sounds, "--out", tmp_path / str(workers), "--checksum", "--workers", workers)
    for name in ("train.tsv", "train.archives", "rejected.tsv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert len((tmp_path / "1" / "train.archives").read_text().split("\t")[3].split()[0]) == 64


def test_manifest__each_split_lists_its_own_archives(sounds: Path, tmp_path: Path) -> None:
    run(sounds, "--out", tmp_path, "--valid", 0.17)
    (held_out,) = (tmp_path / "valid.archives").read_text().splitlines()
    assert values_in(tmp_path / "valid.tsv")[0] in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert read_manifest(tmp_path / "valid.tsv").name(0).startswith(held_out.split("\t")[0])
    assert len((tmp_path / "train.archives").read_text().splitlines()) == 3


def test_manifest__forgets_archives_that_are_no_longer_used(sounds: Path, tmp_path: Path) -> None:
    run(sounds, "--out", tmp_path)
    soundfile.write(tmp_path / "sounds" / "a.wav", np.zeros(800), RATE)
    for name in ("1.zip", "2/x.tar", "3.h5"):
        (sounds / name).unlink()
    run(sounds, "--out", tmp_path)
    assert not (tmp_path / "train.archives").exists()


def test_manifest__rejects_what_cannot_be_read_in_place(sounds: Path, tmp_path: Path) -> None:
    wav = encode(tmp_path, 0.1)
    make_zip(sounds / "packed.zip", {"a.wav": wav, "b.txt": b"-"}, zipfile.ZIP_DEFLATED)
    make_zip(sounds / "packed.zip", {"c.wav": wav, "d.wav": b"no audio", "e.wav": b""})
    make_tar(sounds / "cut.tar", {"a.wav": wav, "b.wav": wav})
    data = (sounds / "cut.tar").read_bytes()
    (sounds / "cut.tar").write_bytes(data[: data.rindex(wav) + 100])
    for name in ("x.tar.gz", "y.TGZ", "z.tar.xz"):
        (sounds / name).write_bytes(b"-")
    (sounds / "empty.zip").touch()
    (sounds / "gone.tar").symlink_to("nowhere")
    (sounds / "text.h5").write_text("no HDF5")
    with h5py.File(sounds / "3.h5", "a") as file:
        file["deep/features"] = np.zeros((2, 2, 2), np.float32)
        file["a\tb"] = np.zeros(800, np.float32)
        file["x/../y"] = np.zeros(800, np.float32)
        file["rate"] = np.zeros(800, np.float32)
        file["rate"].attrs["sample_rate"] = "fast"
    assert run(sounds, "--out", tmp_path) == 0
    assert len(read_manifest(tmp_path / "train.tsv")) == 6 + 2
    rejected = rejected_in(tmp_path)
    compressed = "is compressed as a whole; decompress it"
    length = len(wav)
    expected = {
        "packed.zip:a.wav": "is compressed (deflate); store it uncompressed, for example by zip -0",
        "packed.zip:d.wav": "cannot be decoded: ",
        "packed.zip:e.wav": "is empty: 0 bytes",
        "cut.tar:b.wav": f"is truncated: 100 of {length} bytes are in the archive",
        "cut.tar": "is truncated or damaged: unexpected end of data",
        "x.tar.gz": compressed,
        "y.TGZ": compressed,
        "z.tar.xz": compressed,
        "empty.zip": "is not a zip archive",
        "gone.tar": "cannot be read: No such file or directory",
        "text.h5": "cannot be read as HDF5: ",
        "3.h5/deep/features": "has the shape (2, 2, 2), expected [samples] or",
        "3.h5/a\\tb": "a manifest cannot hold a path with a tab",
        "3.h5/x/../y": "a manifest cannot hold a path that leaves its root",
        "3.h5/rate": "has the attribute sample_rate = 'fast', expected Hz",
    }
    assert set(rejected) == set(expected)
    for name, reason in expected.items():
        assert rejected[name].startswith(reason)


def test_manifest__endings_apply_to_members_too(sounds: Path, tmp_path: Path) -> None:
    make_zip(sounds / "1.zip", {"c.aiff": encode(tmp_path, 0.9)})
    assert run(sounds, "--out", tmp_path, "--ext", "aiff") == 0
    assert values_in(tmp_path / "train.tsv") == [0.9, 0.5, 0.6]  # datasets have no endings


def test_manifest__archives_without_audio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_zip(tmp_path / "a" / "x.zip", {"a.txt": b"-"})
    assert run(tmp_path / "a", "--out", tmp_path) == 2
    assert "the first: x.zip: holds no clip: no member has a listed" in capsys.readouterr().err


def test_manifest__refuses_to_train_on_held_out_members(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sounds, "--out", tmp_path, "--valid", 0.3) == 0
    assert run(sounds, "--out", tmp_path) == 2
    assert "valid.tsv, written by an earlier run, has 2 of the" in capsys.readouterr().err


def labels_in(data: Path, split: str) -> dict:
    """The first sample of each clip and its labels, read as training reads them."""
    manifest = read_manifest(data / f"{split}.tsv")
    label_set = read_label_set(data / "label_descriptors.csv")
    labels = read_labels(data / f"{split}.lbl", label_set, manifest, single_label=False)
    assert labels.names_match
    classes = [
        [label_set.ids[position] for position in labels.classes(index)]
        for index in range(len(manifest))
    ]
    return dict(zip(values_in(data / f"{split}.tsv"), classes))


def test_folders_and_pattern__see_names_in_archives(sounds: Path, tmp_path: Path) -> None:
    assert run(sounds, "--out", tmp_path / "a", "--layout", "folders") == 0
    assert labels_in(tmp_path / "a", "train") == {
        **{0.1: ["1"], 0.2: ["1"], 0.3: ["2"], 0.4: ["2"], 0.5: ["3"], 0.6: ["3"]}
    }
    pattern = r"[.](?P<group>zip|tar|h5)/(?P<label>[a-z])"
    options = ("--layout", "pattern", "--pattern", pattern, "--valid-groups", "tar")
    assert run(sounds, "--out", tmp_path / "b", *options) == 0
    assert labels_in(tmp_path / "b", "train") == {0.1: ["a"], 0.2: ["b"], 0.5: ["a"], 0.6: ["b"]}
    assert labels_in(tmp_path / "b", "eval") == {0.3: ["a"], 0.4: ["b"]}
    assert not (tmp_path / "b" / "valid.archives").exists()
    assert (tmp_path / "b" / "eval.archives").read_text().startswith("2/x.tar\t")


def test_pattern__rejects_members_without_a_label(sounds: Path, tmp_path: Path) -> None:
    options = ("--layout", "pattern", "--pattern", "/(?P<label>a)")
    assert run(sounds, "--out", tmp_path, *options) == 2  # one class
    problem = "has no label that matches --pattern"
    assert rejected_in(tmp_path) == dict.fromkeys(
        ["1.zip:b/2.wav", "2/x.tar:b.wav", "3.h5/b"], problem
    )


def test_csv__entries_of_archives(sounds: Path, tmp_path: Path) -> None:
    run(sounds, "--out", tmp_path)
    manifest = read_manifest(tmp_path / "train.tsv")
    rows = [f"{manifest.name(index)},{index % 2}\n" for index in range(len(manifest))]
    (tmp_path / "t.csv").write_text("filename,label\n" + "".join(rows))
    options = ("--layout", "csv", "--csv", tmp_path / "t.csv", "--checksum")
    assert run(sounds, "--out", tmp_path / "b", *options) == 0
    assert len(labels_in(tmp_path / "b", "train")) == 6
    lines = (tmp_path / "b" / "train.archives").read_text().splitlines()
    assert [len(line.split("\t")) for line in lines] == [4, 4, 4]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of five samples: three in a tar, two in a zip."""
    root = tmp_path / "shards"
    wavs = [encode(tmp_path, number / 10) for number in range(6)]
    tar = {"b.wav": wavs[2], "b.cls": b"1", "a.cls": b"0\n", "a.wav": wavs[1]}
    make_tar(root / "0.tar", {**tar, "c.json": b'{"label": [0, 1]}', "c.wav": wavs[3]})
    make_zip(root / "1.zip", {"a.wav": wavs[4], "a.cls": b"10", "b.wav": wavs[5]})
    return root


def test_webdataset__labels_in_text_members(shards: Path, tmp_path: Path) -> None:
    assert run(shards, "--out", tmp_path, "--layout", "webdataset") == 0
    expected = {0.1: ["0"], 0.2: ["1"], 0.3: ["0", "1"], 0.4: ["10"]}
    assert labels_in(tmp_path, "train") == expected
    problem = "has no label: its shard has no .cls or .json with its key"
    assert rejected_in(tmp_path) == {"1.zip:b.wav": problem}
    names = (tmp_path / "label_descriptors.csv").read_text()
    assert names == "0,0,0\n1,1,1\n2,10,10\n"


def test_webdataset__a_key_in_json(shards: Path, tmp_path: Path) -> None:
    options = ("--layout", "webdataset", "--json-key", "label")
    assert run(shards, "--out", tmp_path, *options) == 0
    assert labels_in(tmp_path, "train") == {0.3: ["0", "1"]}


def test_webdataset__holds_out_a_fraction_of_each_class(tmp_path: Path) -> None:
    wavs = {f"{n}.wav": encode(tmp_path, n / 10) for n in range(1, 9)}
    labels = {f"{n}.cls": b"ab"[n % 2 : n % 2 + 1] for n in range(1, 9)}
    make_tar(tmp_path / "s" / "0.tar", {**wavs, **labels})
    options = ("--layout", "webdataset", "--valid", 0.25)
    assert run(tmp_path / "s", "--out", tmp_path, *options) == 0
    assert sorted(labels_in(tmp_path, "eval").values()) == [["a"], ["b"]]
    assert len(labels_in(tmp_path, "train")) == 6


def test_webdataset__files_outside_of_shards(shards: Path, tmp_path: Path) -> None:
    soundfile.write(shards / "loose.wav", np.zeros(800), RATE)
    (shards / "x.h5").write_text("not looked into")
    assert run(shards, "--out", tmp_path, "--layout", "webdataset") == 0
    assert set(rejected_in(tmp_path)) == {"1.zip:b.wav", "loose.wav"}
