"""Clips in a folder: the walk, archives, and headers."""

import multiprocessing
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin.prepare import find, processes
from eat_plugin.prepare.find import endings_of, find_clips, find_files, probe_all


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_find_files__by_ending(tmp_path: Path) -> None:
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
def test_find_files__yields_unlistable_folders(tmp_path: Path) -> None:
    touch(tmp_path, "1/a.wav", "2/b.wav")
    (tmp_path / "1").chmod(0)
    found = sorted(find_files(tmp_path, {"wav"}))
    (tmp_path / "1").chmod(0o755)
    assert found == [("1/", "cannot be listed: Permission denied"), ("2/b.wav", None)]


def test_find_files__raises_for_an_unlistable_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(find_files(tmp_path / "none", {"wav"}))


def show_nothing(items: Iterable, *_: object) -> Iterable:
    return items


def test_find_clips__rejects_names_that_a_manifest_cannot_hold(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a\tb.wav", "a.wav")
    found = find_clips(tmp_path, {"wav"}, (), (), False, 1, show_nothing)
    assert found.names == ["a.wav", "b.wav"]
    assert [name for name, _ in found.rejected] == ["a\tb.wav"]


def test_probe_all__in_order_with_any_number_of_workers(
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


def test_probe_all__reports_a_dead_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_pool(workers: int, **options: object) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), **options)

    monkeypatch.setattr(find, "CHUNK", 2)
    monkeypatch.setattr(processes, "_start_worker", lambda *_: os._exit(1))
    monkeypatch.setattr(processes, "ProcessPoolExecutor", make_pool)
    with pytest.raises(OSError, match="a worker process died"):
        list(probe_all(["a"] * 10, workers=2))


def test_find_clips__archives_with_any_number_of_workers(tmp_path: Path) -> None:
    for number in range(4):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(f"{number}.wav", bytes(number))
            archive.writestr(f"{number}.cls", b"cat")
    (tmp_path / "none.zip").symlink_to("nowhere")
    options = ({"wav"}, ("zip",), ("cls",), True)
    one, two = (find_clips(tmp_path, *options, workers, show_nothing) for workers in (1, 2))
    assert one == two
    assert one.names == [f"{number}.zip/{number}.wav" for number in range(4)]
    assert one.rejected == [("none.zip", "cannot be read: No such file or directory")]
    assert one.texts["0.zip/0.cls"] == b"cat"
    assert len(one.fingerprints["0.zip"].sha256) == 64


def test_available_cores__is_at_least_one() -> None:
    assert processes.available_cores() >= 1
