"""fairseq's own options: what cannot work is refused at start."""

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.lr_scheduler.pass_through import PassThroughScheduleConfig
from omegaconf import OmegaConf

from eat_plugin.tasks import settings
from eat_plugin.tasks.settings import check, check_metric, setting, whole_config
from tests.versions import half_on_cpu


def make(**parts):
    return OmegaConf.create({"task": {"data": "x"}, **parts}).task


def test_whole_config__of_options_in_it_and_by_themselves():
    cfg = make(common={"seed": 3})
    assert whole_config(cfg).common.seed == 3
    assert whole_config(OmegaConf.create({"data": "x"})) is None
    assert whole_config(object()) is None
    check(OmegaConf.create({"data": "x"}))


def test_setting__is_none_where_there_is_no_such_option():
    root = OmegaConf.structured(FairseqConfig(lr_scheduler=PassThroughScheduleConfig()))
    OmegaConf.set_struct(root, True)
    assert setting(root, "optimization.max_update") == 0
    assert setting(root, "lr_scheduler.warmup_updates") is None
    assert setting(root, "ema.nothing") is setting(root, "nothing.at_all") is None
    assert setting(root, "model.depth") is setting(None, "common.seed") is None
    assert setting(OmegaConf.create({"task": {"data": "???"}}), "task.data") is None


@pytest.mark.parametrize("processes", [1, 2])
def test_check__each_of_several_processes_reads_checkpoints(processes):
    cfg = make(
        distributed_training={"distributed_world_size": processes},
        checkpoint={"load_checkpoint_on_all_dp_ranks": False},
    )
    check(cfg)
    assert whole_config(cfg).checkpoint.load_checkpoint_on_all_dp_ranks is (processes == 2)


@pytest.mark.parametrize(
    ("common", "names"),
    [
        ({"fp16": True, "bf16": True}, "common.fp16 and common.bf16"),
        ({"bf16": True, "amp": True}, "common.bf16 and common.amp"),
    ],
)
def test_check__two_precisions_are_refused(common, names):
    with pytest.raises(ValueError, match=f"{names} are true; set all but one to false"):
        check(make(common={"cpu": True, **common}))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "amp"])
def test_check__half_precision_needs_a_gpu_or_a_word(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = f"common.{precision}=true, and .* no GPU; .* common.cpu=true common.{precision}=false"
    with pytest.raises(ValueError, match=message):
        check(make(common={precision: True}))
    monkeypatch.setattr(settings, "OLDEST_FOR_HALF_ON_CPU", "2.0")
    check(make(common={precision: True, "cpu": True}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check(make(common={precision: True}))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_check__half_precision_on_a_cpu_takes_a_new_pytorch(precision, monkeypatch):
    monkeypatch.setattr(settings, "OLDEST_FOR_HALF_ON_CPU", "99.0")
    message = rf"common.{precision}=true with .* takes PyTorch 99.0 .*; set common.{precision}=fal"
    with pytest.raises(ValueError, match=message):
        check(make(common={precision: True, "cpu": True}))
    check(make(common={"cpu": True}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check(make(common={precision: True}))


@half_on_cpu
def test_check__warns_of_amp(caplog):
    check(make(common={"cpu": True, "bf16": True}))
    assert not caplog.text
    check(make(common={"cpu": True, "amp": True}))
    assert "divides gradients by its loss scale twice" in caplog.text


@pytest.mark.parametrize(
    ("steps", "most", "warns"), [(9, 10, False), (10, 10, True), (11, 10, True), (11, 0, False)]
)
def test_check__warns_where_the_rate_only_rises(steps, most, warns, caplog):
    check(make(lr_scheduler={"warmup_updates": steps}, optimization={"max_update": most}))
    assert ("the learning rate only rises" in caplog.text) == warns


@pytest.mark.parametrize(
    ("metric", "criterion", "works"),
    [
        ("mAP", "eat_classification", True),
        ("loss", "eat_classification", True),
        ("mAp", "eat_classification", False),
        ("accuracy", "eat_classification", False),
        ("accuracy", "model", False),
        ("correct", "model", True),  # maybe one that this criterion logs
    ],
)
def test_check_metric__one_that_is_not_computed_is_refused(metric, criterion, works):
    def look(**dataset):
        parts = {"checkpoint": {"best_checkpoint_metric": metric}, "dataset": dataset}
        check_metric(make(criterion={"_name": criterion}, **parts), ("mAP", "d_prime"))

    look(disable_validation=True)
    if works:
        look()
        return
    with pytest.raises(ValueError, match=f"is '{metric}', .* choose one of mAP, d_prime, loss"):
        look()
