"""Manifests: round trip, errors of invalid lines."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from eat_plugin.data import manifest as module
from eat_plugin.data.manifest import ManifestError, read_manifest, write_manifest

ENTRIES = [("a.wav", 16_000), ("with space/b c.flac", 0), ("\u00fc/\u97f3.ogg", 3_000_000_000)]


def write_text(folder: Path, *lines: str, ending: str = "\n") -> Path:
    path = folder / "train.tsv"
    path.write_bytes("".join(line + ending for line in (str(folder), *lines)).encode())
    return path


def test_read_manifest__round_trip(tmp_path: Path) -> None:
    root = tmp_path / "a root"
    root.mkdir()
    write_manifest(tmp_path / "train.tsv", root, ENTRIES)
    manifest = read_manifest(tmp_path / "train.tsv")
    assert manifest.root == root
    assert len(manifest) == 3
    assert [(manifest.name(i), int(manifest.sizes[i])) for i in range(3)] == ENTRIES
    assert manifest.path(1) == root / "with space" / "b c.flac"
    assert manifest.sizes.dtype == np.int64


def test_manifest__index_out_of_range_is_refused(tmp_path: Path) -> None:
    manifest = read_manifest(write_text(tmp_path, "a.wav\t1"))
    for index in (-1, 1):
        with pytest.raises(IndexError, match=f"clip {index} of a manifest of 1 clips"):
            manifest.name(index)


def test_manifest__can_be_pickled_for_workers(tmp_path: Path) -> None:
    manifest = pickle.loads(pickle.dumps(read_manifest(write_text(tmp_path, "a\t1", "b\t2"))))
    assert (manifest.name(1), manifest.sizes.tolist()) == ("b", [1, 2])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_read_manifest__line_endings(tmp_path: Path, ending: str) -> None:
    manifest = read_manifest(write_text(tmp_path, "a.wav\t1", "b.wav\t2", ending=ending))
    assert manifest.root == tmp_path
    assert [manifest.name(i) for i in range(2)] == ["a.wav", "b.wav"]


def test_read_manifest__last_line_without_line_end(tmp_path: Path) -> None:
    path = write_text(tmp_path, "a.wav\t1", "b.wav\t22")
    path.write_bytes(path.read_bytes()[:-1])
    assert read_manifest(path).sizes.tolist() == [1, 22]


def test_read_manifest__byte_order_mark(tmp_path: Path) -> None:
    path = write_text(tmp_path, "a.wav\t1")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(path).root == tmp_path


def test_read_manifest__relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    path = tmp_path / "train.tsv"
    path.write_text("clips\na.wav\t1\n")
    monkeypatch.chdir(tmp_path)
    assert read_manifest(path).path(0) == tmp_path / "clips" / "a.wav"
    monkeypatch.chdir(tmp_path / "clips")
    with pytest.raises(ManifestError, match=f":1: .*'clips'.*seen from {tmp_path / 'clips'}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "no tab"),
        ("a.wav 16000", "no tab in 'a.wav 16000'"),
        ("\t16000", "expected a path before the tab, found nothing"),
        ("a.wav\t", "number of samples after the tab, got ''"),
        ("a.wav\t-1", "got '-1'"),
        ("a.wav\t1.5", "got '1.5'"),
        ("a.wav\t1_000", "got '1_000'"),
        ("a.wav\t 7", "got ' 7'"),
        ("a.wav\t1\t2", r"got '1\\t2'"),
        ("a.wav\t" + "9" * 19, "got '9999999999999999999'"),
        ("a\0.wav\t1", "null byte"),
        ("x" * 5_000, r"no tab in 'x{80}'\.\.\."),
        ("../a.wav\t1", "below the root, without '..', got '../a.wav'"),
        ("a/../../b.wav\t1", "below the root, without '..', got 'a/../../b.wav'"),
        ("a.h5/..\t1", "below the root, without '..', got 'a.h5/..'"),
        ("/etc/passwd\t1", "below the root, without '..', got '/etc/passwd'"),
    ],
)
def test_read_manifest__error_names_the_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write_text(tmp_path, "good.wav\t1", line, "good too.wav\t1")
    with pytest.raises(ManifestError, match=f"^{path}:3: .*{problem}"):
        read_manifest(path)


def test_read_manifest__dots_within_the_root_are_allowed(tmp_path: Path) -> None:
    names = ["..a.wav", "a../b..c", "...", "./a.wav", "a.zip:0:1", "x.h5/a"]
    manifest = read_manifest(write_text(tmp_path, *(f"{name}\t1" for name in names)))
    assert [manifest.name(index) for index in range(len(names))] == names


def test_read_manifest__not_utf8(tmp_path: Path) -> None:
    path = write_text(tmp_path, "a.wav\t1")
    path.write_bytes(path.read_bytes() + b"caf\xe9.wav\t1\n")
    with pytest.raises(ManifestError, match=r":3: .*UTF-8, got 'caf\\\\xe9.wav'"):
        read_manifest(path)


def test_read_manifest__duplicate_path(tmp_path: Path) -> None:
    path = write_text(tmp_path, "a\t1", "b\t1", "c\t1", "b\t2", "a\t1")
    with pytest.raises(ManifestError, match=":5: 'b' is in line 3 already"):
        read_manifest(path)


def test_read_manifest__equal_hashes_are_not_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "hash", lambda name: 7, raising=False)
    assert len(read_manifest(write_text(tmp_path, "a\t1", "b\t1", "c\t1"))) == 3


def test_read_manifest__no_clips(tmp_path: Path) -> None:
    path = write_text(tmp_path)
    with pytest.raises(ManifestError, match=f"^{path}:2: no clips"):
        read_manifest(path)


@pytest.mark.parametrize("kind", ["empty", "binary"])
def test_read_manifest__not_a_manifest(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(b"" if kind == "empty" else bytes(range(256)))
    with pytest.raises(ManifestError, match=f"^{path}:1: "):
        read_manifest(path)


def test_read_manifest__missing(tmp_path: Path) -> None:
    for name in ("eval.tsv", "rejected.tsv", "missing.eval.tsv"):
        (tmp_path / name).touch()
    (tmp_path / "train.tsv").mkdir()
    for name, problem in {
        "test.tsv": "no such manifest; there are: eval.tsv; run eat manifest first",
        "train.tsv": "cannot be read: Is a directory",
        "train.tsv/test.tsv": "no such manifest; run eat manifest first",
        "gone/test.tsv": f"there is no folder {tmp_path}/gone; run eat manifest first, as: ",
        "eval.tsv/test.tsv": f"{tmp_path}/eval.tsv is not a folder",
    }.items():
        with pytest.raises(ManifestError, match=f"^{tmp_path / name}: {problem}"):
            read_manifest(tmp_path / name)


def test_read_manifest__missing_root(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("/no/such/folder\na.wav\t1\n")
    with pytest.raises(ManifestError, match=":1: the root '/no/such/folder' is not an existing"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("name", "samples", "problem"),
    [
        ("a\tb", 1, "a tab"),
        ("a\nb", 1, "a line break"),
        ("a\rb", 1, "a line break"),
        ("", 1, "empty path"),
        ("\udcff", 1, "not UTF-8"),
        ("a", -1, "negative"),
        ("a/../b", 1, "leaves its root: 'a/../b'"),
        ("/a", 1, "leaves its root: '/a'"),
    ],
)
def test_write_manifest__unreadable_paths_are_refused(
    tmp_path: Path, name: str, samples: int, problem: str
) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("as it was")
    with pytest.raises(ValueError, match=problem):
        write_manifest(path, tmp_path, [("good", 1), (name, samples)])
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_write_manifest__line_break_in_the_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a line break"):
        write_manifest(tmp_path / "train.tsv", "/a\nb", [("good", 1)])
