"""Files: written completely or not at all; opened."""

import errno
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eat_plugin.data.clip import ClipError
from eat_plugin.data.files import drafted, name_draft, open_regular, replacing


def test_replacing__file_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with replacing(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (draft,) = set(tmp_path.iterdir()) - {path}
        assert re.fullmatch(rf"\.a\.csv\.{os.getpid()}-[0-9a-f]{{8}}\.tmp", draft.name)
        assert name_draft(path) != name_draft(path)  # on another machine the number may be equal
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


def test_replacing__link_writes_its_target(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "a.csv"
    link, second = tmp_path / "a.csv", tmp_path / "b.csv"
    link.symlink_to("there/a.csv")
    second.symlink_to(link)
    for content in (b"new", b"newer"):  # of a link to nothing, too
        with replacing(second) as file:
            file.write(content)
        assert (target.read_bytes(), link.is_symlink(), second.is_symlink()) == (
            content,
            True,
            True,
        )
    assert [path.name for path in target.parent.iterdir()] == ["a.csv"]


def test_drafted__replaces_a_link_itself_if_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "a.pt").symlink_to("old")
    with drafted(tmp_path / "a.pt", follow_links=False) as draft:
        draft.write_bytes(b"new")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert (tmp_path / "a.pt").read_bytes() == b"new"
    assert not (tmp_path / "a.pt").is_symlink()


@pytest.mark.parametrize("name", ["pipe", "loop", "/dev/full"])
def test_drafted__refuses_what_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    problem = "is a link to itself" if name == "loop" else "is a device or pipe, not a file"
    with pytest.raises(OSError, match=rf"{problem}: .*{name}"), drafted(tmp_path / name):
        raise AssertionError("nothing is written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "pipe"]


def raise_chained(draft: Path) -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904, as PyTorch does


def write_too_much(draft: Path) -> None:
    given = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, given[1]))
    try:
        h5py = pytest.importorskip("h5py")
        with h5py.File(draft, "w") as file:
            file["a"] = np.zeros(100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, given)


def fail_in_folder(draft: Path) -> None:
    raise OSError(errno.EACCES, "Permission denied", os.fspath(draft))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (raise_chained, r"No space left on device \(\d+\.\d MB free in {folder}\): '{path}'$"),
        (write_too_much, "File too large: '{path}'$"),
        (fail_in_folder, "Permission denied: '{path}'$"),
    ],
)
def test_drafted__error_of_the_disk_names_the_file(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "a.h5"
    message = message.format(folder=tmp_path, path=path)
    with pytest.raises(OSError, match=message), drafted(path) as draft:
        write(draft)
    assert list(tmp_path.iterdir()) == []


def test_drafted__other_errors_stay(tmp_path: Path) -> None:
    def read(draft: Path) -> None:
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError:
            raise OSError(errno.EIO, "Input/output error", "/source")  # noqa: B904

    with (
        pytest.raises(OSError, match=r"Input/output error: '/source'"),
        drafted(tmp_path / "a") as d,
    ):
        read(d)
    with pytest.raises(RuntimeError, match="^other$"), drafted(tmp_path / "a"):
        raise RuntimeError("other")


def test_replacing__names_of_any_length(tmp_path: Path) -> None:
    for name in ("a" * 255, "é" * 127):
        with replacing(tmp_path / name) as file:
            file.write(b"new")
        assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_replacing__file_system_without_flush(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", flush)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_drafted__is_flushed_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(OSError, match="Input/output error"), replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert list(tmp_path.iterdir()) == []
