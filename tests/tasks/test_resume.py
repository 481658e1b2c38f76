"""What a run that goes on keeps of the run before."""

import os

import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.tasks import statistics
from eat_plugin.tasks.resume import find_earlier_run


def whole(folder, **checkpoint):
    options = {"save_dir": str(folder), "restore_file": "checkpoint_last.pt", **checkpoint}
    task = {"_name": "eat_pretraining", "data": str(folder), "images": None,
            "norm_mean": None, "norm_std": None}  # fmt: skip
    return OmegaConf.create({"checkpoint": options, "task": task})


@pytest.fixture
def saved(tmp_path):
    content = {
        "cfg": {"task": {"norm_mean": -5.0, "norm_std": 3.0}},
        "task_state": {"labels": {"dog": "0"}},
        "model": {"weight": torch.zeros(3)},
    }
    torch.save(content, tmp_path / "checkpoint_last.pt")
    return tmp_path


def test_find__the_checkpoint_that_fairseq_will_load(saved):
    found = find_earlier_run(whole(saved).task)
    assert found.path == str(saved / "checkpoint_last.pt")
    assert found.options == {"norm_mean": -5.0, "norm_std": 3.0}
    assert found.state == {"labels": {"dog": "0"}}
    (saved / "checkpoint_last.pt").rename(saved / "other.pt")
    other = str(saved / "other.pt")
    assert find_earlier_run(whole(saved, restore_file=other).task).path == other


def test_find__nothing_to_go_on_from(saved, tmp_path):
    assert find_earlier_run(whole(tmp_path / "empty").task) is None
    assert find_earlier_run(OmegaConf.create({"norm_mean": None})) is None
    (saved / "checkpoint_last.pt").write_bytes(b"no checkpoint")
    assert find_earlier_run(whole(saved).task) is None


def test_find__fairseq_goes_on_whatever_a_run_was_begun_from(saved):
    assert find_earlier_run(whole(saved, finetune_from_model="x.pt").task) is not None


@pytest.mark.parametrize("share", [0, 0.5])
def test_find__half_a_file_is_refused(saved, share):
    path = saved / "checkpoint_last.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"checkpoint_last.pt is damaged, .*; remove it"):
        find_earlier_run(whole(saved).task)
    for time, name in enumerate(["checkpoint_1_10.pt", "checkpoint_1_20.pt"]):
        (saved / name).write_bytes(content)
        os.utime(saved / name, (time, time))
    (saved / "checkpoint_1_30.pt").write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"copy .*checkpoint_1_20.pt, the newest that is whole"):
        find_earlier_run(whole(saved).task)


def test_settle__a_run_that_goes_on_keeps_its_statistics(saved):
    (saved / "stats.json").write_text("broken: nobody reads this")
    cfg = whole(saved)
    statistics.settle(cfg.task, earlier=find_earlier_run(cfg.task))
    assert (cfg.task.norm_mean, cfg.task.norm_std) == (-5.0, 3.0)
    given = whole(saved)
    given.task.norm_mean, given.task.norm_std = -4.0, 4.0
    statistics.settle(given.task, earlier=find_earlier_run(given.task))
    assert (given.task.norm_mean, given.task.norm_std) == (-4.0, 4.0)
