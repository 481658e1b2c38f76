"""Variance and covariance across clips, by hand."""

import pytest
import torch

from eat_plugin.models.vicreg import vary_and_decorrelate


def test_terms__by_hand():
    # One clone: channels 0 and 1 vary alike by 0.5, channel 2 by 3.
    x = torch.tensor([[-0.5, 1.5, 0.0], [0.5, 2.5, 0.0], [0.0, 2.0, 3.0]]).double().unsqueeze(1)
    variance, covariance = vary_and_decorrelate(x)
    deviations = (x[:, 0].var(dim=0) + 1e-4).sqrt()
    assert deviations.tolist() == pytest.approx([0.5, 0.5, 3**0.5], rel=1e-3)
    assert variance.item() == pytest.approx((1 - deviations[:2]).sum().item() / 3)
    matrix = torch.cov(x[:, 0].T)
    off = matrix.square().sum() - matrix.diagonal().square().sum()
    assert off > 0.1
    assert covariance.item() == pytest.approx(off.item() / 3)


def test_terms__are_means_over_clones_not_across_them():
    x = torch.randn(5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    both = vary_and_decorrelate(x + torch.tensor([[[0.0]], [[100.0]]]).view(1, 2, 1))
    alone = [vary_and_decorrelate(x[:, k : k + 1]) for k in range(2)]
    for term in range(2):
        mean = (alone[0][term] + alone[1][term]) / 2
        assert both[term].item() == pytest.approx(mean.item())


def test_terms__single_clip_is_0_with_a_gradient():
    x = torch.randn(1, 3, 4, requires_grad=True)
    terms = vary_and_decorrelate(x)
    assert [term.item() for term in terms] == [0, 0]
    sum(terms).backward()
    assert not x.grad.any()


def test_loss__of_the_model(make_model, batch):
    model = make_model(vicreg_loss=0.3).train()
    step = model.make_step(batch["source"], batch["source"], batch["precomputed_mask"])
    variance, covariance = vary_and_decorrelate(step.student[:, 0].view(2, 3, 32))
    expected = 0.3 * (variance + covariance / 25)
    output = model(**batch)
    total = output["losses"]["vicreg"]
    assert total.item() == pytest.approx(output["sample_size"] * expected.item())
    assert output["loss_items"]["vicreg"] == output["sample_size"]
    total.backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.module.parameters())


def test_training__raises_the_variance(make_model, batch):
    model = make_model(vicreg_loss=1.0, d2v_loss=0.0, cls_loss=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        output = model(**batch)
        loss = output["losses"]["vicreg"] / output["sample_size"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_validation__needs_cls(make_model):
    with pytest.raises(ValueError, match="vicreg_loss=1.0. needs a CLS token"):
        make_model(vicreg_loss=1.0, cls_loss=0.0, modalities__image__num_extra_tokens=0)
