"""Interactive charts of a report, as Vega-Lite specifications (plain data).

Colours of text and grid are left to the style sheet of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..monitoring.values import PREFIX
from ..records import EPOCH
from .references import Reference
from .runlog import (
    CLIPS_A_SECOND,
    LOSS_SCALE,
    METRICS,
    OPTIMIZATION,
    TITLES,
    VARIANCES,
    Curves,
    find_alone,
    is_of_validation,
)

MOST_POINTS = 500  # of a curve without gaps; more cannot be told apart
COLOURS = (
    "#4c78a8", "#e4572e", "#3f9b61", "#d99a1c", "#8f63b8", "#1aa3b8", "#9c755f", "#e377c2",
    "#7f7f7f", "#222222",
)  # fmt: skip
GREY = "#8a8f98"
HEALTHY = "healthy run"
# fairseq's own values that say nothing of learning.
UNSHOWN = {
    "wps", "ups", "wpb", "bsz", "num_updates", "train_wall", "wall", "epoch", "clip", "gb_free",
    "cuda_gb_allocated", "cuda_gb_reserved", "cuda_gb_free", "ntokens", "nsentences", "ppl",
    "masked_pct", "nll_loss", "update",
}  # fmt: skip


class Chart(NamedTuple):
    """A chart of the page."""

    title: str
    spec: dict[str, Any]


def group_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Sort the names of logged values into titled groups, in the order of the page."""
    groups: dict[str, list[str]] = {
        "Losses": [], "Validation": [], "Monitoring": [], "Optimisation": [],
        "Teacher and targets": [], "Other values": [], "Speed": [],
    }  # fmt: skip
    for name in sorted(names):
        base = name.partition("_")[2] if is_of_validation(name) else name
        if base in UNSHOWN or name.startswith(EPOCH):
            continue
        if name == "loss" or (name.startswith("loss_") and name != LOSS_SCALE):
            title = "Losses"
        elif name.startswith(PREFIX):
            title = "Monitoring"
        elif is_of_validation(name):
            title = "Validation"
        elif name in OPTIMIZATION:
            title = "Optimisation"
        elif name in VARIANCES or name.startswith(("ema_", "dino_")) or name == "model_norm":
            title = "Teacher and targets"
        elif name == CLIPS_A_SECOND or name.startswith("skipped"):
            title = "Speed"
        else:
            title = "Other values"
        groups[title].append(name)
    return {title: found for title, found in groups.items() if found}


def draw_curve(
    name: str,
    runs: Mapping[str, Curves],
    references: Sequence[Reference] = (),
    healthy: Curves | None = None,
) -> Chart:
    """Draw a value over updates: the runs, reference values and a healthy run behind them.

    The updates zoom by dragging and by the wheel with ctrl, and a double click shows all again.
    Where a value is not finite the line has a gap, and the update is marked.
    """
    rows = [row for run, curves in runs.items() for row in _rows(run, curves.get(name))]
    last = max(row["update"] for row in rows)
    layers = list(_draw_references(references, last))
    if healthy and name in healthy:
        behind = [row for row in _rows(HEALTHY, healthy[name]) if row["update"] <= last]
        layers.append({
            "data": {"values": behind},
            "mark": {"type": "line", "strokeDash": [2, 3], "color": GREY, "clip": True},
            "encoding": {"x": _field("update"), "y": _field("value")},
        })  # fmt: skip
    colour: dict[str, Any] = {"field": "run", "type": "nominal", "title": None, "sort": list(runs)}
    colour["scale"] = {"domain": list(runs), "range": list(COLOURS)}
    colour["legend"] = {"orient": "bottom", "columns": 1} if len(runs) > 1 else None
    gaps = [row for row in rows if row["value"] is None]
    if gaps:
        tooltip = {"value": "not a finite number"}
        layers.append({
            "data": {"values": gaps},
            "mark": {"type": "rule", "strokeDash": [2, 2], "clip": True},
            "encoding": {"x": _field("update"), "color": colour, "tooltip": tooltip},
        })  # fmt: skip
    scale: dict[str, Any] = {"zero": name in VARIANCES or name.endswith(METRICS)}
    if name == LOSS_SCALE:
        scale = {"type": "log", "base": 2}
    encoding = {
        "x": {**_field("update"), "title": "updates", "axis": {"tickCount": 4, "format": "~s"}},
        "y": {
            **_field("value"), "title": None, "scale": scale,
            "axis": {"tickCount": 5, "format": ".6~g"},
        },
        "color": colour,
    }  # fmt: skip
    near = [
        {**_field("update"), "title": "update", "format": ",d"},
        {**_field("value"), "title": name, "format": ".5~g"},
    ]
    if len(runs) > 1:
        near.append({"field": "run", "type": "nominal"})
    zoom = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.ctrlKey]"}
    pointer = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    is_near = {"param": "near", "empty": False, "value": 1}
    shown = {"condition": [is_near, {"test": "datum.alone", "value": 1}], "value": 0}
    layers += [
        {
            "params": [{"name": "zoom", "select": zoom, "bind": "scales"}],
            "mark": {"type": "line", "clip": True, "point": len(rows) < 20 * len(runs)},
            "encoding": encoding,
        },
        {
            "params": [{"name": "near", "select": pointer}],
            "mark": {"type": "point", "filled": True, "size": 60, "clip": True},
            "encoding": {**encoding, "opacity": shown, "tooltip": near},
        },
    ]
    return Chart(TITLES.get(name, name), {**_base(170), "data": {"values": rows}, "layer": layers})


