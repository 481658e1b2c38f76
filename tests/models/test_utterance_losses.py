"""What the losses of whole clips have in common."""

import math

import pytest
import torch

from eat_plugin.models.utterance_options import PARTS, default_options, without_parts
from eat_plugin.modules.patches import column_padding
from tests.models.test_padding import COLUMNS, LOUD, make_batch

OPTIONS = {
    "cls_target": "layers", "dino_loss": 0.5, "dino_prototypes": 8, "contrast_loss": 0.4,
    "vicreg_loss": 0.3, "koleo_loss": 0.2,
}  # fmt: skip
NAMES = ("dino", "contrast", "vicreg", "koleo")


@pytest.mark.parametrize("garbage", [math.nan, 1e6])
def test_padding__its_content_does_not_count(make_model, garbage):
    model = make_model(**LOUD, **OPTIONS).train()
    clean, dirty = model(**make_batch()), model(**make_batch(garbage))
    for name in NAMES:
        assert torch.equal(clean["losses"][name], dirty["losses"][name]), name


def test_padding__its_length_does_not_count(make_model):
    model = make_model(**LOUD, **OPTIONS).train()
    batch = make_batch()
    longer = {**batch, "source": torch.cat([batch["source"], batch["source"]], dim=2)}
    longer["padding_mask"] = column_padding(torch.tensor(COLUMNS), (16, 8))
    longer["precomputed_mask"] = batch["precomputed_mask"].repeat(1, 2)
    found, expected = model(**longer)["losses"], model(**batch)["losses"]
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


def test_padding__long_clips_weigh_more(make_model):
    model = make_model(**LOUD, **OPTIONS)
    batch = make_batch()
    step = model.make_step(
        batch["source"], batch["source"], batch["precomputed_mask"], batch["padding_mask"]
    )
    objective = next(one for one in model.objectives if one.name == "contrast")
    hidden = len(step.split.hidden_rows)
    rows = torch.arange(len(step.student), dtype=torch.float64)
    weights = step.split.lengths.hidden_share
    assert weights.max() > 1.2
    expected = 0.4 * hidden * (rows * weights).mean()
    assert objective.average(step, rows)[0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", NAMES)
def test_losses__alone_and_together_are_the_same(make_model, batch, name):
    together = make_model(**OPTIONS).train()
    off = {f"{other}_loss": 0.0 for other in (*NAMES, "cls", "d2v") if other != name}
    alone = make_model(**{**OPTIONS, **off}).train()
    alone.load_state_dict(without_unused(together.state_dict(), alone))
    output = alone(**batch)
    assert list(output["losses"]) == [name]
    torch.testing.assert_close(output["losses"][name], together(**batch)["losses"][name])


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
