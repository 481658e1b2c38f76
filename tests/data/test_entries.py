"""Entries of a manifest: storage of a clip."""

from pathlib import Path

import pytest

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import (
    CachedSpan,
    Entry,
    Span,
    Storage,
    check_span,
    find_storage,
    is_image,
    locate,
    original_name,
    split_cached,
    split_dataset,
    split_span,
)
from eat_plugin.data.manifest import read_manifest


@pytest.mark.parametrize(
    ("path", "storage"),
    [
        ("/a b/c.wav", Storage.FILE),
        ("/a:b.wav", Storage.FILE),
        ("/a.PNG", Storage.IMAGE),
        ("/a.zip:0:12", Storage.ARCHIVE),
        ("/x.png/a.tar:0:12", Storage.ARCHIVE),
        ("/c/train-00000.mel:0:98/a.zip:0:12", Storage.CACHE),
        ("/none.h5/key", Storage.FILE),
    ],
)
def test_find_storage__by_the_path(path, storage):
    assert find_storage(path) is storage
    assert locate(path) == Entry(path, storage)
    assert locate(Entry(path, storage, 5)) == Entry(path, storage, 5)


def test_find_storage__hdf5_file_or_folder_of_that_name(tmp_path: Path) -> None:
    file = tmp_path / "folder.h5" / "x.HDF5"
    file.parent.mkdir()
    file.touch()
    for key in ("deep/y.h5", "/deep/"):
        assert find_storage(f"{file}/{key}") is Storage.HDF5
        assert split_dataset(f"{file}/{key}") == (str(file), key.strip("/"))
    for path in (file, f"{file}/", tmp_path / "folder.h5" / "none.h5" / "a", "x.h5"):
        assert find_storage(str(path)) is Storage.FILE
    with pytest.raises(ClipError, match="its HDF5 file is missing"):
        split_dataset("none.h5/a")


def test_read_manifest__finds_the_storage_of_each_clip(tmp_path: Path) -> None:
    (tmp_path / "x.h5").touch()
    names = ("a.wav", "b.zip:1:2", "x.h5/key", "no.h5/key", "c.webp", "t-00000.mel:0:1/a", "d:e")
    lines = [str(tmp_path), *(f"{name}\t7" for name in names)]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    manifest = read_manifest(tmp_path / "train.tsv")
    entries = [manifest.entry(index) for index in range(len(names))]
    assert entries == [locate(tmp_path / name)._replace(size=7) for name in names]
    assert [entry.storage.name for entry in entries] == [
        "FILE", "ARCHIVE", "HDF5", "FILE", "IMAGE", "CACHE", "FILE"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.png", "B.JPG", "c.jpeg", "d/e.WebP"])
def test_is_image__by_extension(name):
    assert is_image(name)


@pytest.mark.parametrize("name", ["a.wav", "png", "a.gif", "a.png.txt", "s.h5/key", "s.tar:5:9"])
def test_is_image__other_names(name):
    assert not is_image(name)


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("a.zip:0:1", Span("a.zip", 0, 1)),
        ("/b c/a:1.TAR:23:456", Span("/b c/a:1.TAR", 23, 456)),
        ("a.zip:1:2:3", None),
        ("a.zip:1", None),
        ("a.zip:-1:2", None),
        ("a.zip:1:2 ", None),
        ("a.zip:\u0661:2", None),  # a digit, but not ASCII
        ("a.zip:1:" + "9" * 19, None),
        ("a.gz:1:2", None),
        (".zip:1:2", None),
        ("a.wav", None),
    ],
)
def test_split_span__ranges_of_archives(name: str, span: "Span | None") -> None:
    assert split_span(name) == span


def test_check_span__empty_or_outside_the_archive() -> None:
    check_span(Span("a.zip", 6, 4), 10)
    with pytest.raises(ClipError, match="is outside of its archive, bytes 6 to 11 of 10: the arch"):
        check_span(Span("a.zip", 6, 5), 10)
    with pytest.raises(ClipError, match="is empty: 0 bytes"):
        check_span(Span("a.zip", 10, 0), 10)


@pytest.mark.parametrize(
    ("path", "clip"),
    [
        ("train-00000.mel:0:98/a.wav", CachedSpan("train-00000.mel", 0, 98, "a.wav")),
        ("/c d/e-123456.mel:7:0/x.zip:1:2", CachedSpan("/c d/e-123456.mel", 7, 0, "x.zip:1:2")),
        ("a-00000.mel:1:2/h.h5/key", CachedSpan("a-00000.mel", 1, 2, "h.h5/key")),
        ("a-00000.mel:1:2/a-00001.mel:3:4/b", CachedSpan(
            "a-00000.mel", 1, 2, "a-00001.mel:3:4/b"
        )),
        ("a-00000.mel:1:2", None),
        ("a-00000.mel:1:2/", None),
        ("a-00000.mel:1/b", None),
        ("a-00000.mel:-1:2/b", None),
        ("a-0000.mel:1:2/b", None),
        ("a-00000.mel:\u0661:2/b", None),  # a digit, but not ASCII
        ("a-00000.mel:1:" + "9" * 16 + "/b", None),
        ("a.mel:1:2/b", None),
        ("a-00000.mel", None),
        ("x.zip:1:2", None),
    ],
)  # fmt: skip
def test_split_cached__entries_of_caches(path, clip):
    assert split_cached(path) == clip
    assert original_name(path) == (path if clip is None else clip.name)
