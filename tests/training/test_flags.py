"""`fairseq-train` and `fairseq-validate` with flags, against the YAML and `eat evaluate`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.forked import Forked

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "fairseq-train": "fairseq_cli.train:cli_main",
    "fairseq-validate": "fairseq_cli.validate:cli_main",
    "eat": "eat_plugin.cli:main",
}
COMMON = [
    "--user-dir", str(ROOT / "eat_plugin"), "--cpu", "--num-workers", "0", "--batch-size", "4",
    "--required-batch-size-multiple", "1", "--log-interval", "1", "--log-format", "json",
]  # fmt: skip
TRAIN = [
    *COMMON, "--target-length", "-1", "--norm", "bins", "--frontend", "db",
    "--optimizer", "eat_adamw", "--lr-scheduler", "cosine", "--warmup-updates", "-1",
    "--depth", "2", "--embed-dim", "32", "--num-heads", "4", "--average-top-k-layers", "2",
    "--max-update", "15",
]  # fmt: skip
OVERRIDES = [
    "size=tiny", "common.cpu=true", "common.fp16=false", "dataset.num_workers=0",
    "dataset.batch_size=4", "model.depth=2", "model.embed_dim=32", "model.num_heads=4",
    "model.average_top_k_layers=2", "optimization.max_update=15",
]  # fmt: skip


def run(command, folder, *flags):
    process = Forked(PROGRAMS[command], flags, folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-5000:]
    return output


def run_installed(command, folder, *flags):
    """Run a program as it is installed, in an interpreter that has imported nothing."""
    result = subprocess.run(
        [Path(sys.executable).with_name(command), *flags], cwd=folder, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:]


def pretrain(folder, out, run=run):
    run(
        "fairseq-train", folder, folder, *TRAIN, "--task", "eat_pretraining", "--arch", "eat_tiny",
        "--criterion", "eat_pretraining", "--disable-validation", "--crop", "random",
        "--monitor-interval", "-1", "--precompute-mask-config", "--clone-batch", "3",
        "--decoder-dim", "32",
        "--convolution", "channels_last",  # timed on a busy machine, runs may differ in their way
        "--lr", "0.002", "--clip-norm", "4", "--save-dir", folder / out,
    )  # fmt: skip
    return folder / out / "checkpoint_last.pt"


def load(path):
    return torch.load(path, weights_only=True)


def metrics_of(output, split):
    """The metrics that fairseq-validate prints."""
    lines = re.findall(rf"INFO \| {split} \| (\{{.*\}})", output)
    assert lines, output[-5000:]
    return {name.partition("_")[2]: float(value) for name, value in json.loads(lines[-1]).items()}


def test_pre_training__equals_that_of_the_yaml(trainer, clips, assert_same):
    path = pretrain(clips, "flags", run_installed)
    command, *arguments = trainer.command(
        "model.clone_batch=3", "model.modalities.image.decoder.decoder_dim=32",
        "model.convolution=channels_last", config=("pretrain", *OVERRIDES), name="yaml",
    )  # fmt: skip
    run_installed(command, clips, *arguments)
    saved, expected = load(path), trainer.checkpoint("yaml")
    assert_same(saved["model"], expected["model"])
    assert_same(saved["cfg"]["model"], expected["cfg"]["model"])
    assert_same(saved["cfg"]["task"], expected["cfg"]["task"])

    output = run(
        "fairseq-validate", clips, clips, *COMMON, "--task", "eat_pretraining", "--path", path,
        "--valid-subset", "train",
    )  # fmt: skip
    losses = metrics_of(output, "train")
    assert losses["bsz"] == 12
    assert min(losses[f"loss_{name}"] for name in ("regression", "cls", "recon")) > 0


def test_fine_tuning__equals_that_of_the_yaml(trainer, labelled, assert_same):
    before = pretrain(labelled, "before")
    run(
        "fairseq-train", labelled, labelled, *TRAIN, "--task", "eat_classification", "--arch",
        "eat_classifier_tiny", "--criterion", "eat_classification", "--valid-subset", "eval",
        "--single-label", "--loss", "ce", "--label-smoothing", "0.1", "--crop", "random",
        "--prediction-mode", "MEAN_MAX_POOLING", "--layer-decay", "-1", "--drop-path-rate", "-1",
        "--lr", "0.001", "--min-lr", "1e-6", "--save-dir", labelled / "flags",
        "--model-path", before,
    )  # fmt: skip
    trainer.succeed(
        "optimization.lr=[0.001]", f"model.model_path={before}",
        config=("finetune", *OVERRIDES), name="yaml",
    )  # fmt: skip
    path = labelled / "flags" / "checkpoint_last.pt"
    saved, expected = load(path), trainer.checkpoint("yaml")
    assert_same(saved["model"], expected["model"])
    assert saved["task_state"]["labels"] == expected["task_state"]["labels"]

    output = run(
        "fairseq-validate", labelled, labelled, *COMMON, "--task", "eat_classification", "--path",
        path, "--valid-subset", "eval",
    )  # fmt: skip
    evaluated = run(
        "eat", labelled, "evaluate", "--checkpoint", path, "--data", labelled, "--json",
        "--resamples", "0",
    )  # fmt: skip
    found = metrics_of(output, "eval")
    report = json.loads(evaluated[evaluated.index("{") : evaluated.rindex("}") + 1])
    for name in ("accuracy", "mAP", "mAUC"):
        assert found[name] == pytest.approx(report[name], abs=2e-6)
