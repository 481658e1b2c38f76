"""Training runs of a benchmark: each has its own folder and runs once."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from eat_plugin.launch.machine import choose_precision

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
BIN = Path(sys.executable).parent
ARMS = {"scratch": ["model.model_path=null"], "fine-tuned": []}


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


def compare(
    data: Path, folder: Path, updates: tuple[int, int], options: list[str]
) -> dict[str, float]:
    """Pre-train, fine-tune and probe a tiny model with the packaged recipes.

    Args:
        data: a data folder with the splits train and eval.
        folder: of the runs.
        updates: of pre-training and of fine-tuning.
        options: more options of pre-training.

    Returns:
        Accuracies of the arms, and of the probes of the pre-trained model, of simple statistics
        (log-mel) and of random weights.
    """
    own = ["size=tiny", f"optimization.max_update={updates[0]}", *options]
    pretrained = pretrain("pretrain", data, folder / "pretraining", own)
    fine = ["size=tiny", f"optimization.max_update={updates[1]}"]
    results = finetune_arms("finetune", data, pretrained, folder, fine)
    return {**results, **probe(data, pretrained, folder / "probe")}


def probe(data: Path, checkpoint: Path, folder: Path, *options: str) -> dict[str, float]:
    """Run ``eat probe``, unless done; return the metric of its chosen linear probes."""
    _run_probe(data, checkpoint, folder, *options)
    found = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
    return {
        f"probe {row['source']}": row["linear"]["value"]
        for row in found["rows"]
        if row["linear"]["is_chosen"]
    }


def probe_head(data: Path, checkpoint: Path, folder: Path, head: str, *options: str) -> float:
    """Run ``eat probe --head``, unless done; return the metric of the head."""
    _run_probe(data, checkpoint, folder, f"--head={head}", *options)
    return float(json.loads((folder / "probe.json").read_text(encoding="utf-8"))["value"])


def _run_probe(data: Path, checkpoint: Path, folder: Path, *options: str) -> None:
    if not (folder / "probe.json").is_file():
        command: list[object] = [BIN / "eat", "probe", "--checkpoint", checkpoint, "--data", data]
        run([*command, *options, "--out", folder], folder.with_suffix(".log"))


def finetune_arms(
    config: str, data: Path, pretrained: Path, folder: Path, options: list[str],
    arms: dict[str, list[str]] = ARMS,
) -> dict[str, float]:  # fmt: skip
    """Train a classifier per arm, unless done; return the accuracies after the last update."""
    accuracies = {}
    for arm, arm_options in arms.items():
        own = folder / arm.replace(" ", "_")
        done = own / "accuracy.json"
        if not done.is_file():
            path = f"model.model_path={quote(pretrained)}"
            train(config, data, own, [path, *options, *arm_options])
            log = (own / "hydra_train.log").read_text(encoding="utf-8")
            last = re.findall(r"\[eval\]\[INFO\] - (\{.*\})", log)[-1]
            done.write_text(json.dumps(float(json.loads(last)["eval_accuracy"])), encoding="utf-8")
        accuracies[arm] = json.loads(done.read_text(encoding="utf-8"))
    return accuracies


def train(config: str, data: Path, folder: Path, options: list[str]) -> None:
    """Run ``fairseq-hydra-train`` in a folder, in the precision that ``eat pretrain`` chooses.

    It resumes from a checkpoint there.
    """
    command = [
        BIN / "fairseq-hydra-train", "--config-dir", CONFIG, "--config-name", config,
        f"common.user_dir={quote(ROOT / 'eat_plugin')}", f"task.data={quote(data)}",
        f"hydra.run.dir={quote(folder)}", "common.tensorboard_logdir=null",
        "common.log_interval=50", *options, *choose_precision(set()),
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


def format_table(results: dict[str, dict[str, float]], first: str) -> str:
    """Format accuracies in Markdown: a row per result, then mean and standard deviation."""
    cells = {
        name: [f"{100 * value:.1f}" for value in row.values()] for name, row in results.items()
    }
    names = _list_scores(results)
    return _format_rows([first, *names], {**cells, "mean ± std": _average(results, names)})


def format_means(results: dict[str, dict[str, dict[str, float]]], first: str) -> str:
    """Format accuracies in Markdown: a row per model, mean and standard deviation over its runs.

    The first model has all scores; where another lacks one, its cell is empty.
    """
    names = _list_scores(next(iter(results.values())))
    rows = {name: _average(runs, names) for name, runs in results.items()}
    return _format_rows([first, *names], rows)


def _list_scores(runs: dict[str, dict[str, float]]) -> list[str]:
    return list(next(iter(runs.values())))


def _average(runs: dict[str, dict[str, float]], names: list[str]) -> list[str]:
    cells = []
    for name in names:
        values = [100 * row[name] for row in runs.values() if name in row]
        spread = np.std(values, ddof=1) if len(values) > 1 else 0
        cells.append(f"{np.mean(values):.1f} ± {spread:.1f}" if values else "")
    return cells


def _format_rows(header: list[str], rows: dict[str, list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---|" * (len(header) - 1)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


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
