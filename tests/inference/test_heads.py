"""Heads on the features of all blocks: BAT's published numbers, padding, training."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eat_plugin.choices import CGP, LCGP, LINEAR
from eat_plugin.inference.head_training import Clips, Plan, make_head, score_clips, train_head
from eat_plugin.inference.heads import BlockLinears, MixtureHead, PrototypeHead
from eat_plugin.inference.tokens import SplitTokens, to_unit


@pytest.fixture(scope="module")
def numbers(shared):
    """Published numbers; patches [B, n, blocks, D] and CLS [B, blocks, D] of the teacher."""
    found = torch.load(shared / "golden" / "bat_tiny.pt", weights_only=True)
    patches = found["teacher_layers"].permute(1, 2, 0, 3)
    return {**found, "patches": patches, "whole": found["layer_cls"].transpose(0, 1)}


def load(head, numbers, name):
    head.load_state_dict(numbers[name]["state"])
    return head.eval()


def test_prototypes__golden(numbers):
    head = load(PrototypeHead(3, 48, 5, 20), numbers, "cgp")
    whole, patches = (F.normalize(numbers[name], dim=-1) for name in ("whole", "patches"))
    found = head(whole, patches)
    torch.testing.assert_close(found, numbers["cgp"]["logits"], atol=1e-5, rtol=0)
    padded = torch.cat([patches, 10 * patches[:, :4]], dim=1)
    padding = (torch.arange(100) >= 96).expand(2, 100)
    torch.testing.assert_close(head(whole, padded, padding), found)
    assert not torch.allclose(head(whole, padded), found)


def test_prototypes__of_frames_golden(numbers):
    head = load(PrototypeHead(3, 48, 5, 20), numbers, "cgp_frames")
    grid = F.normalize(numbers["patches"], dim=-1).unflatten(1, (12, 8))
    found = head.score_frames(grid)
    torch.testing.assert_close(found, numbers["cgp_frames"]["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lcgp", "lcgp_mean"])
def test_mixture__golden(numbers, name):
    head = load(MixtureHead(3, 48, 5), numbers, name)
    whole = numbers["whole"] if name == "lcgp" else numbers["patches"].mean(dim=1)
    torch.testing.assert_close(head(whole), numbers[name]["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("clips", "prototypes", "updates"),
    [(20_550, 10_000, 20_000), (320, 160, 1_000), (5_000, 2_500, 5_000), (10, 20, 1_000)],
)
def test_plan__by_the_number_of_clips(clips, prototypes, updates):
    assert Plan.choose(CGP, clips, None, None, 0) == (CGP, prototypes, updates, 0)
    assert Plan.choose(LCGP, clips, None, None, 0).prototypes == 0
    assert Plan.choose(CGP, clips, 7, 9, 3) == (CGP, 7, 9, 3)


class Parts:
    """Patches in memory."""

    def __init__(self, parts):
        self.parts = parts

    def take(self, numbers):
        return [self.parts[number] for number in numbers]


def make_clips(single=True):
    """60 clips of 3 blocks; only the second block, or one of its patches, knows the class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 60)
    whole = rng.normal(0, 1, (60, 3, 8)).astype(np.float32)
    whole[np.arange(60), 1, classes] += 6
    parts = []
    for each in classes:
        part = rng.normal(0, 1, (rng.integers(3, 6), 3, 8))
        part[1, 1, each] += 9  # in one patch
        parts.append(to_unit(part).astype("<f2"))
    targets = np.eye(3)[classes]
    if not single:
        targets[:, 2] = 1 - targets[:, 2]
    tokens = SplitTokens(list(range(60)), whole, Parts(parts), {})
    return Clips(tokens, torch.device("cpu")), targets


def fit(head, seed=0, updates=300, single=True):
    clips, targets = make_clips(single)
    plan = Plan(head, 6, updates, seed)
    made = make_head(plan, 3, 8, 3)
    losses = list(train_head(made, clips, targets, plan, single))
    return made, losses, score_clips(made, clips, single), targets


@pytest.mark.parametrize(("name", "single"), [(CGP, True), (LCGP, False)])
def test_train_head__finds_the_block_that_knows(name, single):
    head, losses, scores, targets = fit(name, single=single)
    assert int(head.weights.argmax()) == 1
    assert losses[-1] < 0.8 * losses[0]
    assert ((scores > 0.5) == targets).mean() > 0.9
    assert np.isclose(scores.sum(axis=1), 1).all() == single


def test_train_head__each_block_learns_as_if_alone():
    head, _, scores, targets = fit(LINEAR)
    assert isinstance(head, BlockLinears)
    right = (scores.argmax(axis=2) == targets.argmax(axis=1)).mean(axis=1)
    assert right[1] > 0.85
    assert max(right[0], right[2]) < 0.7


def test_train_head__is_the_same_for_a_seed_and_leaves_the_callers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (fit(CGP, seed, 5)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.items():
        assert torch.equal(value, again[name])
    assert not torch.equal(first["prototype_vectors"], other["prototype_vectors"])


def test_train_head__drops_a_fifth_in_training_alone():
    head = MixtureHead(2, 400, 400)
    torch.nn.init.eye_(head.fc.weight)
    torch.nn.init.zeros_(head.fc.bias)
    found = head.train()(torch.ones(1, 2, 400))
    assert 0.1 < float((found == 0).float().mean()) < 0.3
    assert torch.equal(head.eval()(torch.ones(1, 2, 400)), torch.ones(1, 400))
