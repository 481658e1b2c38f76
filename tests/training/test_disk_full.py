"""A disk that is full while a run saves its checkpoints."""

import errno
import os
import resource
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from fairseq.logging import progress_bar
from fairseq_cli import train as training

from eat_plugin.checkpoint_files import find_damage
from eat_plugin.data import files
from tests.training.in_process import load, train
from tests.training.test_processes import start_two

AT_THE_END = ["checkpoint.save_interval_updates=0"]
EACH_UPDATE = ["checkpoint.save_interval_updates=1", "checkpoint.keep_interval_updates=-1"]


def updates(folder, name="checkpoint_last.pt"):
    return load(folder, name)["optimizer_history"][-1]["num_updates"]


def fill_disk(monkeypatch, failing, number=errno.ENOSPC, name="checkpoint_1_"):
    """Make the checkpoints with these numbers, from 1, fail when they are flushed."""
    count, fsync = [0], os.fsync

    def flush(descriptor):
        if f"/.{name}" in os.readlink(f"/proc/self/fd/{descriptor}"):
            count[0] += 1
            if count[0] in failing:
                raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", flush)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.suffix != ".lock")


@pytest.fixture
def limit_files():
    """Return a function that limits the size of files of this process."""
    given = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, given[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, given)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_save__failed_one_is_logged_and_the_next_succeeds(clips, monkeypatch, caplog, number):
    fill_disk(monkeypatch, {2}, number)
    train("pretrain", clips, *EACH_UPDATE, "optimization.max_update=3",
          "dataset.batch_size=2", f"checkpoint.save_dir={clips / 'run'}")  # fmt: skip
    assert names(clips / "run") == [
        ".lock", "checkpoint_1_1.pt", "checkpoint_1_3.pt", "checkpoint_last.pt",
    ]  # fmt: skip
    assert updates(clips / "run") == 3
    (record,) = (r for r in caplog.records if "no checkpoint was saved" in r.getMessage())
    assert record.levelname == "WARNING"
    line = record.getMessage()
    assert f"checkpoint_1_2.pt: {os.strerror(number)}" in line
    assert "\n" not in line
    assert (f"MB free in {clips / 'run'})" in line) == (number == errno.ENOSPC)
    assert ("MB needed" in line) == (number == errno.ENOSPC)


def test_save__last_one_that_fails_ends_the_run(clips, monkeypatch):
    fill_disk(monkeypatch, {2})
    with pytest.raises(RuntimeError, match=r"^the last checkpoint .*_1_2.pt: No space left .*Make"):
        train("pretrain", clips, *EACH_UPDATE, f"checkpoint.save_dir={clips / 'run'}")
    assert names(clips / "run") == [".lock", "checkpoint_1_1.pt", "checkpoint_last.pt"]
    assert updates(clips / "run") == 1
    train("pretrain", clips, *EACH_UPDATE, f"checkpoint.save_dir={clips / 'run'}")
    assert updates(clips / "run") == 2


def test_save__last_one_after_the_last_epoch(clips, monkeypatch):
    fill_disk(monkeypatch, {1}, name="checkpoint_last")
    with pytest.raises(RuntimeError, match="No space left"):
        train("pretrain", clips, "optimization.max_epoch=1", "optimization.max_update=9",
              f"checkpoint.save_dir={clips / 'run'}", "checkpoint.save_interval_updates=3",
              "checkpoint.save_interval=9")  # fmt: skip
    assert names(clips / "run") == [".lock"]


def test_save__limit_of_the_system(clips, limit_files):
    options = [*EACH_UPDATE, "dataset.batch_size=2", f"checkpoint.save_dir={clips / 'run'}"]
    train("pretrain", clips, *options)
    before = {name: (clips / "run" / name).stat().st_mtime_ns for name in names(clips / "run")}
    limit_files(20_000)
    with pytest.raises(RuntimeError, match=r"checkpoint_1_3.pt: File too large, \d+\.\d MB needed"):
        train("pretrain", clips, *options, "optimization.max_update=3")
    assert {name: (clips / "run" / name).stat().st_mtime_ns for name in names(clips / "run")} == {
        **before, ".lock": (clips / "run" / ".lock").stat().st_mtime_ns,
    }  # fmt: skip


def test_save__best_checkpoint_is_the_best_of_those_that_were_saved(labelled, monkeypatch):
    fill_disk(monkeypatch, {2})
    losses = iter([[1.0], [0.2], [0.5]])
    monkeypatch.setattr(training, "validate", lambda *_: next(losses))
    train("finetune", labelled, *EACH_UPDATE, f"checkpoint.save_dir={labelled / 'run'}",
          "optimization.max_update=3", "checkpoint.best_checkpoint_metric=loss",
          "checkpoint.maximize_best_checkpoint_metric=false", "dataset.batch_size=3",
          "checkpoint.no_epoch_checkpoints=true")  # fmt: skip
    assert updates(labelled / "run", "checkpoint_best.pt") == 3
    assert load(labelled / "run")["extra_state"]["best"] == 0.5


