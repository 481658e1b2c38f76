"""Real runs on a cache."""

import json
import re
import shutil

import pytest

from eat_plugin.cli import main

KINDS = ("dog", "rain", "clock")
FINETUNE = (
    "finetune", "size=tiny", "common.cpu=true", "common.fp16=false", "common.log_interval=1",
    "dataset.num_workers=0", "dataset.batch_size=4", "task.target_length=64",
    "task.single_label=true", "model.loss=ce", "lr_scheduler.warmup_updates=1",
    "optimization.max_update=2", "optimization.lr=[0.001]", "model.model_path=null",
    "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
)  # fmt: skip


@pytest.fixture
def cached(clips):
    """The clips with labels as ``train``, copies of them as ``eval``, and a cache of both."""
    shutil.copytree(clips / "audio", clips / "held_out")
    lines = (clips / "train.tsv").read_text()
    names = [line.split("\t")[0] for line in lines.splitlines()[1:]]
    for split, folder in (("train", "audio"), ("eval", "held_out")):
        labels = [f"{name}\t{KINDS[number % 3]}\n" for number, name in enumerate(names)]
        (clips / f"{split}.tsv").write_text(lines.replace(f"{clips}/audio", f"{clips}/{folder}"))
        (clips / f"{split}.lbl").write_text("".join(labels))
    rows = [f"{number},{kind},A {kind}\n" for number, kind in enumerate(KINDS)]
    (clips / "label_descriptors.csv").write_text("".join(rows))
    out = clips / "cache"
    assert main(["cache", str(clips), "--out", str(out), "--workers", "1"]) == 0
    return out


def losses_of(output):
    lines = [json.loads(line) for line in re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)]
    return [float(line["loss"]) for line in lines]


def test_pretrain__losses_are_close_to_those_of_audio(trainer, cached):
    options = ["optimization.max_update=3"]
    runs = [
        trainer.start(*options, name="audio"),
        trainer.start(*options, f"task.data={cached}", "dataset.num_workers=2", name="cached"),
    ]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs[1][-3000:]
    audio, found = map(losses_of, outputs)
    assert len(found) == 3
    assert found == pytest.approx(audio, rel=0.01)
    assert "cannot be used" not in outputs[1]


def test_finetune__trains_and_refuses_roll_gain(trainer, cached):
    data = f"task.data={cached}"
    run = trainer.start(data, config=FINETUNE, name="plain")  # chooses none
    refused = trainer.start(data, "task.roll_gain=true", config=FINETUNE, name="rolled")
    output, error = (process.communicate(timeout=300)[0] for process in (run, refused))
    assert run.returncode == 0, output[-3000:]
    assert "eval_accuracy" in output
    assert "order decides" not in output
    assert refused.returncode != 0
    assert "ValueError: task.roll_gain needs waveforms, and a cache holds spectrograms" in error
