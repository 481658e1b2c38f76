"""The curves of a run, from its log in each format that fairseq writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

CONSOLE = "console.txt"  # standard output and error of training
VARIANCES = ("target_var", "pred_var")
LOSS_SCALE = "loss_scale"
OPTIMIZATION = ("lr", "gnorm", LOSS_SCALE)
METRICS = ("accuracy", "mAP")  # of fine-tuning; the first one in the log is shown
COUNT = "num_updates"
EPOCH = "train_"  # prefix of means over an epoch

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of a logged value -> updates, and the value at each."""

_PAIR = re.compile(r"(\w+)=([^\s,\]]+)")
_VALIDATION = re.compile(r"valid on '([^']+)' subset")


def read_curves(run_dir: Path) -> Curves:
    """Collect the logged values from ``console.txt`` and the ``*.log`` files of a run.

    An update counts once: the last value in the last file is used. If no single updates are logged
    (log_format=tqdm, short epochs), the means over epochs are used. The order is: losses,
    validation loss and metric, variances, learning rate, gradient norm, loss scale of float16.

    Raises:
        ValueError: there is no such folder, or no logged update in it.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a folder of a run")
    values: dict[str, dict[int, float]] = {}
    for path in (run_dir / CONSOLE, *sorted(run_dir.glob("*.log"))):
        if not path.is_file():
            continue
        # A progress bar ends its lines with "\r", which text mode treats as a line break.
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for name, update, value in parse_line(line):
                    values.setdefault(name, {})[update] = value
    for name in [name for name in values if name.startswith(EPOCH)]:
        values.setdefault(name[len(EPOCH) :], values.pop(name))
    if "loss" not in values:
        raise ValueError(
            f"no logged update in {run_dir} (*.log, {CONSOLE}); training logs every "
            f"common.log_interval updates with common.log_format=json (or simple, tqdm; not none) "
            f"and hydra.run.dir={run_dir}"
        )
    return {
        name: (sorted(values[name]), [values[name][u] for u in sorted(values[name])])
        for name in _order_names(values)
    }


def _order_names(values: Mapping[str, object]) -> list[str]:
    losses = sorted(n for n in values if n.startswith("loss") and n != LOSS_SCALE)
    losses += sorted(n for n in values if n.endswith("_loss"))
    found: list[str] = []
    for metric in METRICS:
        found = found or sorted(n for n in values if n.endswith(f"_{metric}"))
    return losses + found + [n for n in (*VARIANCES, *OPTIMIZATION) if n in values]


def is_of_validation(name: str) -> bool:
    """Whether a curve is the loss or metric of a validation split, as ``eval_loss``."""
    return name.endswith(("_loss", *(f"_{metric}" for metric in METRICS)))


def parse_line(line: str) -> Iterator[tuple[str, int, float]]:
    """Yield name, update and value of each plotted value in a line of a log.

    Names in validation have the split as prefix, means over an epoch ``train_``.
    """
    if COUNT not in line:
        return
    record = _parse_json(line) or _parse_text(line)
    try:
        count = next(name for name in record if name.endswith(COUNT))
        update = int(record[count])
    except (ValueError, TypeError, StopIteration):
        return  # another dictionary, or a truncated line
    split = count[: -len(COUNT)]  # "" in training, "eval_" in validation
    for name, value in record.items():
        own = name[len(split) :] if name.startswith(split) else ""
        if own == "loss" or _is_plotted(own, is_training=split in ("", EPOCH)):
            try:
                yield name, update, float(value)
            except (ValueError, TypeError):
                continue


def _is_plotted(name: str, is_training: bool) -> bool:
    if not is_training:
        return name in METRICS
    return name.startswith("loss_") or name in (*VARIANCES, *OPTIMIZATION)


def _parse_json(line: str) -> dict[str, str]:
    """Parse ``{"loss": "2.5", ..., "num_updates": "10"}``, with any text before it."""
    brace = line.find("{")
    if brace < 0:
        return {}
    try:
        record = json.loads(line[brace:])
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _parse_text(line: str) -> dict[str, str]:
    """Parse the lines of the formats ``simple`` and ``tqdm``, with the names of JSON.

    They are ``loss=2.5, num_updates=10`` within an epoch and ``| loss 2.5 | num_updates 10`` at its
    end.
    """
    pairs = dict(_PAIR.findall(line))
    if COUNT in pairs:
        return pairs
    fields = [field.split() for field in line.split(" | ")]
    validation = _VALIDATION.search(line)
    prefix = f"{validation[1]}_" if validation else EPOCH
    return {prefix + field[0]: field[1] for field in fields if len(field) == 2}
