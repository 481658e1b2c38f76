"""Real runs that compute spectrograms on the model's device."""

import json
import re
import shutil

import pytest
import soundfile

from tests.versions import half_on_cpu

KINDS = ("dog", "rain", "clock")
RUN = ["task.crop=random", "dataset.batch_size=5", "optimization.max_update=4"]
ON_MODEL = ["task.fbank.device=model", "dataset.num_workers=2"]
FINETUNE = (
    "finetune", "size=tiny", "common.cpu=true", "common.log_interval=1", "dataset.num_workers=0",
    "task.target_length=64", "task.single_label=true", "task.roll_gain=true", "model.loss=ce",
    "common.fp16_init_scale=1", "lr_scheduler.warmup_updates=1", "optimization.lr=[0.001]",
    "model.model_path=null", "model.depth=2", "model.embed_dim=32", "model.num_heads=4",
    "model.average_top_k_layers=2",
)  # fmt: skip


@pytest.fixture
def labelled(clips):
    """Labelled clips, one stereo at 44.1 kHz, one damaged; ``eval`` has copies of six."""
    lines = (clips / "train.tsv").read_text().splitlines(keepends=True)
    wave = soundfile.read(clips / "audio" / "03.wav")[0]
    soundfile.write(clips / "audio" / "03.wav", [[v, -v / 3] for v in wave], 44_100)
    (clips / "audio" / "07.wav").write_bytes(b"no audio")
    shutil.copytree(clips / "audio", clips / "held_out")
    for split, kept in (("train", lines), ("eval", [f"{clips / 'held_out'}\n", *lines[1:7]])):
        names = [line.split("\t")[0] for line in kept[1:]]
        labels = [f"{name}\t{KINDS[number % 3]}\n" for number, name in enumerate(names)]
        (clips / f"{split}.tsv").write_text("".join(kept))
        (clips / f"{split}.lbl").write_text("".join(labels))
    rows = [f"{number},{kind},A {kind}\n" for number, kind in enumerate(KINDS)]
    (clips / "label_descriptors.csv").write_text("".join(rows))
    return clips


def results_of(output):
    """The losses of training, and the metrics of validation."""
    found = re.findall(r"\[(train_inner|eval)\]\[INFO\] - (\{.*\})", output)
    names = {"train_inner": ("loss",), "eval": ("eval_loss", "eval_mAP", "eval_accuracy")}
    return [[json.loads(line)[name] for name in names[kind]] for kind, line in found]


@pytest.mark.parametrize(
    "config",
    ["pretrain", pytest.param("finetune", marks=half_on_cpu)],  # in float16
)
def test_train__equals_spectrograms_from_workers(trainer, labelled, assert_same, config):
    options = {"config": FINETUNE} if config == "finetune" else {}
    runs = [
        trainer.start(*RUN, name="cpu", **options),
        trainer.start(*RUN, *ON_MODEL, name="model", **options),
    ]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs[1][-3000:]
    expected, found = map(results_of, outputs)
    assert len(found) == {"pretrain": 4, "finetune": 6}[config]  # two epochs
    assert found == expected
    assert all("clip '07.wav' cannot be used and was replaced" in output for output in outputs)
    first, second = (trainer.checkpoint(name) for name in ("cpu", "model"))
    assert second["cfg"]["task"]["fbank"] == {"device": "model"}
    assert_same(first["model"], second["model"])
