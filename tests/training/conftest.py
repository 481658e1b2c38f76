"""Real runs of ``fairseq-hydra-train``, in processes of their own, on a few small clips."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.forked import Forked

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("dog", "rain", "clock")
SMALL = [
    "common.cpu=true", "common.fp16=false", "common.log_interval=1", "dataset.num_workers=0",
    "dataset.batch_size=4", "task.target_length=64", "checkpoint.save_interval_updates=4",
    "checkpoint.keep_interval_updates=-1", "lr_scheduler.warmup_updates=2",
    "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
    "model.clone_batch=3", "model.ema_decay=0.9", "model.modalities.image.decoder.decoder_dim=32",
    "model.convolution=channels_last",  # timed on a busy machine, runs may differ in their way
]  # fmt: skip


class Trainer:
    """Starts training processes in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder

    def command(self, *overrides, name="run", config=("pretrain", "size=tiny", *SMALL)):
        return [
            "fairseq-hydra-train", "--config-dir", str(ROOT / "config"), "--config-name", *config,
            f"common.user_dir={ROOT / 'eat_plugin'}", f"task.data={self.folder}",
            f"hydra.run.dir={self.folder / name}", *overrides,
        ]  # fmt: skip

    def start(self, *overrides, **options):
        _, *arguments = self.command(*overrides, **options)
        return Forked("fairseq_cli.hydra_train:cli_main", arguments, self.folder)

    def run(self, *overrides, **options):
        """Run to the end; return exit status and output."""
        process = self.start(*overrides, **options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def succeed(self, *overrides, **options):
        status, output = self.run(*overrides, **options)
        assert status == 0, output[-5000:]
        return output

    def checkpoint(self, name="run", file="checkpoint_last.pt"):
        path = self.folder / name / "checkpoints" / file
        return torch.load(path, weights_only=True)


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """12 clips of noise, 0.3 to 2 s, and their manifest, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = [str(tmp_path / "audio")]
    (tmp_path / "audio").mkdir()
    for number in range(12):
        wave = rng.normal(0, 0.1, int(16000 * rng.uniform(0.3, 2))).astype(np.float32)
        soundfile.write(tmp_path / "audio" / f"{number:02d}.wav", wave, 16000)
        lines.append(f"{number:02d}.wav\t{len(wave)}")
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def trainer(clips):
    return Trainer(clips)


@pytest.fixture
def labelled(clips):
    """The clips of ``train.tsv`` with one label each; ``eval`` has copies of seven."""
    shutil.copytree(clips / "audio", clips / "held_out")
    lines = (clips / "train.tsv").read_text().splitlines()
    names = [line.split("\t")[0] for line in lines[1:]]
    labels = [f"{name}\t{KINDS[number % 3]}" for number, name in enumerate(names)]
    (clips / "train.lbl").write_text("\n".join(labels) + "\n")
    (clips / "eval.tsv").write_text("\n".join([str(clips / "held_out"), *lines[1:8]]) + "\n")
    (clips / "eval.lbl").write_text("\n".join(labels[:7]) + "\n")
    rows = [f"{number},{kind},A {kind}" for number, kind in enumerate(KINDS)]
    (clips / "label_descriptors.csv").write_text("\n".join(rows) + "\n")
    return clips


def flatten(tree, prefix=""):
    """Turn nested dictionaries and lists into one dictionary of leaves."""
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    leaves = {}
    for key, value in items:
        leaves.update(flatten(value, f"{prefix}/{key}"))
    return leaves


@pytest.fixture
def assert_same():
    """Assert that two trees of tensors and numbers are equal, bit for bit or within a tolerance."""

    def check(first, second, tolerance=0.0):
        first, second = flatten(first), flatten(second)
        assert first.keys() == second.keys()
        for name, value in first.items():
            if not torch.is_tensor(value):
                assert value == second[name], name
            elif tolerance:
                assert (value - second[name]).abs().max() <= tolerance, name
            else:
                assert torch.equal(value, second[name]), name

    return check
