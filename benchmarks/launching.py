"""Training runs of a benchmark: each has its own folder and runs once."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
BIN = Path(sys.executable).parent
PROBE = ["model.linear_probe=true", "optimization.lr=[0.01]"]
# Layer-wise learning rate decay protects pre-trained weights; random weights need none.
ARMS = {
    "scratch": ["model.model_path=null", "model.layer_decay=1"],
    "fine-tuned": ["model.layer_decay=0.75"],
    "probe random": ["model.model_path=null", *PROBE],
    "probe": PROBE,
}


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows a module's docstring."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def pretrain(config: str, data: Path, folder: Path, options: list[str]) -> Path:
    """Pre-train, unless done; return the checkpoint."""
    if not (folder / "done").is_file():
        train(config, data, folder, options)
        (folder / "done").touch()
    return folder / "checkpoints" / "checkpoint_last.pt"


def finetune_arms(
    config: str, data: Path, pretrained: Path, folder: Path, options: list[str],
    probe_options: tuple[str, ...] = (),
) -> dict[str, float]:  # fmt: skip
    """Train a classifier per arm, unless done; return the accuracies after the last update."""
    accuracies = {}
    for arm, arm_options in ARMS.items():
        own = folder / arm.replace(" ", "_")
        done = own / "accuracy.json"
        if not done.is_file():
            extra = probe_options if arm.startswith("probe") else ()
            path = f"model.model_path={quote(pretrained)}"
            train(config, data, own, [path, *options, *arm_options, *extra])
            log = (own / "hydra_train.log").read_text(encoding="utf-8")
            last = re.findall(r"\[eval\]\[INFO\] - (\{.*\})", log)[-1]
            done.write_text(json.dumps(float(json.loads(last)["eval_accuracy"])), encoding="utf-8")
        accuracies[arm] = json.loads(done.read_text(encoding="utf-8"))
    return accuracies


def train(config: str, data: Path, folder: Path, options: list[str]) -> None:
    """Run ``fairseq-hydra-train`` in a folder; it resumes from a checkpoint there."""
    cpu = ["common.cpu=true", "common.fp16=false"] if not torch.cuda.is_available() else []
    command = [
        BIN / "fairseq-hydra-train", "--config-dir", CONFIG, "--config-name", config,
        f"common.user_dir={quote(ROOT / 'eat_plugin')}", f"task.data={quote(data)}",
        f"hydra.run.dir={quote(folder)}", "common.tensorboard_logdir=null",
        "common.log_interval=50", *options, *cpu,
    ]  # fmt: skip
    began = time.monotonic()
    run(command, folder / "console.txt")
    say(f"  {folder.parent.name} {folder.name}: {time.monotonic() - began:.0f} s")


def run(command: list[object], log: Path) -> None:
    """Run a command with its output in a file.

    Raises:
        SystemExit: it failed; the message names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        parts = [str(part) for part in command]
        status = subprocess.run(parts, stdout=file, stderr=file).returncode
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise SystemExit(f"{command[0]} failed, see {log}:\n{tail}")


def write_results(out: Path, table: str, results: object, began: float) -> None:
    """Write table.md and results.json, and print the table and the minutes taken."""
    (out / "table.md").write_text(table, encoding="utf-8")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    say(f"\n{table}\n{(time.monotonic() - began) / 60:.1f} minutes")


def quote(path: Path) -> str:
    """Quote a path for hydra's command line."""
    escaped = str(path).replace("'", "\\'")
    return f"'{escaped}'"


def say(line: str) -> None:
    """Write a line to standard output and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
