"""Archives of a manifest, and their fingerprints."""

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from eat_plugin.data.fingerprints import (
    Fingerprint,
    check_archives,
    find_containers,
    take_fingerprint,
    write_archives,
)
from eat_plugin.data.manifest import ManifestError

CONTENT = b"0123456789" * 100


def test_find_containers__existing_archives_and_hdf5_files(tmp_path: Path) -> None:
    (tmp_path / "deep.h5").mkdir()
    for name in ("a.zip", "b.tar", "c.h5", "deep.h5/d.hdf5"):
        (tmp_path / name).touch()
    names = [
        *("x.wav", "b.tar:0:1", "a.zip:0:1", "a.zip:1:1", "none.zip:0:1", "c.h5/x", "c.h5/y/z"),
        *("deep.h5/d.hdf5/e", "none.h5/x", "c.h5", "deep.h5/x.wav"),
    ]
    assert find_containers(tmp_path, names) == ["a.zip", "b.tar", "c.h5", "deep.h5/d.hdf5"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with an archive and its fingerprint in train.archives."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a b.zip").write_bytes(CONTENT)
    write(tmp_path, checksum=False)
    return tmp_path


def write(folder: Path, checksum: bool) -> None:
    fingerprint = take_fingerprint(folder / "deep" / "a b.zip", checksum)
    write_archives(folder / "train.archives", {"deep/a b.zip": fingerprint})


def change_time(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def check(folder: Path) -> None:
    check_archives(folder / "train.archives", folder)


def test_take_fingerprint__size_time_and_checksum(data: Path) -> None:
    path = data / "deep" / "a b.zip"
    time = path.stat().st_mtime_ns
    assert take_fingerprint(path, checksum=False) == Fingerprint(1_000, time)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert take_fingerprint(path, checksum=True) == Fingerprint(1_000, time, digest)


def test_write_archives__one_line_per_archive(data: Path) -> None:
    path = data / "train.archives"
    write_archives(path, {"b.tar": Fingerprint(1, 2, "ab"), "a.zip": Fingerprint(3, 4)})
    assert path.read_text() == "a.zip\t3\t4\nb.tar\t1\t2\tab\n"
    write_archives(path, {})
    assert not path.exists()
    write_archives(path, {})


def test_check_archives__unchanged(data: Path) -> None:
    check(data)
    check_archives(data / "none.archives", data)


def test_check_archives__moved_with_its_root(data: Path, tmp_path: Path) -> None:
    (data / "deep").rename(data / "elsewhere")
    (data / "root").mkdir()
    (data / "elsewhere").rename(data / "root" / "deep")
    check_archives(data / "train.archives", data / "root")


def test_check_archives__changed_size(data: Path) -> None:
    path = data / "deep" / "a b.zip"
    path.write_bytes(CONTENT[:-1])
    problem = (
        f"{data}/train.archives:1: the archive '{path}' has 999 bytes; it had 1000 when it was "
        "indexed; run eat manifest again"
    )
    with pytest.raises(ManifestError, match=f"^{re.escape(problem)}$"):
        check(data)


def test_check_archives__changed_time(data: Path) -> None:
    change_time(data / "deep" / "a b.zip")
    with pytest.raises(ManifestError, match=r":1: .*a b.zip' changed after .* eat manifest"):
        check(data)


def test_check_archives__changed_time_same_checksum(data: Path) -> None:
    write(data, checksum=True)
    change_time(data / "deep" / "a b.zip")
    check(data)


def test_check_archives__changed_checksum(data: Path) -> None:
    write(data, checksum=True)
    (data / "deep" / "a b.zip").write_bytes(CONTENT[::-1])
    change_time(data / "deep" / "a b.zip")
    with pytest.raises(ManifestError, match=":1: .*a b.zip' has another SHA-256 than"):
        check(data)


def test_check_archives__missing_archive(data: Path) -> None:
    (data / "deep" / "a b.zip").unlink()
    with pytest.raises(ManifestError, match=r":1: .*a b.zip: No such file or directory"):
        check(data)


def test_check_archives__hdf5_without_h5py(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "x.h5").touch()
    write_archives(data / "train.archives", {"x.h5": take_fingerprint(data / "x.h5", False)})
    check(data)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ManifestError, match=":1: needs h5py, which is not installed"):
        check(data)


@pytest.mark.parametrize(
    "line", ["", "a.zip", "a.zip\t1", "a.zip\t1\tx", "a.zip\t-1\t1", "\t1\t1", "a.zip\t1\t2\t3\t4"]
)
def test_check_archives__error_names_the_line(data: Path, line: str) -> None:
    path = data / "train.archives"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ManifestError, match="train.archives:2: expected 'archive<TAB>bytes<TAB>"):
        check(data)


def test_check_archives__not_utf8(data: Path) -> None:
    (data / "train.archives").write_bytes(b"caf\xe9.zip\t1\t2\n")
    with pytest.raises(ManifestError, match="train.archives:1: "):
        check(data)


def test_check_archives__a_pipe_or_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    for name in ("a.zip", "/dev/zero"):
        with pytest.raises(OSError, match="is not a regular file"):
            take_fingerprint(tmp_path / name, checksum=True)
        (tmp_path / "train.archives").write_text(f"{name}\t0\t0\n")
        with pytest.raises(ManifestError, match="train.archives:1: .*: is not a regular file"):
            check_archives(tmp_path / "train.archives", tmp_path)