def test_copies__are_the_same_file(clips):
    train("pretrain", clips, *EACH_UPDATE, f"checkpoint.save_dir={clips / 'run'}")
    assert os.path.samefile(clips / "run/checkpoint_last.pt", clips / "run/checkpoint_1_2.pt")
    assert not os.path.samefile(clips / "run/checkpoint_last.pt", clips / "run/checkpoint_1_1.pt")
    assert (updates(clips / "run", "checkpoint_1_1.pt"), updates(clips / "run")) == (1, 2)


def test_copies__without_hard_links_are_complete_or_absent(clips, monkeypatch, caplog):
    copy, count = shutil.copyfile, [0]

    def copy_half(source, target):
        count[0] += 1
        copy(source, target)
        if count[0] == 2:
            os.truncate(target, 1000)
            raise OSError(errno.ENOSPC, "No space left on device")

    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.shutil, "copyfile", copy_half)
    monkeypatch.setattr(files.os, "link", link)
    with pytest.raises(RuntimeError, match=r"checkpoint_last\.pt: No space left"):
        train("pretrain", clips, *EACH_UPDATE, f"checkpoint.save_dir={clips / 'run'}")
    assert (updates(clips / "run", "checkpoint_1_2.pt"), updates(clips / "run")) == (2, 1)
    assert not [name for name in names(clips / "run") if name.endswith(".tmp")]


def test_save__killed_runs_leave_no_drafts(clips):
    (clips / "run").mkdir()
    (clips / "run" / ".checkpoint_1_1.pt.123.tmp").write_bytes(b"half")
    train("pretrain", clips, *AT_THE_END, f"checkpoint.save_dir={clips / 'run'}")
    assert names(clips / "run") == [".lock", "checkpoint_last.pt"]


def test_save__file_that_is_damaged_after_writing(clips, monkeypatch):
    monkeypatch.setattr("eat_plugin.tasks.complete_files.find_damage", lambda _: "it is cut off")
    with pytest.raises(RuntimeError, match=r"checkpoint_last.pt: damaged after writing: it is cut"):
        train("pretrain", clips, *AT_THE_END, f"checkpoint.save_dir={clips / 'run'}")
    assert names(clips / "run") == [".lock"]


def test_save__link_in_the_folder_is_replaced_and_not_its_target(clips):
    (clips / "run").mkdir()
    (clips / "elsewhere.pt").write_bytes(b"of another run")
    (clips / "run" / "checkpoint_1_1.pt").symlink_to(clips / "elsewhere.pt")
    train("pretrain", clips, *EACH_UPDATE, f"checkpoint.save_dir={clips / 'run'}")
    assert (clips / "elsewhere.pt").read_bytes() == b"of another run"
    assert not (clips / "run" / "checkpoint_1_1.pt").is_symlink()


def test_two_processes__both_end_when_the_last_save_fails(trainer):
    processes = start_two(trainer, name="two")
    for process in processes:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "the last checkpoint of the run could not be saved: " in outputs[0]
    assert "File too large" in outputs[0]
    assert "could not be saved: see the log of the first process" in outputs[1]
    assert not list((trainer.folder / "two").glob("**/*.pt"))


def test_checkpoints__of_a_run_have_checksums(clips):
    train("pretrain", clips, f"checkpoint.save_dir={clips / 'run'}")
    path = clips / "run" / "checkpoint_last.pt"
    content = bytearray(path.read_bytes())
    assert find_damage(path) == ""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        position = content.index(archive.read(largest)) + largest.file_size // 2
    content[position] ^= 1
    path.write_bytes(content)
    assert "its record 'data/" in find_damage(path)
    assert torch.load(path, weights_only=True)  # which does not see it


def test_tensorboard__that_cannot_be_written_does_not_end_the_run(clips, monkeypatch, caplog):
    made, writer = [], progress_bar.SummaryWriter

    def fail_thrice(folder):
        made.append(folder)
        if len(made) < 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writer(folder)

    monkeypatch.setattr(progress_bar, "SummaryWriter", fail_thrice)
    train("pretrain", clips, "optimization.max_update=9", f"checkpoint.save_dir={clips / 'run'}",
          f"common.tensorboard_logdir={clips / 'tb'}", "common.log_interval=1")  # fmt: skip
    assert updates(clips / "run") == 9
    assert len(made) == 3  # one try in each epoch
    assert caplog.text.count(f"TensorBoard in this epoch: {clips / 'tb'}: No space left") == 3
