"""Half-precision tensors as float32, in one operation."""

import torch

from benchmarks.counts import count_operations
from eat_plugin.modules.foreach import in_float32


def test_in_float32__copies_half_precision_in_one_operation():
    tensors = [torch.randn(s).bfloat16() for s in ((3, 5), (7,), (), (2, 0))]
    results = []
    assert count_operations(lambda: results.extend(in_float32(tensors))) == 1
    for given, result in zip(tensors, results):
        assert result.dtype == torch.float32
        assert torch.equal(result, given.float())
        assert result.storage_offset() % 4 == 0
    assert len({result.untyped_storage().data_ptr() for result in results}) == 1


def test_in_float32__returns_other_tensors_unchanged():
    tensors = [torch.ones(2), torch.ones(3).half(), torch.ones(2).double()]
    results = in_float32(tensors)
    assert results[0] is tensors[0]
    assert results[2] is tensors[2]
    assert results[1].dtype == torch.float32
    assert results[1].tolist() == [1, 1, 1]
    assert in_float32([]) == []


def test_in_float32__memory_layout():
    given = torch.randn(2, 3, 4, 4).bfloat16()
    layout = torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last)
    (result,) = in_float32([given], like=[layout])
    assert result.stride() == layout.stride()
    assert torch.equal(result, given.float())
