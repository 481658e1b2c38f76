"""Real runs on clips of 0.3 to 3 s, with their own lengths or cropped."""

import json
import re
import shutil
import socket

import numpy as np
import pytest
import soundfile

SECONDS = (0.3, 0.35, 0.7, 0.75, 1.2, 1.25, 2.9, 3.0, 0.3, 2.8)
KINDS = ("dog", "rain", "clock")
MASK = [
    "task.length=mask", "task.target_length=320", "dataset.batch_size=null",
    "dataset.max_tokens=700",
]  # fmt: skip
FINETUNE = (
    "finetune", "size=tiny", "common.cpu=true", "common.fp16=false", "common.log_interval=1",
    "dataset.num_workers=0", "dataset.batch_size=4", "task.target_length=320",
    "task.single_label=true", "model.loss=ce", "lr_scheduler.warmup_updates=1",
    "optimization.max_update=3", "optimization.lr=[0.001]", "model.model_path=null",
    "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
)  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    """Ten clips of noise, 0.3 to 3 s, with one label each; ``eval`` has copies."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    lines, labels = [], []
    for number, seconds in enumerate(SECONDS):
        wave = rng.normal(0, 0.1, int(16000 * seconds)).astype(np.float32)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wave, 16000)
        lines.append(f"{number}.wav\t{len(wave)}")
        labels.append(f"{number}.wav\t{KINDS[number % 3]}")
    shutil.copytree(tmp_path / "audio", tmp_path / "held_out")
    for split, folder in (("train", "audio"), ("eval", "held_out")):
        root = str(tmp_path / folder)
        (tmp_path / f"{split}.tsv").write_text("\n".join([root, *lines]) + "\n")
        (tmp_path / f"{split}.lbl").write_text("\n".join(labels) + "\n")
    rows = [f"{number},{kind},A {kind}" for number, kind in enumerate(KINDS)]
    (tmp_path / "label_descriptors.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def logged(output, part):
    return [json.loads(line) for line in re.findall(rf"\[{part}\]\[INFO\] - (\{{.*\}})", output)]


def test_pretrain__own_lengths_resumed_equal_one_run(trainer, assert_same):
    options = [
        *MASK, "model.recon_loss=1", "optimization.max_update=7",
        "checkpoint.save_interval_updates=3",
    ]  # fmt: skip
    output = trainer.succeed(*options, name="straight")
    losses = [line for line in logged(output, "train_inner") if "loss_cls" in line]
    assert len(losses) == 7
    for name in ("loss", "loss_cls", "loss_regression", "loss_recon"):
        values = [float(line[name]) for line in losses]
        assert all(0 < value < 100 for value in values), name
    assert len({line["bsz"] for line in losses}) > 1  # few long or many short clips per batch
    checkpoint = trainer.folder / "straight" / "checkpoints" / "checkpoint_1_3.pt"
    trainer.succeed(
        *options, f"checkpoint.restore_file={checkpoint}", "dataset.num_workers=2", name="resumed"
    )
    one, two = trainer.checkpoint("straight"), trainer.checkpoint("resumed")
    assert_same(one["model"], two["model"])
    assert_same(one["last_optimizer_state"], two["last_optimizer_state"])
    assert one["cfg"]["task"]["length"] == "mask"
    assert one["cfg"]["task"]["patch_size"] == [16, 16]


def test_pretrain__two_processes_equal_gradient_accumulation(trainer, assert_same):
    options = [*MASK, "optimization.max_update=3"]
    one = trainer.start(*options, "optimization.update_freq=[2]", name="one")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    two = [
        trainer.start(
            *options, f"distributed_training.distributed_rank={rank}",
            "distributed_training.distributed_world_size=2", "distributed_training.device_id=0",
            f"distributed_training.distributed_init_method=tcp://127.0.0.1:{port}",
            "distributed_training.distributed_no_spawn=true",
            "distributed_training.distributed_backend=gloo",
            "distributed_training.ddp_backend=legacy_ddp", name="two",
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in (one, *two)]
    assert [process.returncode for process in (one, *two)] == [0] * 3, outputs[0][-3000:]
    first, *others = [logged(output, "train_inner") for output in outputs]
    assert len(first) == 3
    for before, after in zip(first, next(lines for lines in others if lines)):
        for name in ("loss", "loss_cls", "loss_regression"):  # means of all processes' items
            assert float(before[name]) == pytest.approx(float(after[name]), rel=1e-3), name
    models = [trainer.checkpoint(name)["model"] for name in ("one", "two")]
    assert_same(*models, tolerance=1e-5)


def test_finetune__clips_of_different_lengths(trainer):
    policies = {
        "mask": ["model.mixup=0.8", "model.prediction_mode=LIN_SOFTMAX", *MASK],
        "crop": ["task.length=crop", "task.target_length=128"],
    }
    runs = [trainer.start(*p, config=FINETUNE, name=name) for name, p in policies.items()]
    for process in runs:
        output, _ = process.communicate(timeout=300)
        losses = [float(line["loss"]) for line in logged(output, "train_inner")]
        assert len(losses) == 3, output[-3000:]
        assert all(0 < loss < 20 for loss in losses)
        right = float(logged(output, "eval")[-1]["eval_accuracy"]) * 10
        assert right == pytest.approx(round(right), abs=1e-4)  # each clip is counted once
