"""``task.fbank.device``: valid combinations, and the batches."""

import math
import shutil

import numpy as np
import pytest
import soundfile
import torch
from fairseq.utils import apply_to_sample
from omegaconf import OmegaConf

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.packed import PackedClip, compute_spectrograms, join_clips, pack_waveform
from eat_plugin.inference import load_checkpoint
from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
from eat_plugin.tasks.sound import compute_on_device

RATE = 16000
ON_MODEL = {"fbank": {"device": "model"}}
KINDS = pytest.mark.parametrize("kind", ["pretraining", "classification"])


@pytest.fixture
def make_task(tmp_path):
    """A task of either kind on four clips, of 0.3 to 3 s."""
    entries, labels = [], []
    (tmp_path / "audio").mkdir()
    for number, seconds in enumerate((0.3, 1.5, 3.0, 1.5)):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, int(seconds * RATE))
        coding = ("PCM_16", "FLOAT")[number % 2]
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wave, RATE, subtype=coding)
        entries.append(f"{number}.wav\t{len(wave)}\n")
        labels.append(f"{number}.wav\t{'ab'[number % 2]}\n")
    shutil.copytree(tmp_path / "audio", tmp_path / "held_out")
    for split, folder in (("train", "audio"), ("eval", "held_out")):
        (tmp_path / f"{split}.tsv").write_text(f"{tmp_path / folder}\n{''.join(entries)}")
        (tmp_path / f"{split}.lbl").write_text("".join(labels))
    (tmp_path / "label_descriptors.csv").write_text("0,a,Alpha\n1,b,Beta\n")

    def make(kind, **options):
        options = {"target_length": 128, "patch_size": 16, **options}
        config, task = {
            "pretraining": (PretrainingConfig, EatPretrainingTask),
            "classification": (ClassificationConfig, EatClassificationTask),
        }[kind]
        cfg = OmegaConf.structured(config(data=str(tmp_path), seed=1))
        return task(OmegaConf.merge(cfg, options))

    return make


def first_batch(task, split="train"):
    task.load_dataset(split)
    dataset = task.dataset(split)
    return dataset.collater([dataset[index] for index in range(len(dataset))])


@KINDS
def test_device__cpu_is_the_default(make_task, kind):
    task = make_task(kind)
    assert task.cfg.fbank.device == "cpu"
    sample = first_batch(task)
    assert compute_on_device(sample, task.front_end, torch.nn.Linear(1, 1)) is sample
    assert compute_on_device({}, task.front_end, torch.nn.Linear(1, 1)) == {}


@KINDS
@pytest.mark.parametrize("options", [{}, {"crop": "random"}, {"length": "crop"}])
def test_compute_on_device__equals_the_batch_of_spectrograms(make_task, kind, options):
    name = {"pretraining": "source", "classification": "imgs"}[kind]
    if kind == "classification":
        options = {"roll_gain": True, **options}
    expected = first_batch(make_task(kind, **options))
    task = make_task(kind, **ON_MODEL, **options)
    sample = first_batch(task)
    packed = sample["net_input"][name]
    assert isinstance(packed, dict)
    model = torch.nn.Linear(1, 1)
    for _ in range(2):  # fairseq reuses its first batch
        found = compute_on_device(sample, task.front_end, model)
        assert sample["net_input"][name] is packed
        assert found["net_input"].keys() == expected["net_input"].keys()
        assert torch.equal(found["net_input"][name], expected["net_input"][name])
        assert torch.equal(found["id"], expected["id"])


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_compute_on_device__rounds_once_to_the_models_precision(make_task, precision):
    expected = first_batch(make_task("pretraining"))["net_input"]["source"].to(precision)
    task = make_task("pretraining", **ON_MODEL)

    def convert(tensor):  # as fairseq's Trainer does to each batch
        return tensor.to(precision) if tensor.dtype is torch.float32 else tensor

    sample = apply_to_sample(convert, first_batch(task))
    model = torch.nn.Linear(1, 1).to(precision)
    found = compute_on_device(sample, task.front_end, model)["net_input"]["source"]
    assert found.dtype == precision
    assert torch.equal(found, expected)


def test_eval_windows__are_spectrograms(make_task):
    task = make_task("classification", length="crop", **ON_MODEL)
    sample = first_batch(task, "eval")
    assert sample["net_input"]["num_windows"] == [1, 3, 3, 3]
    assert sample["net_input"]["imgs"].shape == (10, 1, 128, 128)
    assert compute_on_device(sample, task.front_end, torch.nn.Linear(1, 1)) is sample


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pretraining", {"fbank": {"device": "gpu"}}, "task.fbank.device is 'gpu'; choose one of"),
        (
            "classification", {"noise": True, **ON_MODEL},
            "task.noise is true, .* but task.fbank.device is model; set task.fbank.device=cpu",
        ),
        (
            "pretraining", {"length": "mask", **ON_MODEL},
            "task.length is mask, .* but task.fbank.device is model; set task.fbank.device=cpu",
        ),
        (
            "pretraining", {"images": {}, **ON_MODEL},
            "task.images is set, .* but task.fbank.device is model; set task.fbank.device=cpu",
        ),
    ],
)  # fmt: skip
def test_device__invalid_options_are_refused_at_start(make_task, kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(kind, **options)


@KINDS
def test_checkpoint__works_in_inference(make_checkpoint, kind, tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    loaded = load_checkpoint(make_checkpoint(kind, task_fbank={"device": "model"}))
    assert loaded.cfg["task"]["fbank"]["device"] == "model"
    expected = load_checkpoint(make_checkpoint(kind)).spectrogram(tmp_path / "a.wav")
    assert torch.equal(loaded.spectrogram(tmp_path / "a.wav"), expected)


# ---- On a GPU --------------------------------------------------------------------------------


def recording(rate, seconds, hz=None):
    """Noise and a tone that is 11 dB louder."""
    generator = torch.Generator().manual_seed(rate)
    noise = torch.randn(round(seconds * rate), generator=generator) / 10
    if hz is None:
        return noise
    times = torch.arange(len(noise), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * math.pi * hz * times)).float() + noise


@pytest.mark.gpu
def test_compute_on_device__gpu_equals_cpu_without_synchronising():
    front_end = FrontEnd(512, -4.268, 4.569)
    clips = [(recording(8_000, 6), 8_000)]
    clips += [
        (recording(rate, seconds, hz), rate)
        for rate in (16_000, 22_254, 32_000, 44_100)
        for seconds, hz in ((6, None), (6, 440), (2, 3_000), (0.01, None))
    ]
    batch = join_clips([PackedClip(pack_waveform(wave), rate) for wave, rate in clips])
    batch["groups"].append({"values": torch.randn(1, 600, 128).half(), "sample_rate": 0})
    batch["order"] = torch.cat([batch["order"], torch.tensor([len(clips)])])
    expected = compute_spectrograms(batch, front_end)
    model = torch.nn.Linear(1, 1).cuda()
    sample = apply_to_sample(lambda tensor: tensor.cuda(), {"net_input": {"source": batch}})
    compute_on_device(sample, front_end, model)  # creates tables
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.float16):
            found = compute_on_device(sample, front_end, model)["net_input"]["source"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed
    assert found.is_cuda
    assert found.dtype == torch.float32
    assert (found.cpu() - expected).abs().max() < 2e-4
