"""Objectives alone and together, and a new one: a class, an entry and a weight."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from fairseq.criterions.model_criterion import ModelCriterion
from fairseq.logging import metrics
from omegaconf import OmegaConf
from torch import nn

from eat_plugin.criterions.pretraining import PretrainingCriterion
from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel
from eat_plugin.models.objectives import OBJECTIVES
from eat_plugin.models.step import PretrainingObjective
from tests.models.conftest import MICRO
from tests.versions import fairseq_main

WEIGHTS = {"d2v_loss": "regression", "recon_loss": "recon", "cls_loss": "cls"}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dino", [False, True])
def test_objectives__alone_and_together_are_the_same(make_model, batch, weight, dino):
    together = make_model(recon_loss=1.0, utterance_level=dino).eval()  # the centre does not move
    weights = {**dict.fromkeys(WEIGHTS, 0.0), weight: together.cfg[weight]}
    alone = make_model(utterance_level=dino, **weights).eval()
    alone.load_state_dict(together.state_dict(), strict=False)
    name = WEIGHTS[weight]
    first, second = together(**batch), alone(**batch)
    assert list(second["losses"]) == [name]
    torch.testing.assert_close(second["losses"][name], first["losses"][name], rtol=0, atol=0)
    assert second["loss_items"][name] == first["loss_items"][name]
    assert ("pred_var" in second) == (name != "cls")


def test_parameters__have_published_names_in_published_order(make_model):
    own = make_model(recon_loss=1.0, utterance_level=True)
    names = [name for name in own.state_dict() if "." not in name or "_proj" in name.split(".")[0]]
    assert names == [
        "center", "recon_proj.weight", "recon_proj.bias", "cls_proj.weight", "cls_proj.bias", "_ema"
    ]  # fmt: skip
    assert own.recon_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not own.cls_proj.bias.any()


@dataclass
class PeakConfig(EatConfig):
    """The model's options, and the weight of the objective below."""

    peak_loss: float = 0.0


class PeakRegression(PretrainingObjective):
    """CLS predicts the largest target of each channel."""

    name, weight_option = "peak", "peak_loss"

    def validate(self):
        if self.cfg.clone_batch < 2:
            raise ValueError("model.peak_loss takes two clones")

    def add_parameters(self, model):
        model.peak_proj = nn.Linear(self.cfg.embed_dim, self.cfg.embed_dim)

    def compute(self, step):
        peaks = step.targets.amax(dim=1).repeat_interleave(self.cfg.clone_batch, dim=0)
        loss = self.regress(step.model.peak_proj(step.student[:, 0]), peaks, self.weight)
        num_hidden = len(step.split.hidden_rows)
        return loss * num_hidden, num_hidden * len(loss)


@pytest.fixture
def make_toy():
    OBJECTIVES.append(PeakRegression)

    def make(**changes):
        torch.manual_seed(0)
        cfg = OmegaConf.merge(OmegaConf.structured(PeakConfig()), MICRO, changes)
        return EatModel(cfg).double()

    yield make
    OBJECTIVES.remove(PeakRegression)


def test_new_objective__is_composed_logged_and_trained(make_toy, batch):
    model = make_toy(peak_loss=0.5).train()
    sample = {"id": torch.arange(2), "net_input": batch}
    assert torch.equal(
        model(**batch)["losses"]["regression"],
        make_toy().train()(**batch)["losses"]["regression"],
    )
    losses = []
    for _ in range(5):
        loss, size, log = PretrainingCriterion(None)(model, sample)
        (loss / size).backward()
        with metrics.aggregate() as logged:
            PretrainingCriterion.reduce_metrics([log])
        losses.append(logged.get_smoothed_values()["loss_peak"])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.01)
        model.zero_grad()
    assert losses[-1] < losses[0]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(**batch)["losses"]["peak"], model(**batch)["losses"]["peak"])


def test_new_objective__alone_needs_no_decoder(make_toy, batch):
    model = make_toy(peak_loss=1.0, d2v_loss=0.0, cls_loss=0.0).train()
    assert model.patch_encoder.decoder is None
    assert list(model(**batch)["losses"]) == ["peak"]


@fairseq_main
def test_new_objective__the_stock_criterion_gives_the_same(make_toy, batch):
    model = make_toy(peak_loss=0.5).train()
    sample = {"id": torch.arange(2), "net_input": batch}
    ours, size, _ = PretrainingCriterion(None)(model, sample)
    stock, stock_size, _ = ModelCriterion(None, {}, [])(model, sample)
    assert ours.item() == pytest.approx(stock.item())
    assert size == stock_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peak_loss": 1.0, "clone_batch": 1}, "takes two clones"),
        ({"peak_loss": -1.0}, "'peak_loss': -1.0}; none below 0"),
        ({"d2v_loss": 0.0, "cls_loss": 0.0}, "'peak_loss': 0.0}; none below 0, one above 0"),
    ],
)
def test_new_objective__is_validated_with_the_others(make_toy, changes, message):
    with pytest.raises(ValueError, match=message):
        make_toy(**changes)
