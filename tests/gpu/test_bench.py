"""`eat bench` on a GPU."""

import json
import re

import pytest
import torch

from benchmarks import cases, trainer, training
from benchmarks.table import GOALS
from eat_plugin.cli import main

pytestmark = pytest.mark.gpu
SMALL = {"depth": 2, "embed_dim": 128, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 4}
SMALL_RUN = [
    "task.target_length=64", "model.depth=2", "model.embed_dim=128", "model.num_heads=2",
    "model.average_top_k_layers=2", "model.clone_batch=4",
    "model.modalities.image.decoder.decoder_dim=128",
]  # fmt: skip


@pytest.fixture
def bench(capsys):
    """Run `eat bench` on the GPU; return the rows by name and the machine."""

    def run(*arguments):
        assert main(["bench", *arguments, "--device", "cuda", "--rounds", "2", "--json"]) == 0
        got = json.loads(capsys.readouterr().out)
        return {row["name"]: row for row in got["results"]}, got["machine"]

    return run


@pytest.fixture
def small_training(monkeypatch):
    for name in ("train_base_12", "train_base_48"):
        clips = int(name.rsplit("_", 1)[1])
        row = cases.Row(trainer.training("base", clips, SMALL_RUN), (cases.CUDA,))
        monkeypatch.setitem(cases.ROWS, name, row)


@pytest.mark.parametrize(
    "options", [[], ["--compile"], ["--cuda-graph"], ["--cuda-graph", "--compile"]]
)
def test_training__is_measured(bench, small_training, options):
    rows, machine = bench("train_base_12", *options)
    row = rows["train_base_12"]
    assert row["what"] == "train base: 12 x 4 clones of 1 s, bfloat16"
    assert row["clips_a_second"] > 0
    assert row["plain_mib"] > 0
    assert row["ours_mib"] > 0
    assert row["difference"] < 0.01
    assert machine["GPU"] == torch.cuda.get_device_name()
    expected = [goal for goal in GOALS["train_base_12"] if re.search(goal.where, machine["GPU"])]
    assert [goal["figure"] for goal in row["goals"]] == [goal.figure for goal in expected]


def test_models__are_measured(bench, monkeypatch):
    monkeypatch.setitem(training.SIZES, "base", SMALL)
    names = ("features_1", "features_32", "finetune_1", "finetune_32", "update_base")
    rows, _ = bench(*names)
    assert list(rows) == list(names)
    for name, row in rows.items():
        assert row["ours"] > 0, name
        assert row["ours_mib"] > 0, name
        assert row["difference"] < 0.1, name
