"""Runs of the recipe bat: exact resume, lengths, other losses, and what it cannot start from."""

import logging

import pytest

from tests.training.in_process import load, logged_updates, train
from tests.training.test_processes import UPDATES, run_two
from tests.versions import half_on_cpu

SHARE = "model.modalities.image.decoder.hidden_share=0.5"
ON = [
    "+model.attention_gate=true", "+model.loss_average=elements",
    "+model.modalities.image.decoder.decoder_kind=vit", f"+{SHARE}",
]  # fmt: skip


@half_on_cpu
def test_resume__equals_one_run(clips, assert_same):
    options = [
        SHARE, "optimization.max_update=4", "optimization.update_freq=[2]", "common.bf16=true",
        "model.recompute=blocks", "checkpoint.save_interval_updates=3",
        "checkpoint.keep_interval_updates=-1", "checkpoint.no_epoch_checkpoints=false",
    ]  # fmt: skip
    train("bat", clips, *options, f"checkpoint.save_dir={clips / 'one'}")
    (middle,) = (clips / "one").glob("checkpoint_*_3.pt")
    resumed = [f"checkpoint.save_dir={clips / 'two'}", f"checkpoint.restore_file={middle}"]
    train("bat", clips, *options, *resumed)
    one, two = load(clips / "one"), load(clips / "two")
    assert two["optimizer_history"][-1]["num_updates"] == 4
    assert_same(one["model"], two["model"])
    assert_same(one["last_optimizer_state"], two["last_optimizer_state"])


@pytest.mark.parametrize(
    "options",
    [
        ["task.length=mask", SHARE],
        ["task.length=mask", "model.retention_loss=1", "model.cls_target=last_targets", SHARE],
        ["model.recon_loss=1", "model.modalities.image.patch_size=[4,128]"],
        ["criterion._name=model", "task.precompute_mask_config=null"],
    ],
)
def test_run__logs_finite_losses(clips, caplog, options):
    caplog.set_level(logging.INFO)
    train("bat", clips, "common.log_interval=1", *options)
    records = logged_updates(caplog)
    assert len(records) == 2
    for record in records:
        assert 0 < float(record["loss"]) < 20
        if "criterion._name=model" not in options:
            # Of targets of deviation 1: the means of their elements, whatever the batch.
            assert 0.5 < float(record["loss_regression"]) < 5
            losses = [float(value) for name, value in record.items() if name.startswith("loss_")]
            scales = [v for n, v in record.items() if n == "loss_scale"]
            assert float(record["loss"]) == pytest.approx(
                sum(losses) - sum(map(float, scales)), abs=0.01
            )


def test_two_processes__equal_accumulation_of_two_batches(trainer, assert_same):
    both = ["optimization.update_freq=[2]", "dataset.batch_size=3"]
    trainer.succeed(UPDATES, *both, *ON, name="one")
    run_two(trainer, *ON, name="two")
    assert_same(trainer.checkpoint("one")["model"], trainer.checkpoint("two")["model"], 1e-5)


def test_start__from_a_model_without_a_gate_is_refused(clips):
    train("pretrain", clips, f"checkpoint.save_dir={clips / 'eat'}")
    start = f"checkpoint.finetune_from_model={clips / 'eat' / 'checkpoint_last.pt'}"
    with pytest.raises(ValueError, match=r"has model.attention_gate=False, .*this run .*=True"):
        train("bat", clips, start)


def test_checkpoint__is_fine_tuned_with_the_asymmetric_loss(labelled, caplog):
    train("bat", labelled, f"checkpoint.save_dir={labelled / 'bat'}")
    caplog.set_level(logging.INFO)
    train(
        "finetune", labelled, f"checkpoint.save_dir={labelled / 'tuned'}",
        f"model.model_path={labelled / 'bat' / 'checkpoint_last.pt'}", "model.loss=asymmetric",
        "+model.head_dropout=0.2", "model.layer_decay=0.75", "task.single_label=false",
        "model.label_smoothing=0",
        "checkpoint.best_checkpoint_metric=mAP", "common.log_interval=1",
    )  # fmt: skip
    assert all(0 < float(record["loss"]) < 1 for record in logged_updates(caplog)[-2:])
    tuned, before = (load(labelled / name)["model"] for name in ("tuned", "bat"))
    name = "blocks.1.attn.gate.weight"
    moved = (tuned[f"model.{name}"] - before[name]).abs().max()
    assert 0 < moved < 0.01