def _rows(run: str, curve: tuple[list[int], list[float]] | None) -> Iterator[dict[str, Any]]:
    if curve is None:
        return
    updates, values = curve
    shown = _thin(values)
    alone = set(find_alone([values[index] for index in shown]))
    for place, index in enumerate(shown):
        value = float(f"{values[index]:.6g}") if math.isfinite(values[index]) else None
        row = {"run": run, "update": updates[index], "value": value}
        yield {**row, "alone": True} if place in alone else row


def _thin(values: Sequence[float]) -> list[int]:
    """Return the indices of the points to draw.

    They are the least and the largest value of each stretch, and one that is not finite.
    """
    if len(values) <= MOST_POINTS:
        return list(range(len(values)))
    known = np.array(values[:-1])
    known[~np.isfinite(known)] = np.nan
    kept, first = {len(values) - 1}, 0
    for stretch in np.array_split(known, (MOST_POINTS - 1) // 2):
        order = first + stretch.argsort()  # NaN last
        largest = max(np.isfinite(stretch).sum(), 1) - 1
        kept.update(int(order[place]) for place in (0, largest, -1))
        first += len(stretch)
    return sorted(kept)


def _draw_references(references: Sequence[Reference], last: int) -> Iterator[dict[str, Any]]:
    for kind, value, label in references:
        if kind == "update" and value > last:
            continue
        axis = "x" if kind == "update" else "y"
        mark: dict[str, Any] = {"type": "rule", "strokeDash": [5, 4], "color": GREY}
        if kind == "band":
            mark = {"type": "rect", "color": "#c8553d", "opacity": 0.15}
        encoding: dict[str, Any] = {axis: {"datum": value}, "tooltip": {"value": label}}
        if kind == "band":
            encoding["y2"] = {"datum": 0}
        yield {"data": {"values": [{}]}, "mark": mark, "encoding": encoding}


def draw_classes(names: Sequence[str], precisions: np.ndarray, clips: np.ndarray) -> Chart:
    """Draw the average precision of each class, sorted as the reader chooses; NaN is left out."""
    rows = [
        {"class": name, "AP": round(float(precision), 4), "clips": int(number), "index": index}
        for index, (name, precision, number) in enumerate(zip(names, precisions, clips))
        if not math.isnan(precision)
    ]
    choices = ["AP", "clips", "name", "index"]
    order = (
        "sort_by == 'AP' ? -datum.AP : sort_by == 'clips' ? -datum.clips : "
        "sort_by == 'index' ? datum.index : datum.alphabetic"
    )
    for place, row in enumerate(sorted(rows, key=lambda row: str(row["class"]).lower())):
        row["alphabetic"] = place
    select = {"input": "select", "options": choices, "name": "sort by "}
    spec = {
        **_base(14 * len(rows)),
        "params": [{"name": "sort_by", "value": "AP", "bind": select}],
        "data": {"values": rows},
        "transform": [{"calculate": order, "as": "place"}],
        "mark": {"type": "bar", "color": COLOURS[0]},
        "encoding": {
            "y": {
                "field": "class", "type": "nominal", "title": None,
                "sort": {"field": "place", "op": "min"}, "axis": {"labelLimit": 200},
            },
            "x": {**_field("AP"), "title": "average precision", "scale": {"domain": [0, 1]}},
            "tooltip": [{"field": "class", "type": "nominal"}, _field("AP"), _field("clips")],
        },
    }  # fmt: skip
    return Chart("average precision of each class", spec)


def draw_confusion(names: Sequence[str], counts: np.ndarray) -> Chart:
    """Draw counts [true class, predicted class] as shares of each true class."""
    totals = np.maximum(counts.sum(axis=1), 1)
    rows = [
        {
            "true": names[i], "predicted": names[j], "clips": int(counts[i, j]),
            "share": round(float(counts[i, j] / totals[i]), 4),
        }
        for i, j in zip(*np.nonzero(counts))
    ]  # fmt: skip
    axis = {"type": "nominal", "scale": {"domain": list(names)}, "axis": {"labelLimit": 120}}
    share = {**_field("share"), "scale": {"scheme": "blues", "domain": [0, 1]}, "title": "share"}
    spec = {
        **_base(18 * len(names)),
        "data": {"values": rows},
        "mark": "rect",
        "encoding": {
            "y": {"field": "true", **axis},
            "x": {"field": "predicted", **axis},
            "color": share,
            "tooltip": [
                {"field": "true", "type": "nominal"}, {"field": "predicted", "type": "nominal"},
                _field("clips"), _field("share"),
            ],
        },
    }  # fmt: skip
    return Chart("confusion matrix: shares of each true class", spec)


def _base(height: int) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "background": "transparent",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {
            "view": {"stroke": None},
            "axis": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"},
            "legend": {"labelFontSize": 11, "labelLimit": 300},
        },
    }


def _field(name: str) -> dict[str, Any]:
    return {"field": name, "type": "quantitative"}
