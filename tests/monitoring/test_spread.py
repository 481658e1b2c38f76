"""Spread of vectors: hand-made cases of healthy and collapsed ones."""

import pytest
import torch

from eat_plugin.monitoring import spread
from eat_plugin.monitoring.spread import effective_rank, measure_clips, measure_tokens


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_effective_rank__counts_directions():
    line = draw(50, 1) * torch.tensor([[1.0, 2.0, 3.0]]) + 7
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    # Singular values 2 and 1: the entropy of shares 2/3 and 1/3.
    two = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(two) == pytest.approx(3 / 4 ** (1 / 3), rel=1e-5)
    assert effective_rank(torch.ones(5, 3)) == 0
    assert effective_rank(draw(4000, 6)) == pytest.approx(6, rel=1e-2)
    assert effective_rank(draw(4, 60)) == pytest.approx(3, rel=0.1)  # fewer vectors than channels
    assert torch.isnan(effective_rank(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])))


def test_measure_tokens__tells_clips_from_positions():
    clips, positions = draw(16, 1, 8), draw(1, 20, 8, seed=1)
    same = measure_tokens(positions.expand(16, -1, -1))
    assert same["positions"] == pytest.approx(1)
    assert same["across"] == pytest.approx(0, abs=1e-6)
    assert same["variance"] > 0.5  # though it has collapsed
    other = measure_tokens(clips.expand(-1, 20, -1))
    assert other["positions"] == pytest.approx(0, abs=1e-6)
    assert other["across"] == pytest.approx(1, rel=0.1)
    both = measure_tokens(draw(400, 1, 8) + 2 * positions)
    assert both["positions"] == pytest.approx(0.8, abs=0.06)  # 4 of 4 + 1


def test_measure_tokens__few_clips_are_no_effect_of_positions():
    found = torch.stack([measure_tokens(draw(4, 50, 8, seed=n))["positions"] for n in range(9)])
    assert found.mean() < 0.05  # a quarter without the correction


def test_measure_tokens__padding_is_left_out():
    x = draw(3, 10, 4)
    padding = torch.zeros(3, 10, dtype=torch.bool)
    padding[:, 6:] = True
    short = measure_tokens(x[:, :6])
    for filling in (0.0, torch.inf):
        padded = measure_tokens(x.masked_fill(padding.unsqueeze(-1), filling), padding)
        assert {k: v.item() for k, v in padded.items()} == pytest.approx(
            {k: v.item() for k, v in short.items()}, rel=1e-5
        )


def test_measure_tokens__draws_from_many(monkeypatch):
    x = draw(20, 100, 5)
    whole = measure_tokens(x)["rank"]
    monkeypatch.setattr(spread, "MOST_TOKENS", 300)
    before = torch.get_rng_state()
    some = measure_tokens(x)["rank"]
    assert some != whole
    assert some == pytest.approx(float(whole), rel=0.02)
    assert some == measure_tokens(x)["rank"]
    assert torch.equal(torch.get_rng_state(), before)


def test_measure_clips():
    found = measure_clips(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    assert found["cosine"] == pytest.approx(-1 / 3)  # of 0, -1 and 0
    assert found["variance"] == pytest.approx((13 / 3 + 4 / 3) / 2)
    assert measure_clips(torch.ones(4, 3))["cosine"] == pytest.approx(1)
