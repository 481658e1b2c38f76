"""Loss terms by hand arithmetic."""

import math

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.losses import (
    asymmetric_loss,
    average_layers,
    dino_loss,
    normalize_patches,
    regression_loss,
    restore_patches,
)


def test_regression_loss__is_the_scaled_squared_error():
    prediction = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    target = torch.tensor([[0.0, 2.0, 3.0, 2.0]])
    expected = torch.tensor([[1.0, 0.0, 9.0, 4.0]]) / 2  # 1 / sqrt(4)
    assert torch.equal(regression_loss(prediction, target), expected)
    assert torch.equal(regression_loss(prediction, target, scale=0.1), expected * 2 * 0.1)


def test_regression_loss__beta_makes_it_linear_for_large_errors():
    prediction = torch.tensor([[1.0, 4.0, 0.0, 0.0]])
    loss = regression_loss(prediction, torch.zeros(1, 4), beta=2.0, scale=1.0)
    # |error| < 2: error^2 / (2 * 2); else |error| - 2 / 2.
    assert torch.allclose(loss, torch.tensor([[0.25, 3.0, 0.0, 0.0]]))


def test_regression_loss__computes_in_float32():
    half = torch.tensor([[300.0, 0.0]], dtype=torch.float16)
    loss = regression_loss(half, torch.zeros(1, 2, dtype=torch.float16))
    assert loss.dtype == torch.float32
    assert loss[0, 0].item() == pytest.approx(90000 / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_regression_loss__gradient(dtype):
    torch.manual_seed(0)
    prediction = torch.randn(5, 4).to(dtype).requires_grad_()
    target = torch.randn(5, 4, dtype=torch.promote_types(dtype, torch.float32))
    weights = torch.rand(5, 4, dtype=target.dtype)
    (regression_loss(prediction, target, scale=0.3) * weights).sum().backward()
    expected = 2 * 0.3 * weights * (prediction.detach().to(target.dtype) - target)
    assert prediction.grad.dtype == dtype
    torch.testing.assert_close(prediction.grad, expected.to(dtype))


def test_regression_loss__does_not_change_its_arguments():
    prediction, target = torch.ones(2, 4, requires_grad=True), torch.zeros(2, 4)
    regression_loss(prediction, target).sum().backward()
    assert torch.equal(prediction, torch.ones(2, 4))
    assert not target.any()


def test_dino_loss__by_hand():
    logits = torch.tensor([[0.0, math.log(3.0) * 0.1]])  # / 0.1 -> probabilities 1/4, 3/4
    target = torch.tensor([[0.5 + math.log(2.0) * 0.05, 0.25]])
    centre = torch.tensor([[0.5, 0.25]])  # (target - centre) / 0.05 -> probabilities 2/3, 1/3
    loss = dino_loss(logits, target, centre, 0.1, 0.05)
    expected = -(2 / 3 * math.log(1 / 4) + 1 / 3 * math.log(3 / 4))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_dino_loss__is_a_mean_over_rows():
    logits, target, centre = torch.randn(3, 5), torch.randn(3, 5), torch.zeros(1, 5)
    rows = [dino_loss(logits[i : i + 1], target[i : i + 1], centre, 0.1, 0.05) for i in range(3)]
    whole = dino_loss(logits, target, centre, 0.1, 0.05)
    assert whole.item() == pytest.approx(sum(rows).item() / 3, rel=1e-5)


def test_normalize_patches__by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    # mean 3, unbiased variance (4 + 1 + 0 + 9) / 3
    expected = torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / math.sqrt(14 / 3 + 1e-6)
    assert torch.allclose(normalize_patches(values), expected)


def test_restore_patches__inverts_the_normalisation():
    values = 3 + 2 * torch.randn(5, 16)
    assert torch.allclose(restore_patches(normalize_patches(values), values), values, atol=1e-5)


LAYERS = [torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [2.0, 8.0]]])]


def test_average_layers__plain_is_the_mean():
    assert torch.equal(average_layers(LAYERS), torch.tensor([[[0.5, 1.0], [2.5, 6.0]]]))


@pytest.mark.parametrize("option", ["instance_norm_layer", "batch_norm_layer", "instance_norm"])
def test_average_layers__normalises_over_patches(option):
    # One clip of two patches: each channel becomes -1, 1 (up to eps), in every layer.
    result = average_layers(LAYERS, **{option: True})
    assert torch.allclose(result, torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]]), atol=1e-4)


def test_average_layers__batch_norm_spans_the_batch():
    layer = torch.tensor([[[0.0], [0.0]], [[2.0], [2.0]]])
    assert torch.allclose(
        average_layers([layer], batch_norm_layer=True),
        torch.tensor([[[-1.0], [-1.0]], [[1.0], [1.0]]]),
        atol=1e-4,
    )
    assert torch.allclose(
        average_layers([layer], instance_norm_layer=True), torch.zeros(2, 2, 1), atol=1e-4
    )


@pytest.mark.parametrize("option", ["layer_norm_layer", "layer_norm"])
def test_average_layers__normalises_over_width(option):
    result = average_layers([torch.tensor([[[1.0, 3.0], [10.0, 4.0]]])], **{option: True})
    assert torch.allclose(result, torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]]), atol=1e-4)


def test_average_layers__does_not_change_the_layers():
    layers = [layer.clone() for layer in LAYERS]
    average_layers(layers, instance_norm_layer=True, layer_norm=True)
    assert all(torch.equal(a, b) for a, b in zip(layers, LAYERS))


@pytest.mark.parametrize("option", ["instance_norm_layer", "batch_norm_layer", "instance_norm"])
def test_average_layers__excludes_padding(option):
    layer = torch.tensor([[[0.0], [2.0], [50.0]]])
    padding = torch.tensor([[False, False, True]])
    result = average_layers([layer], **{option: True}, padding=padding)[0, :2]
    assert torch.allclose(result, torch.tensor([[-1.0], [1.0]]), atol=1e-4)


def test_asymmetric_loss__by_hand():
    three = math.log(3)  # probability 3/4
    logits = torch.tensor([[0.0, three, -three, -9.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 0.5, 0.0]])
    loss = asymmetric_loss(logits, targets, 4.0, 1.0, 0.05)
    present = [-0.5 * math.log(0.5), -0.75 * math.log(0.25)]
    absent = [-(p**4) * math.log(1 - p) for p in (0.7, 0.2)]
    expected = [present[0], absent[0], (present[1] + absent[1]) / 2, 0.0]
    assert loss[0].tolist() == pytest.approx(expected)
    loss.sum().backward()
    assert logits.grad[0, 3] == 0  # below the shift
    plain = asymmetric_loss(logits, targets, 0.0, 0.0, 0.0)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(plain, entropy)
    assert asymmetric_loss(torch.tensor([[99.0]]), torch.zeros(1, 1), 4.0, 1.0, 0.0).isfinite()


def test_dino_loss__row_weights():
    rows = torch.tensor([[1.0, 2.0], [0.0, 5.0]]), torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    each = [dino_loss(*(x[i : i + 1] for x in rows), torch.zeros(1, 2), 0.5, 0.2) for i in (0, 1)]
    weighed = dino_loss(*rows, torch.zeros(1, 2), 0.5, 0.2, torch.tensor([0.5, 1.5]))
    assert weighed.item() == pytest.approx((0.5 * each[0] + 1.5 * each[1]).item() / 2)
