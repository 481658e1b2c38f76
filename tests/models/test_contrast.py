"""NT-Xent between clones, by hand; gradients to every clone and none to the teacher."""

import math

import pytest
import torch

from eat_plugin.models.contrast import nt_xent
from eat_plugin.modules.processes import gather_rows

UNIT = torch.nn.functional.normalize


def by_hand(rows, clones, row):
    """The loss of one clone, pair by pair."""
    clip, losses = row // clones, []
    others = [n for n in range(len(rows)) if n // clones != clip]
    for positive in range(clip * clones, (clip + 1) * clones):
        if positive != row:
            score = math.exp(float(rows[row] @ rows[positive]) / 0.1)
            rest = sum(math.exp(float(rows[row] @ rows[n]) / 0.1) for n in others)
            losses.append(-math.log(score / (score + rest)))
    return sum(losses) / len(losses)


def test_nt_xent__by_hand():
    rows = UNIT(torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for clones in (2, 3):
        found = nt_xent(rows, rows, 0, clones)
        assert found.tolist() == pytest.approx([by_hand(rows, clones, n) for n in range(6)])


def test_nt_xent__counts_rows_of_other_processes():
    rows = UNIT(torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    whole = nt_xent(rows, rows, 0, 2)
    assert torch.allclose(nt_xent(rows[2:6], rows, 2, 2), whole[2:6])


def test_nt_xent__single_clip_is_0_with_a_finite_gradient():
    rows = torch.eye(3, requires_grad=True)
    loss = nt_xent(rows, rows, 0, 3)
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert not rows.grad.any()


def test_loss__of_the_model(make_model, batch):
    model = make_model(contrast_loss=0.3).train()
    step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
    rows = UNIT(model.contrast_head(step.student[:, 0]))
    assert rows.shape == (6, 128)
    expected = nt_xent(rows, *gather_rows(rows), 3).mean()
    output = model(**batch)
    total = output["losses"]["contrast"]
    assert total.item() == pytest.approx(0.3 * output["sample_size"] * expected.item())
    assert output["loss_items"]["contrast"] == output["sample_size"]
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.contrast_head.parameters())
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert not any("contrast" in name for name in model.state_dict()["_ema"])
    assert all(p.grad is None for p in model.teacher.module.parameters())


def test_training__tells_clips_apart(make_model, batch):
    model = make_model(contrast_loss=1.0, d2v_loss=0.0, cls_loss=0.0).train()
    assert model.patch_encoder.decoder is None
    assert not model.teacher.makes_clip_targets
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        output = model(**batch)
        loss = output["losses"]["contrast"] / output["sample_size"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.5


def test_validation__needs_two_clones(make_model):
    with pytest.raises(ValueError, match="clone_batch is 1; model.contrast_loss needs 2 or more"):
        make_model(contrast_loss=1.0, clone_batch=1)
