"""Outputs that are links, devices, or in folders that cannot be written to."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from eat_plugin.cli import main, outputs
from eat_plugin.cli.array_stores import open_store
from eat_plugin.cli.outputs import check_file, check_folder

# Nobody can make a file there, whoever runs the test.
FIXED = Path("/proc/self")


def refuse(capsys, *arguments):
    """Return the error of a command that does nothing."""
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", ["pipe.pt", "loop.pt", "to_device.pt"])
def test_check_file__refuses_what_is_no_file(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "to_device.pt").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=rf"^--out is .*{name}, which is a (device or|link to)"):
        check_file(tmp_path / name, (".pt",), "a checkpoint")


def test_check_file__accepts_links_and_new_folders(tmp_path):
    (tmp_path / "link.pt").symlink_to(tmp_path / "new" / "a.pt")
    for name in ("link.pt", "new/b.pt", "c.pt"):
        check_file(tmp_path / name, (".pt",), "a checkpoint")
    assert os.listdir(tmp_path) == ["link.pt"]


@pytest.mark.skipif(not FIXED.is_dir(), reason="no /proc")
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--checkpoint", "gone.pt", "--out", FIXED / "a.pt"],
        ["evaluate", "--checkpoint", "gone.pt", "--data", "gone", "--out", FIXED / "new"],
        ["features", "--checkpoint", "gone.pt", "gone", "--out", FIXED],
        ["features", "--checkpoint", "gone.pt", "gone", "--out", FIXED / "a.npz"],
        ["plot", "--run", "gone", "--out", FIXED / "a"],
        ["cache", "gone", "--out", FIXED / "new"],
        ["manifest", "gone", "--out", FIXED / "new"],
        ["demo", "--out", FIXED / "new"],
        ["stats", FIXED],
    ],
)
def test_commands__find_a_folder_without_write_access_before_any_work(arguments, capsys):
    assert f"error: no file can be written in {FIXED}: " in refuse(capsys, *arguments)


@pytest.mark.skipif(not FIXED.is_dir(), reason="no /proc")
def test_train__a_dry_run_needs_no_write_access():
    check_folder(FIXED / "run", writes=False)
    with pytest.raises(ValueError, match="no file can be written in /proc/self: "):
        check_folder(FIXED / "run")


def test_plot__refuses_devices(capsys):
    message = refuse(capsys, "plot", "--run", "gone", "--out", "/dev/full")
    assert "error: " in message
    assert Path("/dev/full").is_char_device()


def test_export__writes_the_target_of_a_link(make_checkpoint, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.pt").symlink_to("disk/b.pt")
    path = make_checkpoint("pretraining")
    assert main(["export", "--checkpoint", str(path), "--out", str(tmp_path / "a.pt")]) == 0
    assert (tmp_path / "a.pt").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["b.pt"]


@pytest.fixture
def limit_files():
    """Return a function that limits the size of files of this process."""
    given = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, given[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, given)


def test_export__that_cannot_be_written_leaves_nothing(
    make_checkpoint, tmp_path, capsys, limit_files
):
    out = tmp_path / "a.pt"
    out.write_bytes(b"old")
    path = make_checkpoint("pretraining")
    limit_files(20_000)
    message = refuse(capsys, "export", "--checkpoint", path, "--out", out)
    assert message == f"eat export: error: {out}: File too large"
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("name", ["out", "out.npz", "out.h5"])
def test_features__that_cannot_be_written_leave_nothing(tmp_path, name, monkeypatch):
    """Writing to a page of a file without space would end the process."""

    def reserve(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    store = open_store(tmp_path / name)
    with pytest.raises(OSError, match=r"No space.* MB free in .*, 0.1 MB needed"), store as opened:
        opened.begin("a", (25_000,))[:] = 1
    assert os.listdir(tmp_path) == []


def store_three(out):
    with open_store(out) as store:
        for key in "abc":
            store.begin(key, (10_000,))[:] = 1
            store.commit(None)


def test_features__that_do_not_fit_leave_nothing(tmp_path, limit_files):
    limit_files(100_000)
    with pytest.raises(OSError, match=r"File too large: .*out.npz"):
        store_three(tmp_path / "out.npz")
    assert os.listdir(tmp_path) == []


def test_features__hdf5_writes_only_what_has_room(tmp_path, monkeypatch):
    """HDF5 may end the process if it has none."""
    pytest.importorskip("h5py")
    allocate, count = os.posix_fallocate, [0]

    def refuse_room(descriptor, start, size):
        count[0] += 1
        if count[0] == 4:  # the room for the second array
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse_room)
    with pytest.raises(OSError, match=r"No space left .*, 0.1 MB needed"):
        store_three(tmp_path / "out.h5")
    assert os.listdir(tmp_path) == []


def test_features__link_in_the_folder_writes_its_target(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.npy").symlink_to("../b.npy")
    with open_store(tmp_path / "out") as store:
        store.begin("a.npy", (3,))[:] = 1
        store.commit(None)
    assert (tmp_path / "out" / "a.npy").is_symlink()
    assert (tmp_path / "b.npy").is_file()


def test_config__a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    def copy_half(source, target):
        Path(target).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", copy_half)
    assert "No space left" in refuse(capsys, "config", "--copy", tmp_path / "mine")
    assert os.listdir(tmp_path) == []


def test_check_writable__leaves_nothing(tmp_path):
    outputs.check_writable(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("command", "unbuffered"), [("user-dir", ""), ("user-dir", "1"), ("flags eat_base", "")]
)
def test_standard_output__that_cannot_be_written_is_an_error(command, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "eat_plugin", *command.split()], stdout=full, text=True,
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    line = result.stderr.splitlines()[-1]
    assert line == f"eat {command.split()[0]}: error: standard output: No space left on device"
    assert result.returncode == 2
