"""What a run logged, read back: each loss, the variances, the metric, update by update.

Contents: ``read_curves`` (a folder of logs -> numbers) and ``parse_line`` (one line of a log).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

VARIANCES = ("target_var", "pred_var")
MAIN = ("accuracy", "mAP")  # metrics of fine-tuning; the first one that was logged is shown
COUNT = "num_updates"
EPOCH = "train_"  # of the mean of an epoch, all of whose updates are there already

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of a logged quantity -> its updates, and its value at each."""


def read_curves(run_dir: Path) -> Curves:
    """Collect what a run logged, from the ``*.log`` files of its folder.

    Where an update was logged twice (a run that was resumed, two log files), the last one counts.

    Args:
        run_dir: folder of the run.

    Returns:
        ``loss``, then each ``loss_*`` by name, of a split ``eval`` the ``eval_loss`` and
        ``eval_accuracy`` or ``eval_mAP``, then the variances, as far as they were logged.

    Raises:
        ValueError: if there is no such folder, or no update in its logs.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a folder of a run")
    values: dict[str, dict[int, float]] = {}
    for path in sorted(run_dir.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for name, update, value in parse_line(line):
                    values.setdefault(name, {})[update] = value
    losses = sorted(name for name in values if name.startswith("loss"))
    if not losses:
        raise ValueError(
            f"no *.log file in {run_dir} has a logged update; training writes one with "
            f"common.log_format=json hydra.run.dir={run_dir}"
        )
    names = losses + sorted(name for name in values if name.endswith("_loss"))
    for metric in MAIN:
        found = sorted(name for name in values if name.endswith(f"_{metric}"))
        if found:
            names += found
            break
    names += [name for name in VARIANCES if name in values]
    return {
        name: (sorted(values[name]), [values[name][u] for u in sorted(values[name])])
        for name in names
    }


def parse_line(line: str) -> Iterator[tuple[str, int, float]]:
    """Find the losses, variances and metrics in a line of a log.

    Args:
        line: ``[time][train_inner][INFO] - {...}`` as hydra writes it, or the JSON object alone.

    Yields:
        Name, update and value of each; nothing for any other line.
    """
    brace = line.find("{")
    if brace < 0 or COUNT not in line:
        return
    try:
        record = json.loads(line[brace:])
        count = next(name for name in record if name.endswith(COUNT))
        update = int(record[count])
    except (ValueError, TypeError, StopIteration):
        return  # a line that was cut off, or a dictionary that only looks like a record
    split = count[: -len(COUNT)]  # "" in training, "eval_" in validation
    if split == EPOCH:
        return
    for name, value in record.items():
        own = name[len(split) :] if name.startswith(split) else ""
        if own == "loss" or own in (MAIN if split else VARIANCES) or name.startswith("loss_"):
            try:
                yield name, update, float(value)
            except (ValueError, TypeError):
                continue
