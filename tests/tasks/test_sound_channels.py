"""``task.channels``: read in training, kept by checkpoints, the same in a resumed run."""

import numpy as np
import pytest
import soundfile
import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.cli import main
from eat_plugin.inference import load_checkpoint
from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.sound import make_front_end

RATE = 16_000
KINDS = pytest.mark.parametrize("kind", ["eat_pretraining", "eat_classification"])


@pytest.fixture
def data(tmp_path):
    """A clip whose channels nearly cancel out, and its first channel alone."""
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, -0.9 * wave], axis=1), RATE)
    soundfile.write(tmp_path / "mono.wav", wave, RATE)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\nmono.wav\t32000\nstereo.wav\t32000\n")
    (tmp_path / "train.lbl").write_text("mono.wav\ta\nstereo.wav\tb\n")
    (tmp_path / "label_descriptors.csv").write_text("0,a,A\n1,b,B\n")
    return tmp_path


def options(kind, data, **changes):
    schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[kind]())
    given = {"_name": kind, "data": str(data), "target_length": 128, "patch_size": 16, "seed": 1}
    return OmegaConf.merge(schema, {**given, **changes})


@KINDS
@pytest.mark.parametrize("device", ["cpu", "model"])
def test_task__hears_the_channel_of_its_option(data, kind, device):
    for channels, same in (("mean", False), ("first", True), ("loudest", True)):
        task = setup_task(options(kind, data, channels=channels, fbank={"device": device}))
        task.load_dataset("train")
        dataset = task.dataset("train")
        mono, stereo = (dataset[index]["source"] for index in range(2))
        if device == "model":
            mono, stereo = mono.values, stereo.values
        assert torch.equal(mono, stereo) is same


def test_make_front_end__invalid_options_are_refused(data):
    with pytest.raises(ValueError, match="task.channels is 'both'; choose one of mean, first, l"):
        setup_task(options("eat_pretraining", data, channels="both"))
    with pytest.raises(ValueError, match="task.channels is first, which is for sound"):
        setup_task(options("eat_pretraining", data, channels="first", images={}))


def test_make_front_end__a_resumed_run_keeps_its_channels(data):
    cfg = options("eat_pretraining", data, channels="first", norm_mean=0.0, norm_std=1.0)
    same = ResumedRun("last.pt", {"task": {"channels": "first"}}, {}, "EatAdamW")
    assert make_front_end(cfg, same).channels == "first"
    for before in ({}, {"channels": "loudest"}):  # {}: before the option existed
        other = ResumedRun("last.pt", {"task": before}, {}, "EatAdamW")
        name = before.get("channels", "mean")
        with pytest.raises(ValueError, match=f"last.pt has task.channels={name}, this run first"):
            make_front_end(cfg, other)
        assert make_front_end(cfg, other._replace(optimizer="")).channels == "first"


@pytest.mark.parametrize(
    ("name", "value"), [("pad_value", "silence"), ("length", "crop"), ("frontend", "db")]
)
def test_make_front_end__a_resumed_run_keeps_its_inputs(data, name, value):
    numbers = {"norm_mean": 0.0, "norm_std": 1.0}
    cfg = options("eat_pretraining", data, **numbers, **{name: value})
    resumed = ResumedRun("last.pt", {"task": {}}, {}, "EatAdamW")
    with pytest.raises(ValueError, match=f"last.pt has task.{name}=.*, this run {value}: choose"):
        make_front_end(cfg, resumed)
    reset = resumed._replace(optimizer="")
    if name != "frontend":
        assert make_front_end(cfg, reset).target_length == cfg.target_length
        return
    with pytest.raises(ValueError, match="last.pt has task.frontend=kaldi, this run db: choose"):
        make_front_end(cfg, reset)


def test_load_checkpoint__remembers_the_channels(data, make_checkpoint, capsys):
    path = make_checkpoint("classification", task_channels="first")
    loaded = load_checkpoint(path)
    mono, stereo = loaded.predict([data / "mono.wav", data / "stereo.wav"])
    torch.testing.assert_close(mono, stereo)
    assert load_checkpoint(make_checkpoint("classification")).front_end.channels == "mean"
    assert main(["predict", "--checkpoint", str(path), f"{data}/stereo.wav", "--top", "1"]) == 0
    score = capsys.readouterr().out.split()[-1]
    assert float(score) == pytest.approx(float(mono.max()), abs=1e-4)
    assert main(["export", "--checkpoint", str(path), "--out", f"{data}/published.pt"]) == 2
    assert "task.channels=first has no published name; only mean" in capsys.readouterr().err


@KINDS
def test_task__refuses_statistics_of_other_channels(data, kind):
    assert main(["stats", str(data)]) == 0
    assert setup_task(options(kind, data)).front_end.channels == "mean"
    with pytest.raises(ValueError, match=r"stats.json was measured with channels=mean, but channe"):
        setup_task(options(kind, data, channels="loudest"))
