import pytest
import torch

from eat_plugin.losses import normalize_patches
from eat_plugin.models.prediction import measure_agreement, reconstruct
from eat_plugin.modules.patches import patchify


@pytest.fixture
def step(make_model, batch):
    model = make_model(recon_loss=1.0).eval()
    return model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])


def test_reconstruct__of_a_perfect_prediction_is_the_source(step, batch, monkeypatch):
    objective = next(one for one in step.model.objectives if one.name == "recon")
    values = normalize_patches(patchify(step.source, 16)).flatten(0, 1)[step.split.hidden_sources]
    monkeypatch.setattr(objective, "predict", lambda step: values)
    expected = batch["source"].repeat_interleave(3, dim=0)
    assert torch.allclose(reconstruct(step), expected, atol=1e-5)


def test_reconstruct__keeps_visible_patches(step, batch):
    found, expected = patchify(reconstruct(step), 16), patchify(step.source, 16)
    is_hidden = batch["precomputed_mask"].bool()
    same = (found == expected.repeat_interleave(3, dim=0)).all(dim=2)
    assert torch.equal(same, ~is_hidden)


def test_measure_agreement__is_the_cosine_at_hidden_patches(step, batch):
    found = measure_agreement(step)
    is_hidden = batch["precomputed_mask"].bool()
    assert torch.equal(found.isnan(), ~is_hidden)
    assert found[is_hidden].abs().max() < 0.9
    step.prediction = 3 * step.hidden_targets
    assert torch.allclose(measure_agreement(step)[is_hidden], torch.ones(()).to(found))


def test_predictions__are_none_without_their_modules(make_model, batch):
    for weights, has_agreement in (({}, True), ({"d2v_loss": 0.0}, False)):
        model = make_model(**weights).eval()
        step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
        assert reconstruct(step) is None
        assert (measure_agreement(step) is not None) == has_agreement
