"""The published implementation's numbers, from losses and gradients to checkpoint layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-5  # relative to the largest value of a tensor
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"


def build(options):
    return EatModel(OmegaConf.merge(OmegaConf.structured(EatConfig()), options))


def assert_close(value, expected):
    value, expected = torch.as_tensor(value).detach(), torch.as_tensor(expected)
    assert value.shape == expected.shape
    error = (value.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error.item() < TOLERANCE


def total(output):
    return sum(loss.sum() for loss in output["losses"].values())


@pytest.fixture
def micro():
    golden = np.load(GOLDEN / "pretraining_micro.npz")
    options = json.loads((GOLDEN / "pretraining_micro.json").read_text())["model"]
    # The file has weights and positions in float16; the weights are exact.
    state, teacher = {}, {}
    positions = torch.from_numpy(golden["positions"])
    for name in golden.files:
        if name.startswith("state/_ema/"):
            teacher[name[len("state/_ema/") :]] = torch.from_numpy(golden[name]).float()
        elif name.startswith("state/"):
            state[name[len("state/") :]] = torch.from_numpy(golden[name]).float()
    state = {**state, POSITIONS: positions, "_ema": {**teacher, POSITIONS: positions}}
    model = build(options)
    model.load_state_dict(state)
    model.train()
    model.set_num_updates(0)
    return model, golden


def micro_batch(golden):
    return {
        "source": torch.from_numpy(golden["batch/source"]).float(),
        "precomputed_mask": torch.from_numpy(golden["batch/precomputed_mask"]),
    }


def test_micro__losses_and_statistics(micro):
    model, golden = micro
    output = model(**micro_batch(golden))
    assert_close(output["losses"]["cls"], golden["losses/cls"])
    assert_close(output["losses"]["regression"], golden["losses/IMAGE_regression"])
    for name in ("sample_size", "masked_pct", "pred_var", "target_var", "ema_decay"):
        assert float(output[name]) == pytest.approx(float(golden[f"out/{name}"]), rel=TOLERANCE)


def test_micro__gradients_and_the_teacher_after_a_step(micro):
    model, golden = micro
    output = model(**micro_batch(golden))
    total(output).backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                expected = float(golden[f"gradnorm/{name}"])
                assert parameter.grad.norm().item() == pytest.approx(expected, rel=TOLERANCE)
                parameter.sub_(parameter.grad, alpha=1e-3 / output["sample_size"])
    model.set_num_updates(1)
    assert model.teacher.decay == pytest.approx(float(golden["ema_decay_after_1"]), abs=1e-15)
    prefix = "ema_after_1/"
    for name in (name for name in golden.files if name.startswith(prefix)):
        average = model.teacher.averages[name[len(prefix) :]].double()
        sum_and_norm = [average.sum().item(), average.norm().item()]
        # float32 sums of float16 weights: an absolute floor for sums near 0.
        assert sum_and_norm == pytest.approx(golden[name].tolist(), rel=TOLERANCE, abs=1e-6)


def test_micro__features(micro):
    model, golden = micro
    output = model.eval().extract_features(micro_batch(golden)["source"], remove_extra_tokens=False)
    assert_close(output["x"], golden["features"])
    assert output["mask"] is None
    assert len(output["layer_results"]) == 2


@pytest.fixture
def tiny(shared):
    golden = torch.load(shared / "golden" / "model_tiny.pt", weights_only=True)
    model = build(golden["cfg_model"])
    model.load_state_dict(golden["state_dict"])
    return model.train(), golden


def test_tiny__losses_targets_and_gradients(tiny):
    model, golden = tiny
    output = model(**golden["batch"])
    assert_close(output["losses"]["cls"], golden["losses"]["cls"])
    assert_close(output["losses"]["regression"], golden["losses"]["IMAGE_regression"])
    for name in ("sample_size", "masked_pct", "pred_var", "target_var", "ema_decay"):
        assert float(output[name]) == pytest.approx(float(golden[name]), rel=TOLERANCE)
    local = model.patch_encoder.local_features(golden["batch"]["source"])
    targets, _ = model.teacher.make_targets(model, golden["batch"]["source"], local)
    assert_close(targets, golden["intermediates"]["teacher_target_all_patches"])
    total(output).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert_close(parameter.grad, golden["grads"][name])


def test_tiny__positions_and_optimizer_options(tiny):
    model, golden = tiny
    fresh = build(golden["cfg_model"])
    # The last digit of NumPy's float32 power depends on its version and on the processor (AVX-512):
    # 6e-8 of angles up to 767.
    found, expected = fresh.state_dict()[POSITIONS], golden["state_dict"][POSITIONS]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert getattr(parameter, "optim_overrides", None) == golden["optim_groups"][name]


@pytest.mark.parametrize("name", ["EAT-base_pretrain", "EAT-large_pretrain"])
def test_layout__every_published_key_and_shape(name):
    layout = json.loads((GOLDEN / "state_dict_layouts.json").read_text())[name]
    with torch.device("meta"):
        model = build(layout["cfg_model"])
    state = model.state_dict()

    def shapes(tensors):
        return {key: list(tensor.shape) for key, tensor in tensors.items() if key != "_ema"}

    def published(entries):
        return {key: entry["shape"] for key, entry in entries.items() if key != "_ema"}

    assert shapes(state) == published(layout["state_dict"])
    assert list(shapes(state)) == list(published(layout["state_dict"]))
    assert shapes(state["_ema"]) == published(layout["state_dict"]["_ema"])
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == layout["n_params"]
    assert sum(p.numel() for p in parameters if p.requires_grad) == layout["n_trainable"]
    assert sum(average.numel() for average in state["_ema"].values()) == layout["n_ema"]
