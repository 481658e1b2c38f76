"""`eat export` to safetensors and ONNX: the same results, written completely or not at all."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.cli import main
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.inference import load_checkpoint, portable
from eat_plugin.inference.onnx_front_end import KaldiGraph
from eat_plugin.models.encoder import EatEncoder
from eat_plugin.models.interop import encoder_config, load_encoder, read_encoder

KINDS = ("pretraining", "classification")


@pytest.fixture
def clips(tmp_path):
    """Two recordings, shorter and longer than a window."""
    paths = []
    for number, (seconds, rate) in enumerate(((0.7, 16_000), (2.5, 44_100))):
        samples = np.random.default_rng(number).normal(0, 0.1, int(seconds * rate)).clip(-1, 1)
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], samples, rate)
    return paths


@pytest.fixture
def export(tmp_path, clips):
    def export(checkpoint, name, *arguments):
        out = tmp_path / "out" / name
        command = ["export", "--checkpoint", checkpoint, "--out", out, "--clips", *clips]
        return main([*map(str, (*command, *arguments))]), out

    return export


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("kind", KINDS)
def test_safetensors__gives_the_same_and_needs_no_other_file(
    export, make_checkpoint, clips, capsys, kind
):
    safetensors = pytest.importorskip("safetensors")
    path = make_checkpoint(kind, task_norm_mean=-5.0, task_norm_std=3.5)
    code, out = export(path, "model.safetensors")
    shown = capsys.readouterr().out
    assert code == 0
    assert f"{out}: weights, configuration and labels of encoder and classifier; " in shown
    assert "largest difference on 2 clips: features 0.0e+00" in shown
    first, second = load_checkpoint(path), load_checkpoint(out)
    assert (second.labels, second.front_end) == (first.labels, first.front_end)
    for own, other in zip(first.features(clips, "all"), second.features(clips, "all")):
        assert torch.equal(own, other)
    if kind == "classification":
        assert torch.equal(first.predict(clips), second.predict(clips))
    with safetensors.safe_open(out, framework="pt") as file:
        names = set(file.keys())
        assert file.metadata()["format"] == "pt"
    assert names == set(first.model.state_dict()) & names
    assert not [name for name in names if "_ema" in name or "decoder" in name]


def test_safetensors__its_encoder_can_be_fine_tuned(export, make_checkpoint):
    pytest.importorskip("safetensors")
    path = make_checkpoint("pretraining")
    _, out = export(path, "model.safetensors")
    pretrained = read_encoder(out)
    assert pretrained.task["_name"] == "eat_pretraining"
    encoder = EatEncoder(encoder_config(pretrained.model))
    load_encoder(encoder, pretrained)
    expected = load_checkpoint(path).model.state_dict()
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, expected["blocks.1.mlp.fc2.weight"])


def test_safetensors__names_a_file_of_another_program_and_a_damaged_one(
    export, make_checkpoint, tmp_path
):
    torch_files = pytest.importorskip("safetensors.torch")
    torch_files.save_file({"w": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors has no entry 'eat_plugin'"):
        load_checkpoint(tmp_path / "other.safetensors")
    _, out = export(make_checkpoint("pretraining"), "model.safetensors")
    out.write_bytes(out.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is not a safetensors file, or is dam"):
        load_checkpoint(out)


def test_export__what_differs_is_not_written(export, make_checkpoint, capsys, monkeypatch):
    pytest.importorskip("safetensors")
    own = portable.portable_state

    def changed(state, loaded):
        result = own(state, loaded)
        result["model"]["head.bias"] = result["model"]["head.bias"] + 0.01
        return result

    monkeypatch.setattr(portable, "portable_state", changed)
    code, out = export(make_checkpoint("classification"), "model.safetensors")
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"eat export: error: {out} would differ from the checkpoint by ")
    assert error.endswith("; not written\n")
    assert left_in(out.parent) == []


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("model.safetensors", "safetensors", "safetensors"), ("model.onnx", "onnxscript", "onnx")],
)
def test_export__names_a_missing_package(
    export, make_checkpoint, capsys, monkeypatch, name, module, extra
):
    for other in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, other, torch)  # any module, where it is not installed
    monkeypatch.setitem(sys.modules, module, None)
    code, out = export(make_checkpoint("pretraining"), name)
    assert code == 2
    assert capsys.readouterr().err == (
        f"eat export: error: needs the package {module}, which is not installed: "
        f"pip install 'eat-plugin[{extra}]'\n"
    )
    assert left_in(out.parent) == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("model.bin", (), "model.bin; a PyTorch checkpoint is written, give a name that ends in"),
        ("model.pt", ("--format", "onnx"), "a file of --format onnx is written, give a name that"),
        ("model.pt", ("--format", "hf5"), "argument --format: invalid choice: 'hf5'"),
        ("model.pt", ("--waveform",), "--waveform is for --format onnx, not for published"),
    ],
)
def test_export__refuses_other_names(export, make_checkpoint, capsys, name, arguments, message):
    code, out = export(make_checkpoint("pretraining"), name, *arguments)
    assert code == 2
    assert message in capsys.readouterr().err
    assert left_in(out.parent) == []


@pytest.fixture
def run_graph():
    """Export a graph's file; return a function that runs it, and what its metadata say."""
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")

    def open_graph(path):
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        described = json.loads(session.get_modelmeta().custom_metadata_map["eat_plugin"])
        return lambda **inputs: session.run(None, inputs), described

    return open_graph


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("classification", {"task_single_label": True, "model_loss": "ce"}),
        pytest.param(
            "pretraining", {"task_length": "mask", "task_patch_size": 16}, marks=pytest.mark.slow
        ),
    ],
)
def test_onnx__gives_the_same_for_any_batch_and_length(
    export, run_graph, make_checkpoint, capsys, kind, options
):
    path = make_checkpoint(kind, **options)
    code, out = export(path, "model.onnx")
    written = capsys.readouterr()
    assert (code, written.err) == (0, "")
    assert "ONNX graph of model, opset 18, batch and time of any size; largest" in written.out
    run, described = run_graph(out)
    loaded = load_checkpoint(path)
    for batch, frames in ((1, 128), (3, 16), (2, 256)):  # the table of positions ends at 256
        source = torch.randn(batch, 1, frames, 128, generator=torch.Generator().manual_seed(0))
        tokens, *rest = run(spectrogram=source.numpy())
        assert np.abs(tokens - loaded.features(source, "all").numpy()).max() < 1e-5
        assert len(rest) == (kind == "classification")
        for scores in rest:
            assert np.abs(scores - loaded.predict(source).numpy()).max() < 1e-5
    assert described["front_end"]["mean"] == loaded.front_end.mean
    names = None if loaded.labels is None else list(loaded.labels.names)
    assert (described["labels"] or {"names": None})["names"] == names
    assert left_in(out.parent) == ["model.onnx"]


