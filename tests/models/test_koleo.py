"""KoLeo by hand: the nearest other clip, each clone with those of its number."""

import math

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.models.koleo import koleo


def unit(degrees):
    angle = math.radians(degrees)
    return [math.cos(angle), math.sin(angle)]


def chord(degrees):
    return 2 * math.sin(math.radians(degrees) / 2)


def test_koleo__by_hand():
    # Three clips at 0, 10 and 60 degrees; the second clones at 0, 90 and 200.
    x = torch.tensor([[unit(0), unit(0)], [unit(10), unit(90)], [unit(60), unit(200)]]).double()
    expected = [[chord(10), chord(90)], [chord(10), chord(90)], [chord(50), chord(110)]]
    found = koleo(x, x, 0)
    for row, distances in zip(found.tolist(), expected):
        assert row == pytest.approx([-math.log(distance) for distance in distances], abs=1e-6)


def test_koleo__counts_clips_of_other_processes():
    x = torch.randn(5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = F.normalize(x, dim=-1)
    assert torch.allclose(koleo(x[2:4], x, 2), koleo(x, x, 0)[2:4])


def test_koleo__same_or_single_clips_are_finite():
    for number in (1, 2):
        x = torch.ones(number, 3, 4, requires_grad=True)
        loss = koleo(x, x, 0)
        loss.sum().backward()
        assert loss.shape == (number, 3)
        assert loss.isfinite().all()
        assert x.grad.isfinite().all()
    assert not koleo(x[:1], x[:1], 0).any()


def test_loss__of_the_model(make_model, batch):
    model = make_model(koleo_loss=0.3).train()
    step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
    first, second = F.normalize(step.student[:, 0], dim=1).view(2, 3, 32)
    expected = -(first - second).norm(dim=1).log().mean()  # the same for both clips
    output = model(**batch)
    total = output["losses"]["koleo"]
    assert total.item() == pytest.approx(0.3 * output["sample_size"] * expected.item(), rel=1e-5)
    assert output["loss_items"]["koleo"] == output["sample_size"]
    total.backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.module.parameters())
