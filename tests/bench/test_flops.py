"""FLOPs and bytes on paper are those that PyTorch counts, and the tables are those of the docs."""

import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from eat_plugin.bench import flops
from eat_plugin.bench.limits import BUCKET, LATENCY, Device, all_reduce_seconds, most_nodes
from eat_plugin.bench.operations import EMA, FUSED, OPTIMIZER, Operation, list_operations
from eat_plugin.bench.training import make_model
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = pytest.importorskip("torch.nn.attention")  # of PyTorch 2.3
SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 4, "average_top_k_layers": 2, "clone_batch": 3}
GRID, CLIPS = (8, 8), 2
PAPER = lru_cache(flops.Paper)  # each builds a model, and many tests ask for the same


def small_model(image=None, **options):
    cfg = make_model({**SMALL, **options}, 128).cfg
    cfg.modalities.image = OmegaConf.merge(cfg.modalities.image, image or {})
    return EatModel(cfg).train()


def run_update(model, counter, attention=ATTENTION.SDPBackend.MATH):
    """Return what is counted of a forward pass, and of both; PyTorch sees FLOPs of MATH alone."""
    dtype = next(model.parameters()).dtype
    source = torch.randn(CLIPS, 1, 128, 128, dtype=dtype)
    spec = MaskSpec.from_options(model.patch_encoder.cfg, GRID)
    mask = draw_masks(spec, CLIPS * model.cfg.clone_batch)
    with counter, ATTENTION.sdpa_kernel(attention):
        losses = model(source, precomputed_mask=mask, num_visible=spec.num_visible)["losses"]
        forward = counter.get_total_flops()
        torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
    return forward, counter.get_total_flops()


def on_paper(model, quantity="flops", width=2):
    """Forward, and forward and backward, of the clips."""
    listed = list_operations(model.cfg, GRID, CLIPS, width)
    forward = sum(getattr(op, quantity) for op in listed if not op.backward)
    return forward, sum(getattr(op, quantity) for op in listed)


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ({}, {}),
        ({"cls_loss": 0.0, "recon_loss": 1.0}, {"decoder": {"decoder_dim": 64}}),
        ({"utterance_level": True}, {"mask_prob": 0.6, "decoder": {"decoder_layers": 0}}),
        ({"d2v_loss": 0.0}, {"embed_dim": 48}),
        ({"ema_encoder_only": True, "mlp_ratio": 2.0}, {"decoder": {"decoder_kernel": 4}}),
        ({}, {"local_grad_mult": 0.0, "decoder": {"decoder_kernel": 5}}),
    ],
)
def test_update_flops__are_what_pytorch_counts(options, image):
    decoder = {"decoder_groups": 1, **image.pop("decoder", {})}
    model = small_model({**image, "decoder": decoder}, **options)
    counted = run_update(model, FlopCounterMode(display=False))
    assert on_paper(model) == counted
    assert CLIPS * flops.update_flops(model.cfg, GRID) == counted[1]