@pytest.mark.slow
def test_onnx__waveforms_of_any_batch_and_length(export, run_graph, make_checkpoint):
    path = make_checkpoint("classification", task_pad_value="silence")
    code, out = export(path, "model.onnx", "--waveform")
    assert code == 0
    run, _ = run_graph(out)
    loaded = load_checkpoint(path)
    for batch, samples in ((1, 400), (3, 9_000), (2, 50_001)):
        waves = np.random.default_rng(samples).normal(0, 0.1, (batch, samples)).astype(np.float32)
        tokens, scores = run(waveform=waves)
        source = torch.stack([loaded.spectrogram((wave, 16_000)) for wave in waves])
        assert np.abs(tokens - loaded.features(source, "all").numpy()).max() < 1e-3
        assert np.abs(scores - loaded.predict(source).numpy()).max() < 1e-3


@pytest.mark.parametrize(
    ("samples", "pad_value"), [(400, "zero"), (9_000, "silence"), (50_001, "zero")]
)
def test_graph_front_end__is_the_front_end_up_to_rounding(samples, pad_value):
    front_end = FrontEnd(128, -4.268, 4.569, pad_value)
    waves = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples)) + 0.05
    expected = torch.stack([front_end(wave, 16_000) for wave in waves])
    found = KaldiGraph(front_end)(waves)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


def test_graph_front_end__of_each_mel_bin_and_not_of_own_lengths():
    means, stds = tuple(-9.0 + i / 32 for i in range(128)), tuple(2 + i / 64 for i in range(128))
    front_end = FrontEnd(64, means, stds)
    wave = 0.1 * torch.randn(1, 5_000, generator=torch.Generator().manual_seed(0))
    assert (KaldiGraph(front_end)(wave)[0] - front_end(wave[0], 16_000)).abs().max() < 1e-4
    with pytest.raises(ValueError, match="--waveform needs task.length=pad or crop"):
        KaldiGraph(FrontEnd(128, -4.0, 4.0, patch=16))
