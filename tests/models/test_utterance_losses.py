"""DINO among clips of different length, next to other losses, and in the layout of a model."""

import math

import pytest
import torch

from eat_plugin.models.utterance_options import PARTS, default_options, without_parts
from eat_plugin.modules.patches import column_padding
from tests.models.test_padding import COLUMNS, LOUD, make_batch

OPTIONS = {"cls_target": "layers", "dino_loss": 0.5, "dino_prototypes": 8}


@pytest.mark.parametrize("garbage", [math.nan, 1e6])
def test_padding__its_content_does_not_count(make_model, garbage):
    model = make_model(**LOUD, **OPTIONS).train()
    clean, dirty = model(**make_batch()), model(**make_batch(garbage))
    assert torch.equal(clean["losses"]["dino"], dirty["losses"]["dino"])


def test_padding__its_length_does_not_count(make_model):
    model = make_model(**LOUD, **OPTIONS).train()
    batch = make_batch()
    longer = {**batch, "source": torch.cat([batch["source"], batch["source"]], dim=2)}
    longer["padding_mask"] = column_padding(torch.tensor(COLUMNS), (16, 8))
    longer["precomputed_mask"] = batch["precomputed_mask"].repeat(1, 2)
    found, expected = model(**longer)["losses"], model(**batch)["losses"]
    torch.testing.assert_close(found["dino"], expected["dino"], rtol=1e-9, atol=1e-9)


def test_padding__long_clips_weigh_more(make_model):
    model = make_model(**LOUD, **OPTIONS)
    batch = make_batch()
    step = model.make_step(
        batch["source"], batch["source"], batch["precomputed_mask"], batch["padding_mask"]
    )
    objective = next(one for one in model.objectives if one.name == "dino")
    hidden = len(step.split.hidden_rows)
    rows = torch.arange(len(step.student), dtype=torch.float64)
    weights = step.split.lengths.hidden_share
    assert weights.max() > 1.2
    expected = 0.5 * hidden * (rows * weights).mean()
    assert objective.average(step, rows)[0].item() == pytest.approx(expected.item())


def test_dino__alone_and_with_others_is_the_same(make_model, batch):
    together = make_model(**OPTIONS).train()
    alone = make_model(**OPTIONS, cls_loss=0.0, d2v_loss=0.0).train()
    alone.load_state_dict(without_unused(together.state_dict(), alone))
    output = alone(**batch)
    assert list(output["losses"]) == ["dino"]
    torch.testing.assert_close(output["losses"]["dino"], together(**batch)["losses"]["dino"])


def without_unused(state, model):
    own = model.state_dict()
    kept = {name: value for name, value in state.items() if name in own}
    return {**kept, "_ema": {n: v for n, v in state["_ema"].items() if n in own["_ema"]}}


def test_defaults__leave_losses_and_layout_as_they_are(make_model, batch):
    model = make_model()
    assert list(model.train()(**batch)["losses"]) == ["cls", "regression"]
    assert {name: model.cfg[name] for name in default_options()} == default_options()
    assert not any(name.startswith(PARTS) for name in model.state_dict())


def test_without_parts__leaves_the_layout_of_a_model_without_them(make_model):
    state = without_parts(make_model(**OPTIONS).state_dict())
    own = make_model().state_dict()
    assert state.keys() == own.keys()
    assert state["_ema"].keys() == own["_ema"].keys()
