"""Feature extraction and fine-tuning: plain and our forms have equal results."""

import pytest
import torch

from benchmarks import encoding, training
from benchmarks.encoding import FineTuning, make_classifier
from benchmarks.plain_encoding import PlainFineTuning
from benchmarks.timing import Place, compare
from tests.versions import half_on_cpu

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 2}
CPU = torch.device("cpu")


class HalfPlace(Place):
    dtype = torch.bfloat16


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(training.SIZES, "base", SMALL)
    for name in ("FRAMES", "ESC_FRAMES"):
        monkeypatch.setattr(encoding, name, 64)


@pytest.mark.parametrize("name", encoding.CASES)
def test_case__both_forms_agree(name, tmp_path):
    case = encoding.CASES[name](Place(tmp_path, CPU))
    assert case.clips == int(name.split("_")[1])
    got = compare(name, case, 1, CPU)
    assert got.difference < 1e-5
    assert torch.as_tensor(case.ours.first).abs().max() > 0


@half_on_cpu
def test_case__has_the_precision_of_its_place(tmp_path):
    case = encoding.CASES["features_1"](HalfPlace(tmp_path, CPU))
    assert case.what == "features base: 1 x 10 s, bfloat16"
    assert case.plain().dtype == case.ours().dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "maker"), [("features_1", "make_model"), ("finetune_1", "make_classifier")]
)
def test_case__compiles_ours_only(name, maker, tmp_path, monkeypatch):
    make, made = getattr(encoding, maker), []

    def note(options, frames):
        made.append(options.get("compile", False))
        return make(options, frames)

    monkeypatch.setattr(encoding, maker, note)
    case = encoding.CASES[name](Place(tmp_path, CPU, compile=True))
    case.plain.prepare()
    assert made == [False]
    case.ours.prepare()
    assert made == [False, True]


def test_fine_tuning__plain_and_ours_have_equal_losses():
    model = make_classifier(SMALL, 64).double()
    plain = PlainFineTuning(model, 1e-3, None)
    ours = FineTuning(model, 1e-3, None)
    generator = torch.Generator().manual_seed(1)
    label = torch.eye(50, dtype=torch.float64)[:3]
    source = torch.randn(3, 1, 64, 128, generator=generator, dtype=torch.float64)
    losses = []
    for _ in range(10):
        expected = plain.step(source, label)
        losses.append(ours.step(source, label))
        assert losses[-1] == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < 0.9 * losses[0]


def test_fine_tuning__learning_rates_decrease_towards_the_input():
    plain = PlainFineTuning(make_classifier(SMALL, 64), 1.0, None)
    rates = {id(p): group["lr"] for group in plain.optimizer.param_groups for p in group["params"]}
    blocks = plain.model.model.blocks
    assert rates[id(plain.model.head.weight)] == 1
    assert rates[id(blocks[1].attn.qkv.weight)] == pytest.approx(0.65)
    assert rates[id(blocks[0].attn.qkv.weight)] == pytest.approx(0.65**2)


@half_on_cpu
def test_plain_fine_tuning__float32_copies_keep_learning_rates():
    plain = PlainFineTuning(make_classifier(SMALL, 64), 1e-3, 4.0, dtype=torch.bfloat16)
    groups = plain.optimizer.param_groups
    assert {p.dtype for group in groups for p in group["params"]} == {torch.float32}
    assert len(groups) == 3
    before = plain.model.head.weight.clone()
    source, label = torch.randn(2, 1, 64, 128), torch.eye(50)[:2]
    plain.step(source, label)
    assert before.dtype == torch.bfloat16
    assert not torch.equal(before, plain.model.head.weight)
