"""The cases that are counted: ours takes less, and the figures are those of the model asked for."""

import pytest
import torch

from eat_plugin.bench import counts, training
from eat_plugin.bench.timing import Place
from tests.versions import fused_on_cpu

SMALL = {"depth": 3, "embed_dim": 64, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 2}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(training.SIZES, "base", SMALL)
    monkeypatch.setattr(counts, "FRAMES", 128)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, torch.device("cpu"))


@fused_on_cpu
def test_operations__are_fewer_than_fairseqs(place):
    count = counts.CASES["operations"](place)
    assert count.unit == "operations"
    assert count.plain > 10 * count.ours > 0


def test_activations__are_fewer_than_the_plain_forms_and_fewer_still_if_recomputed(place):
    kept = counts.CASES["activations"](place)
    recomputed = counts.CASES["activations_gelu"](place)
    assert kept.plain > kept.ours > recomputed.ours > 0
    assert kept.what == "kept for backward of a clip x 2 clones, base, bfloat16"
    assert recomputed.what == f"{kept.what}, recompute=gelu"
    # 2 masks of 12 tokens, 3 blocks: a few tens of values of each of the 64 channels.
    assert 0.05 < kept.ours < 5
