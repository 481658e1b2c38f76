"""The curves of a run, from its log in each format that fairseq writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import CONSOLE, EPOCH, parse_record

VARIANCES = ("target_var", "pred_var")
LOSS_SCALE = "loss_scale"
OPTIMIZATION = ("lr", "gnorm", LOSS_SCALE)
CLIPS_A_SECOND = "clips_per_second"  # computed from updates a second and clips of an update
METRICS = ("accuracy", "mAP")  # of fine-tuning; the first one in the log is shown
TITLES = {
    "loss": "loss: training objective",
    "loss_cls": "loss_cls: whole clip",
    "loss_recon": "loss_recon: patch values",
    "loss_regression": "loss_regression: features",
    "lr": "lr: learning rate",
    "gnorm": "gnorm: gradient norm",
    "ema_decay": "ema_decay: of the teacher, x 1000",
    LOSS_SCALE: "loss_scale of float16",
    CLIPS_A_SECOND: "clips per second",
}

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of a logged value -> updates, and the value at each."""
Values = dict[str, dict[int, float]]  # the same, by update


def read_curves(run_dir: Path) -> Curves:
    """Collect the logged values from ``console.txt`` and the ``*.log`` files of a run.

    An update counts once: the last value in the last file is used. Where a run has started again
    from an earlier update, what it had logged behind it is left out. If no single updates are
    logged (log_format=tqdm, short epochs), the means over epochs are used. The order is: losses,
    validation loss and metric, variances, learning rate, gradient norm, loss scale of float16.

    Raises:
        ValueError: there is no such folder, or no logged update in it.
    """
    found = read_series(run_dir, parse_line)
    return {name: found[name] for name in _order_names(found)}


def read_series(run_dir: Path, parse: Callable[[str], Iterator[tuple[str, int, float]]]) -> Curves:
    """Collect what ``parse`` finds in each line, see ``read_curves``; by name.

    Raises:
        ValueError: there is no such folder, or no logged update in it.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a folder of a run")
    values: Values = {}
    for path in (run_dir / CONSOLE, *sorted(run_dir.glob("*.log"))):
        if not path.is_file():
            continue
        _read_log(path, parse, values)
    for name in [name for name in values if name.startswith(EPOCH)]:
        values.setdefault(name[len(EPOCH) :], values.pop(name))
    if "loss" not in values:
        raise ValueError(
            f"no logged update in {run_dir} (*.log, {CONSOLE}); training logs every "
            f"common.log_interval updates with common.log_format=json (or simple, tqdm; not none) "
            f"and hydra.run.dir={run_dir}"
        )
    return {
        name: (sorted(found), [found[update] for update in sorted(found)])
        for name, found in values.items()
        if found  # not all before a restart
    }


def _read_log(
    path: Path, parse: Callable[[str], Iterator[tuple[str, int, float]]], values: Values
) -> None:
    """Add the values of a log to those of others."""
    reached = 0
    # A progress bar ends its lines with "\r", which text mode treats as a line break.
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            records = list(parse(line))
            if records:
                update = records[0][1]  # the same for all values of a line
                if update < reached:  # the run has started again
                    for found in values.values():
                        _drop_from(found, update)
                reached = update
            for name, update, value in records:
                values.setdefault(name, {})[update] = value


def _drop_from(found: dict[int, float], update: int) -> None:
    """Remove the values from an update on."""
    for later in [each for each in found if each >= update]:
        del found[later]


def find_alone(values: Sequence[float]) -> list[int]:
    """Return the places of finite values that a line would not show: no neighbour is finite."""
    known = [False, *map(math.isfinite, values), False]
    return [
        place for place in range(len(values)) if known[place : place + 3] == [False, True, False]
    ]


def _order_names(values: Mapping[str, object]) -> list[str]:
    losses = sorted(n for n in values if n.startswith("loss") and n != LOSS_SCALE)
    losses += sorted(n for n in values if n.endswith("_loss"))
    found: list[str] = []
    for metric in METRICS:
        found = found or sorted(n for n in values if n.endswith(f"_{metric}"))
    return losses + found + [n for n in (*VARIANCES, *OPTIMIZATION) if n in values]


def without_unused_rate(curves: Curves, cfg: Mapping[str, Any]) -> Curves:
    """Leave out the learning rate after the last update: fairseq's schedule starts again there."""
    last = (cfg.get("optimization") or {}).get("max_update")
    updates, values = curves.get("lr", ([], []))
    if len(updates) < 2 or updates[-1] != last:
        return curves
    return {**curves, "lr": (updates[:-1], values[:-1])}


def is_of_validation(name: str) -> bool:
    """Whether a curve is the loss or metric of a validation split, as ``eval_loss``."""
    return name.endswith(("_loss", *(f"_{metric}" for metric in METRICS)))


def parse_line(line: str) -> Iterator[tuple[str, int, float]]:
    """Yield name, update and value of each plotted value in a line of a log.

    Names in validation have the split as prefix, means over an epoch ``train_``.
    """
    record = parse_record(line)
    if record is None:
        return
    for name, value in record.values.items():
        if name == "loss" or _is_plotted(name, is_training=record.prefix in ("", EPOCH)):
            yield record.prefix + name, record.update, value


def parse_all(line: str) -> Iterator[tuple[str, int, float]]:
    """Yield name, update and value of each number in a line of a log.

    Of validation, loss and metrics alone.
    """
    record = parse_record(line)
    if record is None:
        return
    values = dict(record.values)
    if record.prefix not in ("", EPOCH):
        values = {name: value for name, value in values.items() if name in ("loss", *METRICS)}
    if {"ups", "bsz"} <= values.keys():
        values[CLIPS_A_SECOND] = values["ups"] * values["bsz"]
    for name, value in values.items():
        yield record.prefix + name, record.update, value


def _is_plotted(name: str, is_training: bool) -> bool:
    if not is_training:
        return name in METRICS
    return name.startswith("loss_") or name in (*VARIANCES, *OPTIMIZATION)
