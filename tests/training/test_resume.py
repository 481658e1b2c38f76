"""An interrupted and resumed run equals an uninterrupted one bit for bit."""

import signal
import time

import pytest
import torch

from eat_plugin.modules import convolution
from tests.training.in_process import load, train
from tests.versions import fairseq_main, half_on_cpu


def assert_same_end(trainer, assert_same, first, second):
    one, two = trainer.checkpoint(first), trainer.checkpoint(second)
    assert one["optimizer_history"][-1]["num_updates"] == 8
    assert_same(one["model"], two["model"])
    assert_same(one["last_optimizer_state"], two["last_optimizer_state"])
    iterators = [state["extra_state"]["train_iterator"] for state in (one, two)]
    assert iterators[0] == iterators[1]


def test_resume__after_kill_9_with_workers_equals_one_run(trainer, assert_same):
    trainer.succeed("optimization.max_update=8", name="straight")

    # The same run, killed after its first checkpoint (update 4, within epoch 2).
    process = trainer.start("optimization.max_update=8", "dataset.num_workers=1", name="killed")
    checkpoint = trainer.folder / "killed" / "checkpoints" / "checkpoint_2_4.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.exists()

    (checkpoint.parent / "checkpoint_last.pt").unlink()  # it may have more updates
    restored = [f"checkpoint.restore_file={checkpoint}", "optimization.max_update=8"]
    output = trainer.succeed(*restored, "dataset.num_workers=2", name="killed")
    assert f"Loaded checkpoint {checkpoint} (epoch 2 @ 4 updates)" in output
    assert_same_end(trainer, assert_same, "straight", "killed")

    # The teacher in the checkpoint lacks the last step; the resumed run has taken it.
    start, end = (trainer.checkpoint("killed", f"checkpoint_{n}.pt") for n in ("2_4", "last"))
    name = "blocks.0.mlp.fc1.weight"
    assert not (start["model"]["_ema"][name] == end["model"]["_ema"][name]).all()


@half_on_cpu
@pytest.mark.parametrize("efficient", ["true", pytest.param("false", marks=fairseq_main)])
def test_resume__half_precision_keeps_its_float32_weights(trainer, assert_same, efficient):
    options = [
        "optimization.max_update=8", "common.bf16=true",
        f"common.memory_efficient_bf16={efficient}",
    ]  # fmt: skip
    trainer.succeed(*options, name="straight")
    checkpoint = trainer.folder / "straight" / "checkpoints" / "checkpoint_2_4.pt"
    trainer.succeed(*options, f"checkpoint.restore_file={checkpoint}", name="resumed")
    assert_same_end(trainer, assert_same, "straight", "resumed")
    averages = trainer.checkpoint("resumed")["model"]["_ema"].values()
    assert {average.dtype for average in averages} == {torch.float32}


def test_resume__computes_convolutions_as_before(labelled, monkeypatch):
    folder = labelled / "run"
    monkeypatch.setattr(convolution, "find_fastest", lambda ways, _: ("channels_first", {}))
    timed = [f"checkpoint.save_dir={folder}", "model.convolution=auto"]
    train("pretrain", labelled, *timed)
    assert load(folder)["task_state"]["convolution"] == "channels_first"
    monkeypatch.setattr(convolution, "find_fastest", lambda ways, _: ("channels_last", {}))
    options = [*timed, "optimization.max_update=3"]
    train("pretrain", labelled, *options)
    assert load(folder)["task_state"]["convolution"] == "channels_first"
    train(
        "pretrain",
        labelled,
        *options,
        "model.convolution=channels_last",
        "optimization.max_update=4",
    )
    assert load(folder)["task_state"]["convolution"] == "channels_last"


@pytest.mark.parametrize(("before", "now"), [(2, 3), (3, 2)])
def test_resume__with_another_batch_size_within_an_epoch(clips, caplog, before, now):
    own = f"checkpoint.save_dir={clips / 'run'}"
    train("pretrain", clips, own, f"dataset.batch_size={before}", "optimization.max_update=2")
    position = load(clips / "run")["extra_state"]["train_iterator"]["iterations_in_epoch"]
    assert position == 2
    train("pretrain", clips, own, f"dataset.batch_size={now}", "optimization.max_update=3")
    assert (
        f"dataset.batch_size={now}, in the checkpoint {before}: of this epoch some" in caplog.text
    )
    position = load(clips / "run")["extra_state"]["train_iterator"]["iterations_in_epoch"]
    assert position == 2 * before // now + 1
    tokens = "dataset.max_tokens=200"
    train("pretrain", clips, own, f"dataset.batch_size={now}", tokens, "optimization.max_update=4")
    assert "dataset.max_tokens=200, in the checkpoint None: the epoch begins again" in caplog.text
    position = load(clips / "run")["extra_state"]["train_iterator"]["iterations_in_epoch"]
    assert position == 1
