"""Runs of SSLAM's second stage: their start, choices, exact resume, lengths, refusals."""

import logging

import pytest
import torch
from omegaconf import OmegaConf

from tests.training.in_process import compose_run, load, logged_updates, train
from tests.versions import half_on_cpu

ON = ["model.retention_loss=1", "model.cls_target=last_targets", "optimization.max_update=4"]
# Chosen by the configuration's rules, in place of the options of a small run.
OPEN = ["model.clone_batch=-1", "lr_scheduler.warmup_updates=-1"]


@pytest.fixture
def first(clips):
    """The checkpoint of a first stage of two updates with four clones."""
    train("pretrain", clips, f"checkpoint.save_dir={clips / 'first'}", "model.clone_batch=4")
    return clips / "first" / "checkpoint_last.pt"


@half_on_cpu
@pytest.mark.parametrize("precision", [[], ["common.bf16=true", "model.recompute=blocks"]])
def test_resume__equals_one_run(clips, assert_same, precision):
    options = [
        *ON, *precision, "optimization.update_freq=[2]", "checkpoint.save_interval_updates=3",
        "checkpoint.keep_interval_updates=-1", "checkpoint.no_epoch_checkpoints=false",
    ]  # fmt: skip
    train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'one'}")
    (middle,) = (clips / "one").glob("checkpoint_*_3.pt")
    resumed = [f"checkpoint.save_dir={clips / 'two'}", f"checkpoint.restore_file={middle}"]
    train("pretrain", clips, *options, *resumed)
    one, two = load(clips / "one"), load(clips / "two")
    assert two["optimizer_history"][-1]["num_updates"] == 4
    assert_same(one["model"], two["model"])


@pytest.mark.parametrize(
    "options",
    [
        ["task.length=mask"],
        ["task.length=mask", "model.modalities.image.patch_size=[4,128]"],
        ["task.length=crop", "model.utterance_level=true"],
        ["criterion._name=model", "task.precompute_mask_config=null"],
        ["dataset.batch_size=11"],  # a last batch of one clip
    ],
)
def test_run__logs_finite_losses(clips, caplog, options):
    caplog.set_level(logging.INFO)
    train("pretrain", clips, *ON, "common.log_interval=1", *options)
    records = logged_updates(caplog)
    assert len(records) == 4
    for record in records:
        assert 0 < float(record["loss"]) < 1e4
        if "criterion._name=model" not in options:
            assert float(record["loss_retention"]) > 0


def test_start__keeps_weights_and_teacher_and_nothing_else(clips, first, assert_same):
    state = load(first.parent)
    averages = state["model"]["_ema"]
    for name in averages:  # a teacher of its own
        averages[name] += 0.01
    torch.save(state, first)
    options = [*ON, f"checkpoint.finetune_from_model={first}", "optimization.lr=[1e-12]"]
    fixed = ["model.ema_decay=1", "model.ema_end_decay=1", "model.clone_batch=4"]
    folder = clips / "second"
    train("pretrain", clips, *options, *fixed, f"checkpoint.save_dir={folder}")
    after = load(folder)
    assert_same(state["model"], after["model"], 1e-6)
    assert after["optimizer_history"][-1]["num_updates"] == 4  # counted from 0
    steps = [one["step"] for one in after["last_optimizer_state"]["state"].values()]
    assert {int(step) for step in steps} == {4}
    # The same command resumes, without the file that it started from.
    first.unlink()
    longer = [*options, *fixed, "optimization.max_update=5"]
    train("pretrain", clips, *longer, f"checkpoint.save_dir={folder}")
    assert load(folder)["optimizer_history"][-1]["num_updates"] == 5


def test_configuration__chooses_by_the_first_stage(clips, first):
    state = load(first.parent)
    assert state["cfg"]["optimization"]["lr"] == [0.002]
    start = f"checkpoint.finetune_from_model={first}"
    folder = clips / "second"
    given = ["optimization.max_update=16", start, f"checkpoint.save_dir={folder}"]
    train("sslam", clips, *OPEN, "task.target_length=-1", *given)
    cfg = load(folder)["cfg"]
    assert cfg["optimization"]["lr"] == cfg["lr_scheduler"]["lr"] == [0.0002]
    masks = cfg["task"]["precompute_mask_config"]
    assert cfg["model"]["clone_batch"] == masks["clone_batch"] == 2
    assert cfg["lr_scheduler"]["warmup_updates"] == 2
    assert cfg["task"]["target_length"] == 64
    assert cfg["model"]["modalities"]["image"]["target_length"] == 64
    assert (cfg["model"]["retention_loss"], cfg["model"]["mixed_share"]) == (1.0, 34 / 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dataset.batch_size=1"], "^dataset.batch_size is 1; model.retention_loss=1.0 mixes the "
         "clips of a batch with each other: set 2 or more$"),
        (["dataset.batch_size=null", "dataset.max_tokens=100"], "^dataset.max_tokens is 100; "
         "model.retention_loss=1.0 .*: set 128 "),
        (["model.depth=1", "model.average_top_k_layers=1"], "first.pt', which has model.depth=2, "
         "this run model.depth=1: give the same settings$"),
        (["task.norm=whole"], "which has task.norm=bins, this run task.norm=whole: give the same "),
        (["model.recon_loss=0"], "which has model.recon_loss=1.0, this run model.recon_loss=0: "),
        (["checkpoint.finetune_from_model=null"], "^checkpoint.finetune_from_model is null: give "
         r"the checkpoint of the first stage \(eat pretrain --checkpoint\), or set optimi"),
    ],
)  # fmt: skip
def test_start__mistake_is_refused(clips, make_checkpoint, options, message):
    path = clips / "first.pt"
    state = torch.load(make_checkpoint("pretraining"), weights_only=True)
    cfg = compose_run("pretrain", clips, "model.modalities.image.patch_size=16")
    cfg = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    torch.save({**state, "cfg": cfg}, path)
    with pytest.raises(ValueError, match=message):
        train("sslam", clips, f"checkpoint.finetune_from_model={path}", *options)


def test_start__needs_its_rate(clips, make_checkpoint):
    path = clips / "first.pt"
    state = torch.load(make_checkpoint("pretraining"), weights_only=True)
    del state["cfg"]["optimization"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"a tenth of that of the first stage, but .*first\.pt do"):
        train("sslam", clips, f"checkpoint.finetune_from_model={path}")
