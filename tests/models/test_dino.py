"""DINO with prototypes: assignment, cross-entropy, temperature and head by hand; it learns."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.models.dino import (
    DinoHead,
    assign,
    cross_entropy,
    measure_entropy,
    standardize,
    teacher_temperature,
)

DINO = {"dino_loss": 0.5, "dino_prototypes": 8, "cls_target": "layers"}


def test_assign__balances_prototypes_and_sums_to_one():
    cosines = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cosines[:, 0] += 1  # all clips prefer one prototype
    assigned = assign(cosines, 0.5)
    assert torch.allclose(assigned.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(assigned.sum(dim=0), torch.full((3,), 2.0).double(), atol=0.05)
    # One step by hand: prototypes are equal first, then clips.
    expected = ((cosines - 1) / 0.5).exp()
    for _ in range(3):
        expected = expected / expected.sum(dim=0, keepdim=True)
        expected = expected / expected.sum(dim=1, keepdim=True)
    assert torch.allclose(assigned, expected)


def test_assign__small_temperature_is_sharp_and_finite():
    assigned = assign(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), 0.04)
    assert torch.allclose(assigned, torch.eye(2), atol=1e-6)
    assert torch.equal(assign(torch.full((2, 4), -1.0), 0.04), torch.full((2, 4), 0.25))


def test_cross_entropy__by_hand():
    cosines = torch.tensor([[0.1, 0.0], [0.0, 0.3], [0.0, 0.0], [0.2, 0.0]]).double()
    assigned = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).double()
    losses = cross_entropy(cosines, assigned)  # two clones a clip

    def log_prob(logit, other):
        return logit - math.log(math.exp(logit) + math.exp(other))

    expected = [
        -log_prob(1, 0),
        -log_prob(0, 3),
        math.log(2),
        -(0.25 * log_prob(2, 0) + 0.75 * log_prob(0, 2)),
    ]
    assert losses.tolist() == pytest.approx(expected)


def test_measure_entropy__by_hand():
    found = measure_entropy(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]))
    assert found["dino_entropy"].item() == pytest.approx(math.log(2) / 2)
    expected = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    assert found["dino_entropy_of_mean"].item() == pytest.approx(expected)
    assert found["dino_log_prototypes"].item() == pytest.approx(math.log(4))


def test_temperature__rises_over_a_share_of_the_run(make_model):
    cfg = make_model(max_update=100).cfg
    found = [teacher_temperature(cfg, update) for update in (0, 15, 30, 99)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    cfg.max_update = 0  # a run that max_epoch ends
    assert teacher_temperature(cfg, 0) == 0.07


def test_standardize__mean_0_and_variance_1_across_rows():
    x = torch.randn(9, 4, dtype=torch.float64) * 3 + 100
    found = standardize(x)
    assert torch.allclose(found.mean(dim=0), torch.zeros(4).double(), atol=1e-9)
    assert torch.allclose(found.var(dim=0, unbiased=False), torch.ones(4).double(), atol=1e-4)
    assert torch.equal(standardize(torch.ones(1, 4)), torch.zeros(1, 4))


def test_head__gives_cosines():
    torch.manual_seed(0)
    head, x = DinoHead(6, 5).double(), torch.randn(7, 6, dtype=torch.float64)
    found = head(x)
    embedded = head.mlp(standardize(x))
    for row, column in ((0, 0), (6, 4)):
        expected = F.cosine_similarity(embedded[row], head.prototypes[column], dim=0)
        assert found[row, column].item() == pytest.approx(expected.item())
    with torch.no_grad():
        head.prototypes.mul_(3)
    assert torch.allclose(head(x), found)


def test_loss__is_the_mean_cross_entropy_times_hidden_patches(make_model, batch):
    model = make_model(**DINO).train()
    step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
    assigned = assign(model.teacher.parts["dino_head"](step.utterance_target), 0.04)
    cosines = model.dino_head(step.student[:, 0])
    log_probs = (cosines / 0.1).log_softmax(1)
    rows = [-(assigned[row // 3] * log_probs[row]).sum() for row in range(6)]
    output = model(**batch)
    expected = 0.5 * output["sample_size"] * torch.stack(rows).mean()
    assert output["losses"]["dino"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert output["loss_items"]["dino"] == output["sample_size"]
    assert output["dino_log_prototypes"].item() == pytest.approx(math.log(8))


def test_teacher__head_is_averaged_saved_and_without_gradient(make_model, batch):
    model = make_model(**DINO, ema_decay=0.5, ema_end_decay=0.5).train()
    head = model.teacher.parts["dino_head"]
    before = copy.deepcopy(model.dino_head.state_dict())
    with torch.no_grad():
        for parameter in model.dino_head.parameters():
            parameter.add_(1.0)
    model.set_num_updates(1)
    for name, value in head.state_dict().items():
        assert torch.allclose(value, before[name] + 0.5), name
        assert torch.equal(model.state_dict()["_ema"][f"dino_head.{name}"], value)
    model(**batch)["losses"]["dino"].backward()
    assert model.dino_head.prototypes.grad.abs().sum() > 0
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in head.parameters())
    other = make_model(**DINO).train()
    other.load_state_dict(model.state_dict())
    other.set_num_updates(0)
    assert torch.equal(other.teacher.parts["dino_head"].prototypes, head.prototypes)


@pytest.mark.parametrize("encoder_only", [False, True])
def test_teacher__averages_the_head_with_blocks_alone_too(make_model, encoder_only):
    model = make_model(**DINO, ema_encoder_only=encoder_only, ema_decay=0.5, ema_end_decay=0.5)
    names = set(model.state_dict()["_ema"])
    assert {"dino_head.prototypes", "dino_head.mlp.0.weight"} <= names
    assert ("0.norm1.bias" in names) == encoder_only
    with torch.no_grad():
        model.dino_head.mlp[0].bias.add_(1.0)
    model.train().set_num_updates(1)
    assert model.teacher.parts["dino_head"].mlp[0].bias.tolist() == pytest.approx([0.5] * 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision__averages_stay_float32(make_model, batch, dtype):
    model = make_model(**DINO, ema_decay=0.999, ema_end_decay=0.999).float().to(dtype).train()
    assert model.teacher.averages["dino_head.prototypes"].dtype == torch.float32
    assert model.teacher.parts["dino_head"].prototypes.dtype == dtype
    output = model(batch["source"].to(dtype), precomputed_mask=batch["precomputed_mask"])
    assert output["losses"]["dino"].dtype == torch.float32
    assert output["losses"]["dino"].isfinite()


def test_off__adds_nothing_and_on_leaves_the_published_initial_values(make_model):
    without, with_dino = make_model(), make_model(**DINO)
    assert not any("dino" in name for name in without.state_dict())
    assert without.teacher.parts == {}
    for name, value in without.named_parameters():
        assert torch.equal(with_dino.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls_target": "targets"}, "cls_target is 'targets'; for model.dino_loss choose layers"),
        ({"dino_prototypes": 1}, "model.dino_prototypes is 1; it must be 2 or more"),
        ({"modalities__image__num_extra_tokens": 0, "cls_loss": 0.0}, "dino_loss=0.5. needs a CLS"),
    ],
)
def test_validation__names_the_option(make_model, changes, message):
    with pytest.raises(ValueError, match=message):
        make_model(**{**DINO, **changes})


def train(model, name, clips, updates, rate):
    """Train on one loss, divided by its number of items; return the last values."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate)
    losses = []
    for update in range(updates):
        model.set_num_updates(update)
        output = model(clips)
        loss = output["losses"][name].sum() / output["loss_items"][name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-5:]) / 5, output


@pytest.mark.parametrize("target", ["layers", "last", "cls"])
def test_training__falls_below_a_uniform_prediction_and_the_published_form_does_not(
    make_model, target
):
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(8, 1, 1, 128, generator=generator)
    clips = spectra + 0.5 * torch.randn(8, 1, 64, 128, generator=generator)
    options = {"d2v_loss": 0.0, "max_update": 30, "ema_decay": 0.999, "ema_end_decay": 0.999}
    model = make_model(
        **options, cls_loss=0.0, dino_loss=1.0, dino_prototypes=64, cls_target=target
    )
    loss, output = train(model.float(), "dino", clips, 30, 1e-3)
    assert loss < math.log(64) - 0.4
    assert output["dino_entropy"] < math.log(64) - 0.5
    assert output["dino_entropy_of_mean"] > math.log(64) - 0.1
    published = make_model(**options, utterance_level=True, init_center_token_zero=True)
    loss, _ = train(published.float(), "cls", clips, 30, 1e-3)
    assert loss > math.log(32) - 0.1
