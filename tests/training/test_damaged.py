"""Damaged checkpoints at the start of a run."""

import os
import zipfile

import pytest
import torch

from eat_plugin.launch.checks import check_settings
from eat_plugin.tasks.checks import check_run
from eat_plugin.tasks.damaged import replace_damaged
from eat_plugin.tasks.resumed import find_resumed_run
from tests.tasks.test_checks import configure
from tests.training.in_process import compose_run, load, train
from tests.training.test_processes import run_two, start_two


def save(path, updates, suffix=""):
    content = {
        "cfg": {"task": {"norm_mean": float(updates)}},
        "optimizer_history": [{"num_updates": updates, "optimizer_name": "EatAdamW"}],
        "model": {"weight": torch.arange(5000.0)},
    }
    torch.save(content, path)


def rot(path):
    """Damage a weight, in this name of a file alone."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    largest = max(records, key=lambda record: record.file_size)
    content[largest.header_offset + 1000] ^= 1
    path.unlink()
    path.write_bytes(content)


def cut(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.unlink()
    path.touch()


def garble(path):
    path.unlink()
    path.write_bytes(bytes(100))


DAMAGES = [
    (rot, "its record 'data/0' is not what was saved"), (cut, "it is cut off"),
    (empty, "it is empty"), (garble, "it cannot be read as a checkpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "damage"), DAMAGES)
def test_resume__newest_intact_checkpoint_is_taken(tmp_path, spoil, damage):
    save(tmp_path / "checkpoint_last.pt", 40)
    for updates in (10, 30, 20):
        save(tmp_path / f"checkpoint_1_{updates}.pt", updates)
    save(tmp_path / "checkpoint_best.pt", 35)
    for name in ("checkpoint_last.pt", "checkpoint_best.pt", "checkpoint_1_30.pt"):
        spoil(tmp_path / name)
    save(tmp_path / "averaged.pt", 50)  # not of the run itself
    before = sorted(os.listdir(tmp_path))
    found = find_resumed_run(configure(tmp_path))
    assert found.path == str(tmp_path / "checkpoint_1_20.pt")
    assert (found.updates, found.options) == (20, {"norm_mean": 20.0})
    assert found.damaged.path == str(tmp_path / "checkpoint_last.pt")
    assert found.damaged.damage.startswith(damage)
    assert sorted(os.listdir(tmp_path)) == before  # until fairseq's trainer starts


@pytest.mark.parametrize(("spoil", "damage"), DAMAGES)
def test_resume__without_an_intact_checkpoint_is_refused(tmp_path, spoil, damage):
    for name in ("checkpoint_last.pt", "checkpoint_1_30.pt"):
        save(tmp_path / name, 30)
        spoil(tmp_path / name)
    message = rf"checkpoint_last.pt is damaged: {damage}.*; its folder has no intact checkpoint: co"
    with pytest.raises(ValueError, match=message):
        find_resumed_run(configure(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


def test_resume__without_checkpoint_last_the_newest_is_taken(tmp_path, caplog):
    for name, updates in (("1_20", 20), ("2_30", 30), ("best", 10)):
        save(tmp_path / f"checkpoint_{name}.pt", updates)
    found = find_resumed_run(configure(tmp_path))
    assert (found.path, found.updates) == (str(tmp_path / "checkpoint_2_30.pt"), 30)
    replace_damaged(found.damaged)
    assert "there is no checkpoint" in caplog.text
    assert find_resumed_run(configure(tmp_path)).path == str(tmp_path / "checkpoint_last.pt")
    assert len(os.listdir(tmp_path)) == 4
    (tmp_path / "checkpoint_last.pt").unlink()
    (tmp_path / "checkpoint_last.pt").symlink_to("/nonexistent")
    replace_damaged(find_resumed_run(configure(tmp_path)).damaged)
    assert find_resumed_run(configure(tmp_path)).updates == 30
    (tmp_path / "checkpoint_last.pt").unlink()
    for name in ("1_20", "2_30", "best"):
        rot(tmp_path / f"checkpoint_{name}.pt")
    with pytest.raises(ValueError, match="checkpoint_last.pt is missing; its folder has no intact"):
        find_resumed_run(configure(tmp_path))


def test_resume__restore_file_does_not_undo_updates(tmp_path):
    for name, updates in (("a", 20), ("b", 30), ("c", 40)):
        save(tmp_path / f"{name}.pt", updates)
    named = {name: {"restore_file": str(tmp_path / f"{name}.pt")} for name in "abc"}
    assert find_resumed_run(configure(tmp_path, **named["a"])).updates == 20
    last = tmp_path / "checkpoint_last.pt"
    os.link(tmp_path / "b.pt", last)
    message = "a.pt', but this run has reached update 30 .*checkpoint.continue_once.*move that file"
    with pytest.raises(ValueError, match=message):
        find_resumed_run(configure(tmp_path, **named["a"]))
    assert find_resumed_run(configure(tmp_path, **named["b"])).updates == 30  # the same file
    assert find_resumed_run(configure(tmp_path, **named["c"])).updates == 40
    with pytest.raises(ValueError, match="reached update 30"):
        find_resumed_run(configure(tmp_path, **named["c"], reset_optimizer=True))
    once = {"continue_once": str(tmp_path / "a.pt")}
    assert find_resumed_run(configure(tmp_path, **once)).updates == 30


def test_resume__without_last_checkpoints_the_newest_is_taken(tmp_path, caplog):
    for name, updates in (("last", 4), ("1_4", 4), ("1_6", 6)):
        save(tmp_path / f"checkpoint_{name}.pt", updates)
    assert find_resumed_run(configure(tmp_path)).updates == 4
    own = {"no_last_checkpoints": True}
    found = find_resumed_run(configure(tmp_path, **own))
    assert (found.path, found.updates) == (str(tmp_path / "checkpoint_1_6.pt"), 6)
    replace_damaged(found.damaged)
    assert "checkpoint_last.pt is not the newest checkpoint; the run continues" in caplog.text
    assert find_resumed_run(configure(tmp_path, **own)).path == str(tmp_path / "checkpoint_last.pt")
    assert len(os.listdir(tmp_path)) == 3


def test_resume__takes_checkpoints_with_its_suffix(tmp_path):
    for name, updates in (("last-a", 9), ("1_3-a", 3), ("1_5", 5), ("1_7-b", 7)):
        save(tmp_path / f"checkpoint_{name}.pt", updates)
    cut(tmp_path / "checkpoint_last-a.pt")
    assert find_resumed_run(configure(tmp_path, checkpoint_suffix="-a")).updates == 3


@pytest.mark.parametrize("option", ["restore_file", "continue_once", "finetune_from_model"])
@pytest.mark.parametrize(("spoil", "damage"), DAMAGES[:3])
def test_start__damaged_file_that_an_option_names_is_refused(tmp_path, option, spoil, damage):
    path = tmp_path / "checkpoint_1_30.pt"
    save(path, 30)
    check_run(configure(tmp_path / "run", **{option: str(path)}))
    spoil(path)
    save(tmp_path / "checkpoint_1_20.pt", 20)
    with pytest.raises(
        ValueError, match=rf"^checkpoint.{option} is .*_30.pt', which is .*{damage}"
    ):
        check_run(configure(tmp_path / "run", **{option: str(path)}))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_1_20.pt", "checkpoint_1_30.pt"]


@pytest.mark.parametrize("has_links", [True, False])
def test_run__continues_from_the_newest_intact_one(clips, assert_same, caplog, monkeypatch,
                                                   has_links):  # fmt: skip
    folder = clips / "run"
    own = f"checkpoint.save_dir={folder}"
    options = ["checkpoint.save_interval_updates=1", "dataset.batch_size=2", own]
    train("pretrain", clips, *options, "optimization.max_update=4")
    end = load(folder)
    for name in ("checkpoint_last.pt", "checkpoint_1_4.pt"):
        rot(folder / name)
    rotten = (folder / "checkpoint_last.pt").read_bytes()
    (folder / "checkpoint_last.pt.damaged").write_bytes(b"an earlier one")
    # The check before `eat pretrain` prints or writes.
    check_settings(compose_run("pretrain", clips, *options), clips)
    assert (folder / "checkpoint_last.pt").read_bytes() == rotten
    if not has_links:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError), raising=False)
    caplog.clear()
    train("pretrain", clips, *options, "optimization.max_update=4")
    assert_same(end["model"], load(folder)["model"])
    assert (folder / "checkpoint_last.pt.damaged").read_bytes() == b"an earlier one"
    assert (folder / "checkpoint_last.pt.damaged2").read_bytes() == rotten
    (line,) = (r.getMessage() for r in caplog.records if "is damaged" in r.getMessage())
    assert f"{folder}/checkpoint_last.pt is damaged: its record 'data/" in line
    assert "is kept as checkpoint_last.pt.damaged2, and the run continues from" in line
    assert line.endswith("checkpoint_1_3.pt")


def test_model__damaged_start_is_refused(labelled):
    train("pretrain", labelled, f"checkpoint.save_dir={labelled / 'first'}")
    path = labelled / "first" / "checkpoint_last.pt"
    rot(path)
    for option in ("model.model_path", "checkpoint.finetune_from_model"):
        with pytest.raises(ValueError, match=r"checkpoint_last.pt.* is damaged: its record 'data/"):
            train("finetune", labelled, f"{option}={path}", f"checkpoint.save_dir={labelled}/b")


def test_two_processes__continue_from_the_same_checkpoint_or_both_end(trainer, assert_same):
    folder = trainer.folder / "two" / "checkpoints"
    run_two(trainer, "checkpoint.save_interval_updates=3", name="two")
    end = load(folder)
    rot(folder / "checkpoint_last.pt")
    outputs = run_two(trainer, "checkpoint.save_interval_updates=3", name="two")
    assert "checkpoint_last.pt is damaged: its record" in outputs[0]
    assert "checkpoint_last.pt (epoch 2 @ 3 updates)" in outputs[0]
    assert_same(end["model"], load(folder)["model"])
    for path in folder.glob("*.pt"):
        rot(path)
    processes = start_two(trainer, name="two")
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "its folder has no intact checkpoint" in output
