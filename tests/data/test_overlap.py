"""Clips that two manifests share, however their paths are written."""

import json
import os
from pathlib import Path

import pytest

from eat_plugin.data.fingerprints import Fingerprint, write_archives
from eat_plugin.data.manifest import write_manifest
from eat_plugin.data.overlap import SplitFiles, check_held_out, find_shared, is_held_out


def split(folder: Path, name: str, root: object, *clips: str) -> SplitFiles:
    """Write a manifest and return its files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tsv"
    path.write_text("\n".join([str(root), *(f"{clip}\t1" for clip in clips)]) + "\n")
    return SplitFiles.of_manifest(path)


@pytest.fixture
def train(tmp_path: Path) -> SplitFiles:
    (tmp_path / "audio" / "b").mkdir(parents=True)
    os.symlink(tmp_path / "audio", tmp_path / "link")
    return split(tmp_path, "train", tmp_path / "audio", "a.wav", "b/c d.wav", "b/x.zip:0:99")


@pytest.mark.parametrize(
    ("root", "clips", "shared"),
    [
        ("audio", ["a.wav", "z.wav"], ["a.wav"]),
        ("audio", ["a.wave", "b", "x.zip:0:99"], []),
        ("audio/b", ["c d.wav", "x.zip:0:99", "x.zip:0:9"], ["b/c d.wav", "b/x.zip:0:99"]),
        (".", ["audio/a.wav", "a.wav"], ["a.wav"]),
        ("link/b", ["c d.wav"], ["b/c d.wav"]),
        ("link/", ["./a.wav", "b//c d.wav"], ["a.wav", "b/c d.wav"]),
        ("other", ["a.wav"], []),
    ],
)
def test_find_shared__compares_resolved_paths(
    train: SplitFiles, tmp_path: Path, root: str, clips: list, shared: list
) -> None:
    other = split(tmp_path, "eval", f"{tmp_path}/{root}", *clips)
    expected = [f"{tmp_path}/audio/{name}" for name in shared]
    assert find_shared(train, other) == find_shared(other, train) == expected


def test_find_shared__equal_hashes_are_not_enough(
    train: SplitFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.hash", lambda _: 7)
    assert not find_shared(train, split(tmp_path, "eval", tmp_path, "y.wav"))


def test_find_shared__cached_clips_are_the_files_before(train: SplitFiles, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    held_out = split(cache, "eval", cache, "eval-00000.mel:0:9/c d.wav", "eval-00000.mel:9:9/q.wav")
    assert not find_shared(train, held_out)  # an older cache does not know its root
    roots = {"eval": {"root": str(tmp_path / "link" / "b")}, "train": {"sha256": "0"}}
    (cache / "cache.json").write_text(json.dumps({"splits": roots}))
    held_out = SplitFiles.of_manifest(cache / "eval.tsv")
    assert find_shared(train, held_out) == [f"{tmp_path}/audio/b/c d.wav"]
    both = split(cache, "train", cache, "eval-00000.mel:9:9/q.wav", "train-00000.mel:0:9/c d.wav")
    assert find_shared(both, held_out) == [f"{tmp_path}/audio/b/q.wav"]


@pytest.mark.parametrize("text", ["", "[]", '{"splits": 1}', '{"splits": {"eval": 1}}'])
def test_find_shared__damaged_cache_file_is_ignored(tmp_path: Path, text: str) -> None:
    clips = split(tmp_path, "eval", tmp_path, "eval-00000.mel:0:9/a.wav")
    (tmp_path / "cache.json").write_text(text)
    assert list(clips.paths()) == [[f"{tmp_path}/eval-00000.mel:0:9/a.wav".encode()]]


@pytest.mark.parametrize(("first", "second", "same"), [("1", "1", True), ("1", "2", False)])
def test_find_shared__copies_of_an_archive_are_the_same(
    tmp_path: Path, first: str, second: str, same: bool
) -> None:
    for name, checksum in (("train", first), ("eval", second)):
        files = ("x.zip", "y.h5")
        archives = {f"{name}/{file}": Fingerprint(9, 9, f"{file}{checksum}") for file in files}
        write_archives(tmp_path / f"{name}.archives", archives)
    train = split(tmp_path, "train", tmp_path, "train/x.zip:0:9", "train/y.h5/a/b", "a.wav")
    held_out = split(
        tmp_path, "eval", tmp_path, "eval/x.zip:0:9", "eval/y.h5/a/b", "eval/x.zip:9:9"
    )
    expected = [f"{tmp_path}/train/{name}" for name in ("x.zip:0:9", "y.h5/a/b")]
    assert find_shared(train, held_out) == (expected if same else [])


def test_find_shared__follows_links_of_files_and_folders(tmp_path: Path) -> None:
    for name in ("pool/cat", "pool/dog", "train/cat", "test/cat"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("cat/1.wav", "cat/2.wav", "dog/3.wav"):
        (tmp_path / "pool" / name).touch()
    (tmp_path / "train" / "cat" / "one.wav").symlink_to(tmp_path / "pool" / "cat" / "1.wav")
    (tmp_path / "test" / "cat" / "two.wav").symlink_to("../../pool/cat/2.wav")
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "pool" / "dog")
    train = split(tmp_path, "train", tmp_path / "train", "cat/one.wav", "dog/3.wav")
    same = split(tmp_path, "same", tmp_path / "pool", "cat/1.wav", "cat/2.wav", "dog/3.wav")
    other = split(tmp_path, "other", tmp_path / "test", "cat/two.wav")
    pool = os.path.realpath(tmp_path / "pool")
    assert find_shared(train, same) == [f"{pool}/cat/1.wav", f"{pool}/dog/3.wav"]
    assert find_shared(other, same) == [f"{pool}/cat/2.wav"]
    assert find_shared(train, other) == []


def test_find_shared__follows_links_of_archives(tmp_path: Path) -> None:
    (tmp_path / "a:b.tar").touch()
    (tmp_path / "c.tar").symlink_to("a:b.tar")
    train = split(tmp_path, "train", tmp_path, "a:b.tar:512:100", "a:b.tar:1024:100")
    held_out = split(tmp_path, "eval", tmp_path, "c.tar:512:100", "c.tar:2048:100")
    assert find_shared(train, held_out) == [f"{os.path.realpath(tmp_path)}/a:b.tar:512:100"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eval", True), ("valid", True), ("validation_2", True), ("Test", True),
        ("dev-clean", True), ("heldout", True), ("holdout", True),
        ("development", True), ("device_a", False), ("train", False), ("more", False),
        ("unbalanced", False), ("rejected.eval", False),
    ],
)  # fmt: skip
def test_is_held_out__by_the_name_of_the_split(name: str, expected: bool) -> None:
    assert is_held_out(name) == expected


def test_check_held_out__names_manifests_number_and_example(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(9)]
    split(tmp_path, "train", tmp_path, *names)
    split(tmp_path, "subset", tmp_path, *names[:3])  # not held out
    split(tmp_path, "eval", tmp_path, "other.wav")
    check_held_out(tmp_path, ["train", "gone", ""])
    with pytest.raises(ValueError, match=f"has 3 of the clips that {tmp_path}/subset.tsv holds"):
        check_held_out(tmp_path, ["subset"])
    split(tmp_path, "test", tmp_path, *names[7:])
    message = (
        f"^{tmp_path}/train.tsv has 2 of the clips that {tmp_path}/test.tsv holds out, for example "
        f"'{tmp_path}/7.wav'; run eat manifest again .* or remove {tmp_path}/test.tsv$"
    )
    with pytest.raises(ValueError, match=message):
        check_held_out(tmp_path)


def test_check_held_out__only_reads_train_if_something_is_held_out(tmp_path: Path) -> None:
    check_held_out(tmp_path)
    (tmp_path / "test_scores.tsv").write_text("clip\tscore\n")  # no manifest
    write_manifest(tmp_path / "train.tsv", tmp_path, [("a.wav", 1)])
    check_held_out(tmp_path)
