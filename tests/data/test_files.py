"""Files: written completely or not at all; opened."""

import os
from pathlib import Path

import pytest

from eat_plugin.data.clip import ClipError
from eat_plugin.data.files import drafted, open_regular, replacing


def test_replacing__file_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with replacing(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (draft,) = set(tmp_path.iterdir()) - {path}
        assert draft.name == f".a.csv.{os.getpid()}.tmp"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def fail_after(draft: Path) -> None:
    draft.write_bytes(b"new")
    raise KeyError


def test_drafted__an_exception_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), drafted(path) as draft:
        fail_after(draft)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drafted__does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"), drafted(path):
        raise AssertionError("nothing is written")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_open_regular__reads_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123")
    with os.fdopen(open_regular(str(tmp_path / "a")), "rb") as file:
        assert file.read() == b"0123"


@pytest.mark.parametrize("subject", ["", "the archive "])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "is a directory, not a file"),
        ("pipe", "is not a regular file"),
        ("empty", "is empty: 0 bytes"),
        ("gone", "cannot be opened: No such file"),
        ("null\0", "cannot be opened: .*null"),
    ],
)
def test_open_regular__error_names_the_cause(
    tmp_path: Path, name: str, problem: str, subject: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    before = os.listdir("/dev/fd")
    with pytest.raises(ClipError, match=f"^{subject}{problem}"):
        open_regular(str(tmp_path / name), subject)
    assert len(os.listdir("/dev/fd")) == len(before)
