"""The recipes of docs/extend.md, carried out on copies of the package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)$(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
CHECKS = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
import numpy as np, torch
from fairseq.dataclass.initialize import add_defaults
from eat_plugin import cli
from eat_plugin.criterions.pretraining import PretrainingCriterion
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.metrics import metric_names, summarize
from eat_plugin.models.eat import EatModel
from eat_plugin.ranking import RankedScores
from tests.composing import compose

# Mask
spec = MaskSpec((8, 8), 0.8, strategy="columns")
masks = draw_masks(spec, 5, torch.Generator().manual_seed(0))
assert (masks == 0).sum(dim=1).tolist() == [spec.num_visible] * 5
kept = (masks.view(5, 8, 8) == 0).sum(dim=2)
assert ((kept == 8).sum(dim=1) == spec.num_visible // 8).all()

# Mask, loss, objective and inputs, from the command line to gradients
given = ["common.user_dir=x", "task.data=x"]
cfg = compose("pretrain", [
    "size=tiny", *given, "task.target_length=128", "model.depth=1", "model.average_top_k_layers=1",
    "+model.modalities.image.mask_strategy=columns", "+model.cosine_loss=2",
    "+model.spectrum_loss=0.5", "+model.level_loss=0.5",
    "model.modalities.image.patch_size=16", "model.ema_decay=0.9",
    "model.ema_end_decay=0.99", "model.ema_anneal_end_step=10",
])
add_defaults(cfg)
torch.manual_seed(0)
model = EatModel(cfg.model).train()
sample = {"id": torch.arange(2), "net_input": {"source": torch.randn(2, 1, 128, 128)}}
loss, size, log = PretrainingCriterion(None)(model, sample)
(loss / size).backward()
assert 0 < float(log["loss_cosine"]) / size < 4
assert 0 < float(log["loss_spectrum"]) / size < 10
assert model.spectrum_proj.weight.grad.abs().sum() > 0
assert 0 < float(log["loss_level"]) / size < 10
assert model.level_proj.weight.grad.abs().sum() > 0

# Metric
scores = np.tile(np.arange(7.0), (7, 1))
summary = summarize(RankedScores(scores, np.eye(7)), single_label=True)
assert tuple(summary) == metric_names(True)
assert summary["top5"] == 5 / 7

# Source
folder = Path("arrays")
folder.mkdir()
wave = np.random.default_rng(0).uniform(-0.5, 0.5, (20_000, 2)).astype(np.float32)
np.save(folder / "a.npy", wave)
np.save(folder / "bad.npy", np.arange(5))
assert cli.main(["manifest", "arrays", "--ext", "npy", "--out", "listed"]) == 0
manifest = read_manifest("listed/train.tsv")
assert manifest.sizes.tolist() == [20_000]
assert "expected [samples]" in Path("listed/rejected.tsv").read_text()
front_end = FrontEnd(64, -4.0, 4.0)
found = SpectrogramReader(manifest, front_end).read(0, torch.Generator())
assert torch.allclose(found, front_end(torch.from_numpy(wave.mean(axis=1)), 16_000))

# Benchmark
cfg = compose("finetune", ["benchmark=urbansound8k", "model.model_path=null", *given])
assert (cfg.task.target_length, cfg.optimization.max_update) == (400, 8000)
"""


def apply(diff, root):
    """Carry out a diff without line numbers: unchanged and removed lines say where."""
    parts = re.findall(r"^--- (?:/dev/null )?(\S+)\n(.*?)(?=^--- |\Z)", diff, re.M | re.S)
    for name, body in parts:
        lines = body.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+").rstrip("\n")
        new = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-").rstrip("\n")
        path = root / name
        if not old:
            assert not path.exists(), f"{name} exists"
            path.write_text(f"{new}\n", encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {text.count(old)} times:\n{old}"
        path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    for part in ("eat_plugin", "config"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "composing.py", tmp_path / "tests")
    return tmp_path


def diffs_of(section):
    return "".join(re.findall(r"```diff\n(.*?)```", SECTIONS[section], flags=re.DOTALL))


@pytest.mark.parametrize("section", SECTIONS)
def test_recipe__applies_by_itself(section, copy):
    apply(diffs_of(section), copy)


def test_recipes__work_together(copy):
    for section in SECTIONS:
        apply(diffs_of(section), copy)
    result = subprocess.run(
        [sys.executable, "-c", CHECKS], cwd=copy, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
