"""Trainings that a benchmark starts: each in a folder of its own, and done once.

In this file:
    pretrain     a checkpoint
    finetune     the accuracy of a classifier
    run          a command with its output in a file
    say          a line on the screen
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def pretrain(config: str, data: Path, folder: Path, options: list[str]) -> Path:
    """Pre-train, unless that is done; return the checkpoint."""
    if not (folder / "done").is_file():
        train(config, data, folder, options)
        (folder / "done").touch()
    return folder / "checkpoints" / "checkpoint_last.pt"


def finetune(
    config: str, data: Path, pretrained: Path, folder: Path, options: list[str]
) -> float:
    """Train a classifier, unless that is done; return its accuracy after the last update."""
    done = folder / "accuracy.json"
    if not done.is_file():
        train(config, data, folder, [f"model.model_path={quote(pretrained)}", *options])
        log = (folder / "hydra_train.log").read_text(encoding="utf-8")
        last = re.findall(r"\[eval\]\[INFO\] - (\{.*\})", log)[-1]
        done.write_text(json.dumps(float(json.loads(last)["eval_accuracy"])), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def train(config: str, data: Path, folder: Path, options: list[str]) -> None:
    """Run ``fairseq-hydra-train`` in a folder; it goes on from a checkpoint that is there."""
    cpu = ["common.cpu=true", "common.fp16=false"] if not torch.cuda.is_available() else []
    command = [
        BIN / "fairseq-hydra-train", "--config-dir", ROOT / "config", "--config-name", config,
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
        SystemExit: if it fails; the message names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        parts = [str(part) for part in command]
        status = subprocess.run(parts, stdout=file, stderr=file).returncode
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise SystemExit(f"{command[0]} failed, see {log}:\n{tail}")


def quote(path: Path) -> str:
    """Quote a path for hydra's command line."""
    escaped = str(path).replace("'", "\\'")
    return f"'{escaped}'"


def say(line: str) -> None:
    """Write a line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
