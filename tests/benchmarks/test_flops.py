"""FLOPs equal PyTorch's count; the tables equal those of the docs."""

import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops
from benchmarks.flops import BUCKET, LATENCY, all_reduce_seconds, most_nodes
from benchmarks.training import load_config, make_model
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.models.eat import EatModel
from eat_plugin.models.flops import count_flops, update_flops

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = pytest.importorskip("torch.nn.attention")  # of PyTorch 2.3
SMALL = {
    "depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3,
    "convolution": "channels_last",
}  # fmt: skip
GRID, CLIPS = (8, 8), 2
PAPER = lru_cache(flops.Paper)  # each builds a model


@pytest.mark.parametrize("sides", [[16, 128], [16, 64], [16, 32]])
@pytest.mark.parametrize("kernel", [3, 4])
def test_count_flops__two_sides(monkeypatch, sides, kernel):
    monkeypatch.setitem(globals(), "GRID", (8, 128 // sides[1]))
    decoder = {"decoder_groups": 1, "decoder_kernel": kernel}
    model = small_model({"patch_size": sides, "decoder": decoder}, recon_loss=1.0)
    assert on_paper(model) == counted_by_pytorch(model)


def small_model(image=None, **options):
    cfg = make_model({**SMALL, **options}, 128).cfg
    cfg.modalities.image = OmegaConf.merge(cfg.modalities.image, image or {})
    return EatModel(cfg).train()


def counted_by_pytorch(model):
    """FLOPs of a forward pass, and of forward and backward; PyTorch counts MATH attention only."""
    source = torch.randn(CLIPS, 1, 128, 128)
    spec = MaskSpec.from_options(model.patch_encoder.cfg, GRID)
    mask = draw_masks(spec, CLIPS * model.cfg.clone_batch)
    counter = FlopCounterMode(display=False)
    with counter, ATTENTION.sdpa_kernel(ATTENTION.SDPBackend.MATH):
        losses = model(source, precomputed_mask=mask, num_visible=spec.num_visible)["losses"]
        forward = counter.get_total_flops()
        torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
    return forward, counter.get_total_flops()


def on_paper(model):
    """The same numbers from `count_flops`."""
    forward, backward = zip(*count_flops(model.cfg, GRID).values())
    return CLIPS * sum(forward), CLIPS * (sum(forward) + sum(backward))


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ({}, {}),
        ({"cls_loss": 0.0, "recon_loss": 1.0}, {"decoder": {"decoder_dim": 64}}),
        ({"utterance_level": True}, {"mask_prob": 0.6, "decoder": {"decoder_layers": 0}}),
        ({"d2v_loss": 0.0}, {"embed_dim": 48}),
        ({"ema_encoder_only": True, "mlp_ratio": 2.0}, {"decoder": {"decoder_kernel": 4}}),
        ({}, {"local_grad_mult": 0.0, "decoder": {"decoder_kernel": 5}}),
        ({"attention_gate": True}, {"decoder": {"decoder_kind": "vit"}}),
        (
            {"recon_loss": 1.0},
            {
                "decoder": {
                    "decoder_kind": "vit",
                    "decoder_dim": 48,
                    "decoder_layers": 3,
                    "decoder_mlp_ratio": 2.0,
                    "hidden_share": 0.4,
                }
            },
        ),
    ],
)
def test_count_flops__equals_pytorchs_count(options, image):
    decoder = {"decoder_groups": 1, **image.pop("decoder", {})}
    model = small_model({**image, "decoder": decoder}, **options)
    counted = counted_by_pytorch(model)
    assert on_paper(model) == counted
    assert CLIPS * update_flops(model.cfg, GRID) == counted[1]


@pytest.mark.parametrize(("share", "tolerance"), [(1.0, 0), (0.5, 0.005)])
def test_count_flops__of_a_second_stage(share, tolerance):
    model = small_model({"decoder": {"decoder_groups": 1}}, retention_loss=1.0, mixed_share=share)
    assert on_paper(model) == pytest.approx(counted_by_pytorch(model), rel=tolerance)


def test_count_flops__groups_differ_by_pytorchs_miscount():
    model = small_model()
    forward, update = counted_by_pytorch(model)
    expected = on_paper(model)
    assert expected[0] == forward
    # For the gradient of the weights PyTorch's counter ignores the groups.
    convolutions = 6 * CLIPS * 3 * 64 * 2 * 9 * (32 // 16) * 32
    assert expected[1] + (16 - 1) * convolutions == update


def test_update_flops__base_hand_computed():
    width, tokens, positions = 768, 16 * (102 + 1), 16 * 512
    block = 2 * 12 * width**2  # 4 D^2 of attention, 8 D^2 of the MLP
    student = 12 * (tokens * block + 16 * 4 * 103**2 * width)
    teacher = 12 * (513 * block + 4 * 513**2 * width)
    decoder = 6 * positions * 2 * 9 * (width // 16) * width + 16 * 410 * 2 * width**2
    embedding = 512 * 2 * 256 * width
    # The embedding: forward and weights of the student, forward of the teacher.
    expected = 3 * (student + decoder) + teacher + 3 * embedding
    assert update_flops(load_config("base").model, (64, 8)) == expected


@pytest.mark.parametrize(("size", "number"), [("base", 87_840_000), ("large", 308_543_488)])
def test_count_trained__of_published_sizes(size, number):
    assert flops.count_trained(load_config(size).model) == number


def test_all_reduce__hand_computed():
    size = 2 * BUCKET
    # Four GPUs: three steps to add, three to distribute, each of a quarter.
    expected = 6 * (size / 4 / 1e9 + 2 * LATENCY)
    assert all_reduce_seconds(size, 4, 1e9) == pytest.approx(expected)
    assert all_reduce_seconds(size, 1, 1e9) == 0


def test_most_nodes__largest_number_within_the_time():
    seconds = all_reduce_seconds(1e8, 5 * 8, 1e10)
    assert most_nodes(1e8, 1e10, seconds) == 5
    assert most_nodes(1e8, 1e10, 0.999 * seconds) == 4
    assert most_nodes(1e8, 1e10, 0) == 1
    assert most_nodes(0, 1e10, 1) == 1000


def test_main__has_no_rates_for_large(capsys, monkeypatch):
    monkeypatch.setattr(flops, "Paper", PAPER)
    assert flops.main(["--size", "large"]) == 0
    assert "GPU-hours" not in capsys.readouterr().out
    assert flops.main(["--size", "large", "--rates", "100", "--loader", "a b=2.5"]) == 0
    printed = capsys.readouterr().out
    assert "| 100 | 53.3 | 45 % |" in printed  # 400,000 x 48 clips / 100 / 3600; 4.435e14 / 989e12
    assert "| clips/s of a GPU | a b |\n| --- | --- |\n| 100 | 0.25 |" in printed


DOCS = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python -m benchmarks\.flops(.*)$", DOCS, re.MULTILINE)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_docs__tables_equal_the_output(arguments, capsys, monkeypatch):
    monkeypatch.setattr(flops, "Paper", PAPER)
    assert flops.main(shlex.split(arguments, comments=True)) == 0
    tables = capsys.readouterr().out.strip().split("\n\n")
    missing = [table for table in tables if table not in DOCS]
    assert not missing, "\n\n".join(missing)
