import torch

from eat_plugin.modules.gradients import scale_gradient


def test_scale_gradient__changes_the_gradient_alone():
    x = torch.arange(3.0, requires_grad=True)
    y = scale_gradient(x, 0.25)
    assert torch.equal(y, x)
    (y * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [0.25, 0.5, 1.0]