def test_update_flops__of_groups_differ_by_what_pytorch_miscounts():
    model = small_model()
    forward, update = run_update(model, FlopCounterMode(display=False))
    expected = on_paper(model)
    assert expected[0] == forward
    # For the gradient of the weights PyTorch's counter leaves the groups out of account.
    convolutions = 6 * CLIPS * 3 * 64 * 2 * 9 * (32 // 16) * 32
    assert expected[1] + (16 - 1) * convolutions == update


def test_update_flops__of_base_are_those_by_hand():
    width, tokens, positions = 768, 16 * (102 + 1), 16 * 512
    block = 2 * 12 * width**2  # 4 D^2 of attention, 8 D^2 of the MLP
    student = 12 * (tokens * block + 16 * 4 * 103**2 * width)
    teacher = 12 * (513 * block + 4 * 513**2 * width)
    decoder = 6 * positions * 2 * 9 * (width // 16) * width + 16 * 410 * 2 * width**2
    embedding = 512 * 2 * 256 * width
    # Of the embedding: forward and weights of the student, forward of the teacher.
    expected = 3 * (student + decoder) + teacher + 3 * embedding
    assert flops.update_flops(flops.published_config("base"), (64, 8)) == expected


class ByteCounter(TorchDispatchMode):
    """Adds up the sizes of what operations read and write."""

    FREE = frozenset({"aten::empty", "aten::empty_like", "aten::new_empty", "aten::_unsafe_view"})

    def __init__(self):
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.name().split(".")[0] not in self.FREE:
            self.moved += sum(map(self.size, tree_flatten((args, kwargs, result))[0]))
        return result

    @staticmethod
    def size(value):
        if not torch.is_tensor(value):
            return 0
        strides = zip(value.shape, value.stride())
        expanded = [length for length, stride in strides if stride == 0]
        return value.nbytes // max(1, torch.Size(expanded).numel())

    def get_total_flops(self):
        return self.moved


def test_bytes__are_nearly_what_pytorch_moves():
    model = small_model(embed_dim=128, depth=3, clone_batch=8).bfloat16()
    counted = run_update(model, ByteCounter(), ATTENTION.SDPBackend.FLASH_ATTENTION)
    # Backward of older ones copies more (2.8: 6 %).
    tolerance = 0.03 if torch.__version__ >= "2.13" else 0.1
    assert counted == pytest.approx(on_paper(model, "bytes"), rel=tolerance)


@pytest.mark.parametrize("size", ["base", "large"])
def test_published_config__is_that_of_the_yaml_files(size):
    files = [ROOT / "config" / "pretrain.yaml", ROOT / "config" / "size" / f"{size}.yaml"]
    merged = OmegaConf.merge(*map(OmegaConf.load, files))
    options = OmegaConf.to_container(merged.model, resolve=True)
    options.pop("_name")
    expected = OmegaConf.merge(OmegaConf.structured(EatConfig), options)
    found = flops.published_config(size)
    assert list_operations(found, (64, 8), 1, 2) == list_operations(expected, (64, 8), 1, 2)
    assert flops.count_parameters(found)[0] == {"base": 87_840_000, "large": 308_543_488}[size]


@pytest.mark.parametrize("encoder_only", [False, True])
def test_count_parameters__is_what_is_trained_and_averaged(encoder_only):
    model = small_model(ema_encoder_only=encoder_only)
    trained = [p for p in model.parameters() if p.requires_grad]
    averaged = list(model.blocks.parameters())
    if not encoder_only:
        encoder = model.patch_encoder
        averaged += [*encoder.local_encoder.parameters(), encoder.extra_tokens]
        averaged += list(encoder.context_encoder.parameters())
    expected = sum(p.numel() for p in trained), sum(p.numel() for p in averaged)
    assert flops.count_parameters(model.cfg) == expected


def test_stages__add_up_to_the_update():
    cfg = small_model().cfg
    trained, averaged = flops.count_parameters(cfg)
    parts = {stage.name: stage for stage in flops.stages(cfg, GRID, 5, 2)}
    assert sum(stage.flops for stage in parts.values()) == 5 * flops.update_flops(cfg, GRID)
    # The norm, a factor in place, and Adam: gradient, parameter and two means, three of them out.
    assert parts[OPTIMIZER].bytes == trained * (4 * (1 + 2 + 7) + 3 * (2 + 4))
    assert parts[EMA].bytes == averaged * (4 * (3 + 2) + (2 + 4) * 2)
    precise = {stage.name: stage for stage in flops.stages(cfg, GRID, 5, 4)}
    assert precise[OPTIMIZER].bytes == 48 * trained
    assert precise[EMA].bytes == 20 * averaged
    assert parts["student: MLP"].intensity == 2 * precise["student: MLP"].intensity


def test_stages__move_less_where_chains_are_fused():
    cfg = small_model().cfg
    eager, fused = (flops.stages(cfg, GRID, 5, 2, costs) for costs in (flops.EAGER, FUSED))
    smaller = {a.name for a, b in zip(eager, fused) if b.bytes < a.bytes}
    assert smaller == {"student: norms, residuals", "decoder: LayerNorm, GELU, residual", "teacher"}
    assert all(b.bytes == a.bytes for a, b in zip(eager, fused) if a.name not in smaller)


def test_bytes__of_attention_and_of_fused_chains():
    model = small_model()
    values = CLIPS * 3 * (12 + 1) * 32  # tokens of the student, times their width
    products = 4 * values * 13, 8 * values * 13  # with 13 tokens
    listed = list_operations(model.cfg, GRID, CLIPS, 2)
    heads = [op.bytes for op in listed if op.flops in products]
    # Queries, keys, values and output; backward also their gradients.
    assert heads == 2 * [2 * 4 * values, 2 * 8 * values]
    parts = {stage.name: stage.bytes for stage in flops.stages(model.cfg, GRID, CLIPS, 2, FUSED)}
    decoder = CLIPS * 3 * 64 * 32
    # Convolution and input in, output out; backward two gradients, and what was in, out.
    assert parts["decoder: LayerNorm, GELU, residual"] == 6 * 2 * (3 + 4) * decoder


def test_device__waits_for_arithmetic_or_for_memory():
    device = Device("toy", flops=100, bandwidth=10)
    assert device.ridge == 10
    assert device.seconds([Operation("a", 200, 10), Operation("b", 100, 50)]) == 2 + 5


def test_all_reduce__passes_a_share_in_each_step():
    size = 2 * BUCKET
    # Of four GPUs: three steps to add up, three to hand out, each of a quarter.
    expected = 6 * (size / 4 / 1e9 + 2 * LATENCY)
    assert all_reduce_seconds(size, 4, 1e9) == pytest.approx(expected)
    assert all_reduce_seconds(size, 1, 1e9) == 0


def test_most_nodes__is_the_last_that_is_fast_enough():
    seconds = all_reduce_seconds(1e8, 5 * 8, 1e10)
    assert most_nodes(1e8, 1e10, seconds) == 5
    assert most_nodes(1e8, 1e10, 0.999 * seconds) == 4
    assert most_nodes(1e8, 1e10, 0) == 1
    assert most_nodes(0, 1e10, 1) == 1000


def test_main__knows_no_rates_of_large(capsys, monkeypatch):
    monkeypatch.setattr(flops, "Paper", PAPER)
    assert flops.main(["--size", "large"]) == 0
    assert "GPU-hours" not in capsys.readouterr().out
    assert flops.main(["--size", "large", "--rates", "100", "--loader", "a b=2.5"]) == 0
    printed = capsys.readouterr().out
    assert "| 100 | 53.3 | 45 % |" in printed  # 400,000 x 48 clips / 100 / 3600; 4.435e14 / 989e12
    assert "| clips/s of a GPU | a b |\n| --- | --- |\n| 100 | 0.25 |" in printed


DOCS = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python -m eat_plugin\.bench\.flops(.*)$", DOCS, re.MULTILINE)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_docs__hold_the_tables_that_a_command_prints(arguments, capsys, monkeypatch):
    monkeypatch.setattr(flops, "Paper", PAPER)
    assert flops.main(shlex.split(arguments)) == 0
    tables = capsys.readouterr().out.strip().split("\n\n")
    missing = [table for table in tables if table not in DOCS]
    assert not missing, "\n\n".join(missing)
