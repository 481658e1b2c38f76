"""Operations are counted, and do not become more with the depth of the model."""

import pytest
import torch

from eat_plugin.bench.counting import count_operations, count_update
from eat_plugin.bench.training import make_model
from tests.versions import fused_on_cpu

SMALL = {"embed_dim": 16, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 2}


def test_count__leaves_out_what_computes_nothing():
    x = torch.arange(6.0)

    def views():
        y = torch.empty_like(x).new_empty(3)
        return y.detach().view(3, 1).T, x.view(2, 3)[0].data.split([1, 2]), x.as_strided((2,), (1,))

    assert count_operations(views) == 0
    assert count_operations(lambda: x.reshape(2, 3).t().add(1).mul_(2).sum()) == 3
    assert count_operations(lambda: torch.zeros(3)) > 0
    assert count_operations(lambda: torch._foreach_add_([x, x.clone()], 1)) == 2
    assert count_operations(lambda: x.sum().item()) == 2


def count(dtype, **options):
    model = make_model({**SMALL, "depth": 2, **options}, 32)
    before = [p.clone() for p in model.parameters()]
    counts = count_update(model, dtype)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    return counts


@fused_on_cpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_update__takes_few_operations_however_deep_the_model(dtype):
    (plain, ours), (plain_deep, ours_deep) = count(dtype), count(dtype, depth=6)
    assert ours == ours_deep <= 50
    assert plain_deep > 1.5 * plain > 10 * ours


def test_update__counts_the_teachers_step():
    _, without = count(torch.float32, ema_decay=1.0, ema_end_decay=1.0)
    _, ours = count(torch.float32)
    assert ours == without + 4  # average, norms of all tensors, of one row of them, of the rows
