"""``task.frontend=db`` in tasks, checkpoints and commands."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.cli import main
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.doctor.inputs import check_normalisation
from eat_plugin.inference import load_checkpoint
from eat_plugin.inference.onnx_front_end import DecibelGraph
from eat_plugin.inputs.tasks import read_input
from eat_plugin.tasks.choosing import Known
from eat_plugin.tasks.normalisation import resolve_norm
from eat_plugin.tasks.recipe import front_end, is_short, norm
from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.sound import make_front_end
from eat_plugin.tasks.start_from import check_front_end

DB = FrontEnd(128, 0.0, 0.5, kind="db")
KINDS = pytest.mark.parametrize("kind", ["eat_pretraining", "eat_classification"])


@pytest.fixture
def data(tmp_path):
    """A data folder of two clips of noise."""
    folder, lines = tmp_path / "data", []
    folder.mkdir()
    for number, samples in enumerate((20_000, 30_000)):
        wave = np.random.default_rng(number).normal(0, 0.1, samples)
        soundfile.write(folder / f"{number}.wav", wave, 16_000)
        lines.append(f"{number}.wav\t{samples}")
    (folder / "train.tsv").write_text("\n".join([str(folder), *lines]) + "\n")
    (folder / "train.lbl").write_text("0.wav\ta\n1.wav\tb\n")
    (folder / "label_descriptors.csv").write_text("0,a,A\n1,b,B\n")
    return folder


def root(data, kind="eat_pretraining", **options):
    """A whole configuration of fairseq."""
    schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[kind]())
    given = {"_name": kind, "data": str(data), "target_length": 128, "frontend": "db", **options}
    model = {"modalities": {"image": {"patch_size": 16}}}
    cfg = OmegaConf.create({"common": {"seed": 1}, "model": model})
    cfg.task = OmegaConf.merge(schema, given)
    return cfg


@KINDS
@pytest.mark.parametrize("given", [{}, {"norm_mean": -4.268, "norm_std": 4.569}])
def test_task__needs_no_statistics_and_saves_what_it_uses(data, kind, given, caplog):
    cfg = root(data, kind, **given)
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
        task.load_dataset("train")
    assert task.front_end == task.dataset("train").reader.front_end == DB
    assert (cfg.task.norm, cfg.task.norm_mean, cfg.task.norm_std) == ("whole", 0.0, 0.5)
    text = "not used, as task.frontend=db with task.norm=whole needs no statistics: "
    text += " ".join(f"task.{name}={value}" for name, value in given.items())
    assert (text in caplog.text) == bool(given)
    assert "measured" not in caplog.text
    item = task.dataset("train")[0]["source"]
    assert (float(item.min()), float(item.max())) == (0.0, 1.0)
    assert check_normalisation(read_manifest(data / "train.tsv"), task.cfg) == []


@KINDS
def test_task__normalises_mel_bins_by_a_sample_of_their_values(data, kind, caplog):
    assert main(["stats", str(data)]) == 0  # of log-mel values: not used
    cfg = root(data, kind, norm="bins", norm_mean=None, norm_std=None)
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
        task.load_dataset("train")
        item = task.dataset("train")[0]["source"]
    assert "measured on 2 of 2 clips" in caplog.text
    assert "s; eat stats and stats.json are for task.frontend=kaldi" in caplog.text
    # Windows of 128 frames, as the model's; the sample takes those at random places.
    assert cfg.task.norm == "bins"
    mean, std = torch.tensor(cfg.task.norm_mean), torch.tensor(cfg.task.norm_std)
    assert 0.3 < float(mean.min()) < float(mean.max()) < 1
    values = DB(torch.from_numpy(soundfile.read(data / "0.wav", dtype="float32")[0]), 16_000)
    torch.testing.assert_close(item, (values - mean) / (2 * std))
    assert abs(float(item.mean())) < 0.1
    # As a checkpoint has them, without the folder.
    saved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    again = setup_task(saved.task, from_checkpoint=True)
    assert again.front_end == task.front_end
    with pytest.raises(ValueError, match="db are"):
        replace(again.front_end, mean=0.1, std=0.2)


def test_finish__pads_with_the_quietest_bin_before_it_normalises():
    front_end = replace(DB, mean=(0.5,) * 128, std=(0.25,) * 128)
    wave = 0.1 * torch.randn(1, 9_000, generator=torch.Generator().manual_seed(0))
    values = DB(wave[0], 16_000)
    assert torch.equal(front_end(wave[0], 16_000), (values - 0.5) / 0.5)
    assert float(front_end(wave[0], 16_000)[0, -1, 0]) == -1
    assert (DecibelGraph(front_end)(wave)[0] - front_end(wave[0], 16_000)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_value": "silence"}, "the front end db has zero"),
        ({"frontend": "mel"}, "task.frontend is 'mel'; choose one of kaldi, db"),
        ({"images": {}}, "task.frontend is db, which is for sound"),
        ({"images": {}, "frontend": "kaldi", "roll": True}, "task.roll is True, which is for sou"),
    ],
)
def test_task__options_that_contradict_it_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        setup_task(root(data, **options).task)


@pytest.mark.parametrize("device", ["cpu", "model"])
def test_task__rolls_in_pre_training_alone_and_not_in_validation(data, device):
    (data / "others.tsv").write_text((data / "train.tsv").read_text())
    task = setup_task(root(data, roll=True, fbank={"device": device}).task)
    for split in ("train", "others"):
        task.load_dataset(split)
    train, valid = (task.dataset(split)[0]["source"] for split in ("train", "others"))
    if device == "model":
        train, valid = train.values, valid.values
    assert train.shape == valid.shape
    assert not torch.equal(train, valid)
    plain = setup_task(root(data, fbank={"device": device}).task)
    plain.load_dataset("train")
    same = plain.dataset("train")[0]["source"]
    assert torch.equal(valid, same.values if device == "model" else same)


@pytest.mark.parametrize(("before", "now"), [("bins", "whole"), ("whole", "bins")])
def test_resolve_norm__a_resumed_run_keeps_its_own(data, before, now):
    cfg = root(data, norm=now)
    resumed = ResumedRun("last.pt", {"task": {"frontend": "db", "norm": before}}, {}, "EatAdamW")
    with pytest.raises(ValueError, match=f"last.pt has task.norm={before}, this run {now}"):
        resolve_norm(cfg.task, RunConfig(cfg.task), False, resumed)


def test_make_front_end__a_resumed_run_keeps_its_own(data):
    cfg = root(data, norm_mean=0.0, norm_std=0.5).task
    same = ResumedRun("last.pt", {"task": {"frontend": "db"}}, {}, "EatAdamW")
    assert make_front_end(cfg, same) == DB
    other = same._replace(cfg={"task": {}})  # before the option existed
    with pytest.raises(ValueError, match="last.pt has task.frontend=kaldi, this run db"):
        make_front_end(cfg, other)


def know(before=None, **options):
    """What is known of a run that starts from a checkpoint with the options ``before``."""
    known = Known(RunConfig(OmegaConf.create({"task": options}).task))
    known.start = None if before is None else {"task": before}
    return known


def test_recipe__follows_the_checkpoint(data):
    assert front_end(know()) == front_end(know({})) == "kaldi"
    assert front_end(know({"frontend": "db"})) == "db"
    assert norm(know(frontend="kaldi")) == norm(know(frontend="db")) == "bins"
    assert norm(know({"frontend": "db"}, frontend="db")) == "whole"
    for kind, longest in (("kaldi", 186), ("db", 188)):
        known = know(frontend=kind)
        known.manifest = read_manifest(data / "train.tsv")
        assert known.typical_frames == longest


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"norm": "bins"}, "db"), ({"norm": "auto"}, "db"),
        ({"norm": "whole"}, "kaldi"),
        ({"norm_mean": [-4.0] * 128, "norm_std": [4.0] * 128}, "kaldi"),
        ({"pad_value": "silence"}, "kaldi"),
    ],
)  # fmt: skip
def test_recipe__short_clips_get_decibels_where_mel_bins_are_normalised(data, options, expected):
    own = {"norm": "bins", "norm_mean": None, "pad_value": "zero", "data": str(data), **options}
    known = know(**own)
    known.manifest = read_manifest(data / "train.tsv")
    assert front_end(known) == expected
    soundfile.write(data / "1.wav", np.zeros(40_000), 16_000)
    (data / "train.tsv").write_text(f"{data}\n0.wav\t20000\n1.wav\t40000\n")
    known = know(**own)
    known.manifest = read_manifest(data / "train.tsv")
    assert front_end(known) == "kaldi"  # 2.5 s


def test_recipe__clips_are_short_for_both_front_ends(data):
    """32,160 samples have 199 frames of kaldi, 202 of db."""
    soundfile.write(data / "1.wav", np.zeros(32_160), 16_000)
    (data / "train.tsv").write_text(f"{data}\n1.wav\t32160\n")
    for kind in ("kaldi", "db"):
        known = know(frontend=kind, norm="bins")
        known.manifest = read_manifest(data / "train.tsv")
        assert is_short(known)


def test_recipe__a_cache_has_its_front_end(data, tmp_path):
    for kind in ("kaldi", "db"):
        out = tmp_path / kind
        assert main(["cache", str(data), "--out", str(out), "--frontend", kind]) == 0
        known = know(norm="bins", pad_value="zero")
        known.manifest = read_manifest(out / "train.tsv")
        assert front_end(known) == kind


@pytest.mark.parametrize("option", ["model.model_path", "checkpoint.finetune_from_model"])
def test_start__from_another_front_end_is_refused(make_checkpoint, option):
    path = str(make_checkpoint("pretraining", task_frontend="db"))
    cfg = OmegaConf.create({"task": {"frontend": "db"}, "model": {}, "checkpoint": {}})
    OmegaConf.update(cfg, option, path)
    check_front_end(RunConfig(cfg.task), "db")
    cfg.task.frontend = "kaldi"
    with pytest.raises(ValueError, match="task.frontend is kaldi.* was trained with db: set it"):
        check_front_end(RunConfig(cfg.task), "kaldi")
    cfg.task = {"_name": "mae_image_classification"}  # a published name, without the option
    with pytest.raises(ValueError, match="with db.*mae_image_classification has kaldi alone"):
        check_front_end(RunConfig(cfg.task), "kaldi")


def test_load_checkpoint__remembers_it(make_checkpoint, data, tmp_path, capsys):
    path = make_checkpoint("classification", task_frontend="db")
    loaded = load_checkpoint(path)
    assert loaded.front_end == read_input(loaded.cfg).front_end == DB
    wave, rate = soundfile.read(data / "1.wav", dtype="float32")
    expected = DB(torch.from_numpy(wave), rate)
    assert torch.equal(loaded.spectrogram(data / "1.wav"), expected)
    (found,) = loaded.extract([data / "1.wav"])  # two windows
    windows = [DB(torch.from_numpy(wave[start:]), rate) for start in (0, 128 * 160)]
    np.testing.assert_allclose(found.x, loaded.features(torch.stack(windows)), atol=1e-5)
    out = str(tmp_path / "published.pt")
    assert main(["export", "--checkpoint", str(path), "--out", out]) == 2
    assert "task.frontend=db has no published name; only kaldi has" in capsys.readouterr().err


def test_safetensors__remember_it(make_checkpoint, data, tmp_path):
    pytest.importorskip("safetensors")
    path, out = make_checkpoint("classification", task_frontend="db"), tmp_path / "m.safetensors"
    assert main(["export", "--checkpoint", str(path), "--out", str(out)]) == 0
    assert load_checkpoint(out).front_end == DB


@pytest.mark.parametrize("samples", [513, 9_000, 50_001])
def test_graph__is_the_front_end_up_to_rounding(samples):
    waves = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    waves[1] *= 0
    expected = torch.stack([DB(wave, 16_000) for wave in waves])
    found = DecibelGraph(DB)(waves)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.slow
def test_onnx__has_it_in_the_graph(make_checkpoint, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path, out = make_checkpoint("classification", task_frontend="db"), tmp_path / "model.onnx"
    assert main(["export", "--checkpoint", str(path), "--out", str(out), "--waveform"]) == 0
    described = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(described["eat_plugin"])["front_end"]["kind"] == "db"
    session, loaded = onnxruntime.InferenceSession(str(out)), load_checkpoint(path)
    for samples in (513, 50_001):
        waves = np.random.default_rng(samples).normal(0, 0.1, (2, samples)).astype(np.float32)
        _, scores = session.run(None, {"waveform": waves})
        source = torch.stack([DB(torch.from_numpy(wave), 16_000) for wave in waves])
        assert np.abs(scores - loaded.predict(source).numpy()).max() < 1e-3


def test_commands__cache_it_and_measure_nothing(data, make_checkpoint, tmp_path, capsys):
    out = tmp_path / "cache"
    assert main(["stats", str(data)]) == 0  # of its log-mel values, for kaldi
    assert main(["cache", str(data), "--out", str(out), "--frontend", "db", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["stats", str(out)]) == 0
    assert "if it needs statistics: none written" in capsys.readouterr().out
    assert not (out / "stats.json").exists()
    task = setup_task(root(out).task)
    task.load_dataset("train")
    loaded = load_checkpoint(make_checkpoint("pretraining", task_frontend="db"))
    found = task.dataset("train")[0]["source"]
    assert (found - loaded.spectrogram(data / "0.wav")).abs().max() < 1e-3
    with pytest.raises(ValueError, match="made with frontend=db, but frontend=kaldi is needed"):
        setup_task(root(out, frontend="kaldi").task).load_dataset("train")
