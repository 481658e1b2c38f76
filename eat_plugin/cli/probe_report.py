"""The results of a probe: as data, as text, and as files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eat_plugin.cli import Failures
from eat_plugin.data.files import replacing
from eat_plugin.prepare.amounts import count

if TYPE_CHECKING:
    from eat_plugin.inference.probing import Interval, Judge, Outcome, Row

FILES = ("probe.json", "probe.md", "missing.tsv")
METHODS = {"linear": ("linear probe", "C"), "knn": ("neighbours", "k")}


def summarize(
    rows: list[Row], chosen: dict[tuple[str, str], Outcome], judge: Judge, targets: np.ndarray
) -> dict[str, Any]:
    """Return the results as data for JSON; undefined numbers are None.

    Args:
        rows: all rows, marked.
        chosen: the chosen rows, by source and method.
        judge: the metric.
        targets: of the held-out clips, [clips, classes].
    """
    from eat_plugin.inference.clip_vectors import MODEL
    from eat_plugin.inference.probing import FOLDS, LEVEL

    differences = [
        {
            "method": method,
            "source": source,
            **describe_interval(
                judge.compare(chosen[MODEL, method].scores, outcome.scores, targets)
            ),
        }
        for (source, method), outcome in chosen.items()
        if source != MODEL
    ]
    return {
        "metric": judge.metric,
        "level": LEVEL,
        "folds": FOLDS,
        "seed": judge.seed,
        "rows": [_describe_row(row) for row in rows],
        "differences": sorted(differences, key=lambda each: list(METHODS).index(each["method"])),
    }


def _describe_row(row: Row) -> dict[str, Any]:
    described: dict[str, Any] = {
        "source": row.kind.source,
        "layer": row.layer,
        "pooling": row.kind.pooling,
        "width": row.width,
    }
    for method, outcome in row.outcomes.items():
        described[method] = {
            **describe_interval(outcome.heldout),
            "cv": _finite(outcome.cv),
            METHODS[method][1]: outcome.setting,
            "is_chosen": outcome.is_chosen,
        }
    return described


def describe_interval(interval: Interval) -> dict[str, float | None]:
    """Return an interval as data; undefined numbers are None."""
    return {name: _finite(value) for name, value in interval._asdict().items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def format_report(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report: what was probed, the table, the comparisons."""
    yield from describe_sides(summary)
    yield (
        f"{summary['metric']} in %, on the held-out clips with the 95 % interval; cv: on the "
        f"training clips, {summary['folds']}-fold; * best cv of a source"
    )
    yield ""
    yield from _format_table(summary["rows"])
    yield ""
    for each in summary["differences"]:
        ends = format_ends(each, "{:+.1f}")
        yield (
            f"{METHODS[each['method']][0]}, chosen rows: model - {each['source']} "
            f"{percent(each['value'], '{:+.1f}')} points{ends}"
        )


def describe_sides(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what was probed: the checkpoint, both splits, the labels."""
    note = "; its encoder is probed" if summary["kind"] == "fine-tuned" else ""
    yield f"checkpoint: {summary['checkpoint']}, {summary['kind']}{note}"
    for part in (summary["train"], summary["heldout"]):
        role = "learnt from" if part is summary["train"] else "held out"
        yield f"{role}: {_describe_clips(part)}"
    unseen = summary["unseen_classes"]
    missing = f", {unseen} of the held-out split not in training" if unseen else ""
    yield f"labels: {count(summary['classes'], 'class')}{missing}"


def _describe_clips(part: dict[str, Any]) -> str:
    text = f"{part['n_clips']} of {count(part['n_listed'], 'clip')} of {part['split']}"
    if part["n_drawn"] < part["n_listed"]:
        text += f", {part['n_drawn']} drawn by a fixed seed"
    return text + (f", {part['n_missing']} missing" if part["n_missing"] else "")


def _format_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of all rows."""
    cells = [["features", "layer", "vector", "width"]]
    for title, setting in METHODS.values():
        cells[0] += [title, "cv", setting]
    for row in rows:
        layer = "" if row["layer"] is None else str(row["layer"])
        line = [row["source"], layer, row["pooling"], str(row["width"])]
        for method, (_, setting) in METHODS.items():
            outcome = row[method]
            mark = " *" if outcome["is_chosen"] else ""
            line += [
                percent(outcome["value"]) + format_ends(outcome) + mark,
                percent(outcome["cv"]),
                f"{outcome[setting]:g}",
            ]
        cells.append(line)
    yield from format_rows(cells)


def format_rows(cells: list[list[str]]) -> Iterator[str]:
    """Yield a Markdown table with aligned columns; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    rule = ["-" * width for width in widths]
    for line in (cells[0], rule, *cells[1:]):
        yield f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths))} |"


def format_ends(interval: dict[str, Any], form: str = "{:.1f}") -> str:
    """Return the ends of an interval in percent; empty without them."""
    if interval["low"] is None:
        return ""
    return f" ({percent(interval['low'], form)} to {percent(interval['high'], form)})"


def percent(value: float | None, form: str = "{:.1f}") -> str:
    """Return a share in percent."""
    return "-" if value is None else form.format(100 * value)


def write(
    out: Path, summary: dict[str, Any], lines: list[str], splits: tuple[str, str],
    failures: list[Failures],
) -> None:  # fmt: skip
    """Write results, their lines as text, and the list of unusable clips to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "probe.png").unlink(missing_ok=True)  # of an earlier call
    with replacing(out / "probe.json") as file:
        file.write(f"{json.dumps(summary, indent=2)}\n".encode())
    with replacing(out / "probe.md") as file:
        file.writelines(f"{line}\n".encode() for line in lines)
    with replacing(out / "missing.tsv") as file:
        for split, unusable in zip(splits, failures):
            rows = (f"{split}\t{name}\t{reason}\n" for name, reason in unusable.items())
            file.writelines(row.encode() for row in rows)
