"""Clips listed from archives, and reasons for members that cannot be read in place."""

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eat_plugin.prepare.archive_index import Contents, index_archive, readable

A, B = b"a" * 700, b"b" * 1_300
TEXT = b"a class"


def make_zip(path: Path, *members: tuple, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **changes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in changes.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def make_tar(path: Path, *members: tuple, **options: object) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members:
            add(archive, name, data)
    return path


MAKERS = {"zip": make_zip, "tar": make_tar}
MEMBERS = (("b/2.wav", B), ("a.WAV", A), ("notes.txt", b"no audio"), ("a.cls", TEXT))


def list_wavs(path: Path) -> Contents:
    return index_archive(str(path), {"wav"}, {"cls"})


def read_clips(path: Path, contents: Contents) -> dict:
    """The bytes of each clip listed."""
    data, found = path.read_bytes(), {}
    for name, place in contents.clips.items():
        _, start, length = place.split(":")
        found[name] = data[int(start) : int(start) + int(length)]
    return found


@pytest.mark.parametrize("kind", MAKERS)
def test_index_archive__lists_clips_and_texts(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path / f"x.{kind}", *MEMBERS)
    contents = list_wavs(path)
    assert read_clips(path, contents) == {"b/2.wav": B, "a.WAV": A}
    assert contents.texts == {"a.cls": TEXT}
    assert contents.rejected == []
    assert contents.fingerprint.size == path.stat().st_size


@pytest.mark.parametrize("kind", MAKERS)
def test_index_archive__no_clips(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path / f"x.{kind}")
    contents = list_wavs(path)
    assert (contents.clips, contents.rejected) == ({}, [])


@pytest.mark.parametrize("kind", MAKERS)
def test_index_archive__lists_unsafe_names_without_unpacking(tmp_path: Path, kind: str) -> None:
    names = ["../up.wav", "/root.wav", "./here.wav", "tab\there.wav", "\u97f3.wav"]
    path = MAKERS[kind](tmp_path / f"x.{kind}", *((name, A) for name in names))
    before = sorted(tmp_path.parent.rglob("*"))
    clips = read_clips(path, list_wavs(path))
    shown = ["../up.wav", "/root.wav", "here.wav", "tab\\there.wav", "\u97f3.wav"]
    assert clips == dict.fromkeys(shown, A)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_readable__escapes() -> None:
    assert readable(os.fsdecode(b"caf\xe9\t\r\n")) == "caf\\xe9\\t\\r\\n"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", MAKERS)
def test_index_archive__uses_the_last_member_of_a_name(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path / f"x.{kind}", ("a.wav", A), ("a.wav", B))
    contents = list_wavs(path)
    assert read_clips(path, contents) == {"a.wav": B}
    assert contents.rejected == [("a.wav", "occurs twice; the later member is used")]


@pytest.mark.parametrize(
    ("method", "called"),
    [(zipfile.ZIP_DEFLATED, "deflate"), (zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")],
)
def test_index_archive__compressed_members(tmp_path: Path, method: int, called: str) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.wav", A), ("a.cls", TEXT), method=method)
    contents = list_wavs(path)
    reason = f"is compressed ({called}); store it uncompressed, for example by zip -0"
    assert contents.rejected == [("a.wav", reason)]
    assert (contents.clips, contents.texts) == ({}, {})


def test_index_archive__encrypted_members(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.wav", A))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert list_wavs(path).rejected == [("a.wav", "is encrypted")]


def test_index_archive__zip_members_that_are_not_files(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link, file = zipfile.ZipInfo("link.wav"), zipfile.ZipInfo("file.wav")
        link.external_attr, file.external_attr = 0o120777 << 16, 0o100644 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(file, A)
        archive.mkdir("folder.wav") if hasattr(archive, "mkdir") else None
    contents = list_wavs(path)
    assert contents.rejected == [("link.wav", "is not a regular file")]
    assert list(contents.clips) == ["file.wav"]


def test_index_archive__zip64_after_other_data(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"a program that unpacks itself")
    with zipfile.ZipFile(path, "a") as archive, archive.open("a.wav", "w", force_zip64=True) as f:
        f.write(A)
    assert read_clips(path, list_wavs(path)) == {"a.wav": A}


def test_index_archive__zip_member_at_another_offset(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.wav", A), ("b.wav", B))
    data = path.read_bytes()
    path.write_bytes(b"PK\x03\x05" + data[4:])
    contents = list_wavs(path)
    assert contents.rejected == [("a.wav", "is not at the offset in the central directory")]
    assert read_clips(path, contents) == {"b.wav": B}


def test_index_archive__truncated_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.cls", TEXT), ("a.wav", A), ("b.wav", B), ("c.wav", A))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(B) + 1_000])
    contents = list_wavs(path)
    assert read_clips(path, contents) == {"a.wav": A}
    assert contents.texts == {"a.cls": TEXT}
    (member, archive) = contents.rejected
    assert member == ("b.wav", "is truncated: 1000 of 1300 bytes are in the archive")
    assert archive[0] == ""
    assert "is truncated or damaged: it has no central directory" in archive[1]


def test_index_archive__truncated_zip64_and_unknown_lengths(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.wav", "w", force_zip64=True) as f:
        f.write(A)
    data = path.read_bytes()
    data = data[: data.index(b"PK\x01\x02")]
    path.write_bytes(data + data)
    assert read_clips(path, list_wavs(path)) == {"a.wav": A}
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 8, 0, 0, 0, 0, 0, 0, 5, 0)
    path.write_bytes(header + b"b.wav" + B)
    contents = list_wavs(path)
    assert contents.clips == {}
    assert contents.rejected[0][0] == "b.wav"
    assert "has no length" in contents.rejected[0][1]


@pytest.mark.parametrize("data", [b"", b"no archive" * 200, b"PK\x05\x06", bytes(2_000)])
def test_index_archive__not_a_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    contents = list_wavs(tmp_path / "x.zip")
    assert (contents.clips, contents.rejected) == ({}, [("", "is not a zip archive")])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_index_archive__long_names_in_a_tar(tmp_path: Path, form: int) -> None:
    name = "/".join(["folder" * 9] * 5) + "/a.wav"
    path = make_tar(tmp_path / "x.tar", (name, A), ("b.wav", B), format=form)
    assert read_clips(path, list_wavs(path)) == {name: A, "b.wav": B}


def test_index_archive__tar_members_that_are_not_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a.wav", A)
        add(archive, "link.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "again.wav", type=tarfile.LNKTYPE, linkname="a.wav")
        add(archive, "pipe.wav", type=tarfile.FIFOTYPE)
        add(archive, "folder.wav", type=tarfile.DIRTYPE)
    contents = list_wavs(tmp_path / "x.tar")
    assert list(contents.clips) == ["a.wav"]
    assert contents.rejected == [
        ("link.wav", "is a symbolic link"),
        ("again.wav", "is a hard link"),
        ("pipe.wav", "is not a regular file"),
    ]


def test_index_archive__sparse_tar_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        sparse = {"GNU.sparse.map": "0,700", "GNU.sparse.size": "9000", "GNU.sparse.numblocks": "1"}
        add(archive, "a.wav", A, pax_headers=sparse)
    contents = list_wavs(tmp_path / "x.tar")
    assert contents.clips == {}
    assert contents.rejected[0][1] == "is a sparse file, which is not stored in one piece"


def cut_tar(folder: Path, change: Callable[[bytes], bytes]) -> Contents:
    path = make_tar(folder / "x.tar", ("a.wav", A), ("b.wav", B), ("c.wav", A))
    path.write_bytes(change(path.read_bytes()))
    contents = list_wavs(path)
    assert set(read_clips(path, contents).values()) <= {A, B}
    return contents


def test_index_archive__truncated_tar(tmp_path: Path) -> None:
    contents = cut_tar(tmp_path, lambda data: data[: data.index(B) + 1_000])
    assert list(contents.clips) == ["a.wav"]
    assert contents.rejected == [
        ("b.wav", "is truncated: 1000 of 1300 bytes are in the archive"),
        ("", "is truncated or damaged: unexpected end of data"),
    ]


def test_index_archive__tar_truncated_between_members(tmp_path: Path) -> None:
    contents = cut_tar(tmp_path, lambda data: data[: data.index(B) + 1_536])
    assert list(contents.clips) == ["a.wav", "b.wav"]
    reason = "has no end mark; if it is truncated, members are missing"
    assert contents.rejected == [("", reason)]


def test_index_archive__tar_truncated_in_a_header(tmp_path: Path) -> None:
    contents = cut_tar(tmp_path, lambda data: data[: data.index(B) + 1_536 + 100])
    assert list(contents.clips) == ["a.wav", "b.wav"]
    (archive,) = contents.rejected
    assert archive == ("", "is truncated or damaged at byte 3584; the rest is not listed")


def test_index_archive__tar_damaged_in_the_middle(tmp_path: Path) -> None:
    contents = cut_tar(tmp_path, lambda data: data.replace(b"b.wav", b"X.wav"))
    assert list(contents.clips) == ["a.wav"]
    (archive,) = contents.rejected
    assert archive == ("", "is truncated or damaged at byte 1536; the rest is not listed")


def test_index_archive__two_tars_in_one_file(tmp_path: Path) -> None:
    contents = cut_tar(tmp_path, lambda data: data + data)
    assert list(contents.clips) == ["a.wav", "b.wav", "c.wav"]
    assert "has data after its end mark" in contents.rejected[0][1]


def test_index_archive__tar_with_a_negative_size_ends(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", ("a.wav", A), ("b.wav", B))
    header = tarfile.TarInfo("c.wav")
    header.size = -2_048
    data = path.read_bytes()
    place = data.index(B) + 1_536
    path.write_bytes(data[:place] + header.tobuf(tarfile.GNU_FORMAT) + data[place:])
    contents = list_wavs(path)
    assert list(contents.clips) == ["a.wav", "b.wav"]
    assert "is truncated or damaged" in contents.rejected[0][1]


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_index_archive__compressed_tar(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "x.tar", f"w:{mode}") as archive:
        add(archive, "a.wav", A)
    called = {"gz": "gzip", "bz2": "bzip2", "xz": "xz"}[mode]
    contents = list_wavs(tmp_path / "x.tar")
    assert contents.rejected == [("", f"is compressed ({called}); decompress it")]


@pytest.mark.parametrize("data", [b"", b"no archive" * 200, bytes(20_000)])
def test_index_archive__not_a_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    contents = list_wavs(tmp_path / "x.tar")
    assert contents.clips == {}
    assert "is not a tar archive: " in contents.rejected[0][1]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.h5"])
def test_index_archive__missing_file(tmp_path: Path, name: str) -> None:
    contents = list_wavs(tmp_path / name)
    assert contents.fingerprint is None
    assert contents.rejected == [("", "cannot be read: No such file or directory")]


@pytest.mark.parametrize("kind", MAKERS)
def test_index_archive__survives_random_damage(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path / f"x.{kind}", *MEMBERS)
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    headers = np.flatnonzero((data != ord("a")) & (data != ord("b")) & (data != 0))
    random = np.random.default_rng(3)
    for number in range(400):
        damaged = data.copy()
        for place in random.choice(headers, 3):
            damaged[place] = random.integers(0, 256)
        end = None if number % 4 else random.integers(1, len(data))
        path.write_bytes(damaged.tobytes()[:end])
        contents = list_wavs(path)
        for place in contents.clips.values():
            start, length = map(int, place.split(":")[1:])
            assert start + length <= path.stat().st_size


def test_index_archive__hdf5_datasets(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = np.zeros(9, np.float32)
        file["c"] = np.zeros((9, 9, 9), np.float32)
    contents = list_wavs(tmp_path / "x.h5")
    assert contents.clips == {"a/b": "/a/b"}
    assert [name for name, _ in contents.rejected] == ["c"]


def test_index_archive__checksum(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", ("a.wav", A))
    assert index_archive(str(path), {"wav"}, set()).fingerprint.sha256 is None
    assert len(index_archive(str(path), {"wav"}, set(), checksum=True).fingerprint.sha256) == 64
