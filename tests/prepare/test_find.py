"""Audio files in a folder: the walk, and the processes that read headers."""

import multiprocessing
import os
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin.prepare import find, processes
from eat_plugin.prepare.find import (
    endings_of,
    find_files,
    list_all,
    probe_all,
    sort_out,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_find_files__by_their_endings(tmp_path: Path) -> None:
    touch(tmp_path, "b/c.WAV", "a.wav", "a.flac", "wav", "b/d/e.wav")
    others: Counter = Counter()
    found = list(find_files(tmp_path, {"wav"}, others))
    assert sorted(found) == [("a.wav", None), ("b/c.WAV", None), ("b/d/e.wav", None)]
    assert others == {"flac": 1, "": 1}


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("a.WAV", ["wav"]),
        ("a.b.tar.GZ", ["gz", "tar.gz"]),
        ("a.tar", ["tar"]),
        *(("wav", []), (".wav", []), ("a.", [""])),
    ],
)
def test_endings_of__one_and_two(name: str, endings: list) -> None:
    assert endings_of(name) == endings


def test_find_files__by_two_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar.gz", "b.gz", "c.zip", "tar.gz")
    assert sorted(find_files(tmp_path, {"tar.gz", "zip"})) == [("a.tar.gz", None), ("c.zip", None)]


def test_find_files__follows_links_and_visits_each_folder_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, "0/a.wav", "1/b.wav")
    touch(tmp_path, "elsewhere/far.wav")
    (root / "a link").symlink_to(tmp_path / "elsewhere")
    (root / "0" / "loop").symlink_to(root)
    (root / "a loop.wav").symlink_to(root / "a loop.wav")
    (root / "+").symlink_to(root / "0")  # sorts before the folder itself
    (root / "1" / "file.wav").symlink_to(root / "0" / "a.wav")
    names = sorted(name for name, _ in find_files(root, {"wav"}))
    assert names == ["0/a.wav", "1/b.wav", "1/file.wav", "a link/far.wav", "a loop.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_find_files__names_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "1/a.wav", "2/b.wav")
    (tmp_path / "1").chmod(0)
    found = sorted(find_files(tmp_path, {"wav"}))
    (tmp_path / "1").chmod(0o755)
    assert found == [("1/", "cannot be listed: Permission denied"), ("2/b.wav", None)]


def test_find_files__a_root_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(find_files(tmp_path / "none", {"wav"}))


def test_sort_out__what_a_manifest_cannot_hold() -> None:
    found = [("b", None), ("a\tb", None), ("a", None), ("c/", "why"), ("../d", None)]
    names, rejected = sort_out(found)
    assert names == ["a", "b"]
    assert [name for name, _ in rejected] == ["a\tb", "c/", "../d"]
    assert rejected[1][1] == "why"


def test_probe_all__in_order_however_many_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "CHUNK", 2)
    paths = [str(tmp_path / f"{number}.wav") for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.zeros(100 + number), 8_000)
    paths.insert(2, str(tmp_path / "none.wav"))
    results = list(probe_all(paths, workers=1))
    assert results == list(probe_all(paths, workers=2))
    assert results[0] == (100, 8_000)
    assert results[2] == "cannot be opened: No such file or directory"
    assert results[5] == (104, 8_000)


def test_probe_all__a_worker_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_pool(workers: int, initializer: object) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer)

    monkeypatch.setattr(find, "CHUNK", 2)
    monkeypatch.setattr(processes, "_ignore_interrupts", lambda: os._exit(1))
    monkeypatch.setattr(processes, "ProcessPoolExecutor", make_pool)
    with pytest.raises(OSError, match="a worker process died"):
        list(probe_all(["a"] * 10, workers=2))


def test_list_all__in_order_however_many_workers(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.zip") for number in range(4)]
    for number, path in enumerate(paths):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{number}.wav", bytes(number))
            archive.writestr(f"{number}.cls", b"cat")
    paths.insert(2, str(tmp_path / "none.zip"))
    one, two = (list(list_all(paths, {"wav"}, {"cls"}, True, workers)) for workers in (1, 2))
    assert one == two
    assert [list(contents.clips) for contents in one] == [
        *(["0.wav"], ["1.wav"], [], ["2.wav"], ["3.wav"])
    ]
    assert one[0].texts == {"0.cls": b"cat"}
    assert len(one[0].fingerprint.sha256) == 64


def test_available_cores__is_at_least_one() -> None:
    assert processes.available_cores() >= 1
