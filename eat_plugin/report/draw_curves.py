"""Drawing of the curves of a run, and of several runs in the same axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .charts import BAR_COLOUR, MEAN_COLOUR, escape, styled_figure
from .references import Reference
from .runlog import (
    LOSS_SCALE,
    METRICS,
    OPTIMIZATION,
    TITLES,
    VARIANCES,
    Curves,
    find_alone,
    is_of_validation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

STYLE = {"axes.titlesize": 10, "ytick.labelsize": 8, "legend.fontsize": 8}
REFERENCE_COLOUR = "#6b6f76"
RUN_COLOURS = (BAR_COLOUR, MEAN_COLOUR, "#e3a72f", "#6fb3d2", "#222222")
MOST_PANELS = 4  # in a row
NOT_FINITE = "not finite"


def arrange_panels(curves: Curves) -> list[list[list[str]]]:
    """Arrange curves in rows of panels: losses and metrics, then variances and optimization."""
    variances = [name for name in VARIANCES if name in curves]
    lower = ([variances] if variances else []) + [[n] for n in OPTIMIZATION if n in curves]
    upper = [[n] for n in curves if n not in VARIANCES and n not in OPTIMIZATION]
    size = math.ceil(len(upper) / math.ceil(len(upper) / MOST_PANELS))
    rows = [upper[start : start + size] for start in range(0, len(upper), size)]
    return [*rows, lower] if lower else rows


def draw_panels(
    figures: Sequence[Figure | SubFigure],
    rows: list[list[list[str]]],
    curves: Curves,
    references: Mapping[str, list[Reference]],
) -> None:
    """Draw each row of panels into its figure."""
    for figure, row in zip(figures, rows):
        all_axes = figure.subplots(1, len(row), squeeze=False)[0]
        for axes, names in zip(all_axes, row):
            for name, colour in zip(names, (BAR_COLOUR, MEAN_COLOUR)):
                _draw_curve(axes, *curves[name], color=colour, label=name)
            for name in names:
                _draw_references(axes, references.get(name, ()), curves[name][0][-1])
            _finish_panel(axes, names)
            handles, labels = axes.get_legend_handles_labels()
            if len(labels) > 1:
                start = 1 if len(names) == 1 else 0  # the title names a single curve
                axes.legend(handles[start:], labels[start:], frameon=False)


def draw_comparison(runs: Mapping[str, Curves]) -> Figure:
    """Draw the validation metric and loss of runs, or their training losses, in the same axes.

    Training losses are drawn if a run has no validation.
    """
    names = list(dict.fromkeys(n for curves in runs.values() for n in curves))
    shown = [n for n in names if is_of_validation(n)]
    if not all(curves.keys() & set(shown) for curves in runs.values()):
        shown = [n for n in names if n.startswith("loss") and n != LOSS_SCALE]
    titles = [run if len(run) <= 32 else f"{run[:10]}…{run[-21:]}" for run in runs]
    titles = titles if len(set(titles)) == len(runs) else list(runs)
    shown.sort(key=lambda name: not name.endswith(METRICS))  # the metric first
    rows, columns = math.ceil(len(shown) / 2), min(len(shown), 2)
    with styled_figure(5.0 * columns, 3.8 * rows, STYLE) as figure:
        all_axes = figure.subplots(rows, columns, squeeze=False).flat
        for axes, name in itertools.zip_longest(all_axes, shown):
            if name is None:
                axes.set_axis_off()
                continue
            styles = itertools.cycle(itertools.product(("-", "--", ":"), RUN_COLOURS))
            for title, curves, (line, colour) in zip(titles, runs.values(), styles):
                if name in curves:
                    label = f"{escape(title)}: {_describe_best(name, curves[name][1])}"
                    label = label.replace("_", " _", label.startswith("_"))  # else it is hidden
                    _draw_curve(axes, *curves[name], color=colour, linestyle=line, label=label)
            _finish_panel(axes, [name])
            if name.endswith(METRICS):
                axes.set_ylim(bottom=0)
            axes.legend(framealpha=0.8, edgecolor="none")
    return figure


def _describe_best(name: str, values: list[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    best = (max if name.endswith(METRICS) else min)(finite, default=math.nan)
    return f"{'highest' if name.endswith(METRICS) else 'lowest'} {best:.3g}"


def name_runs(folders: Iterable[Path]) -> list[str]:
    """Name each run by the last parts of its path, as few as distinguish it."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def _draw_curve(axes: Axes, updates: list[int], values: list[float], **style: Any) -> None:
    marked = None if len(updates) < 20 else find_alone(values)
    axes.plot(updates, values, linewidth=1.6, marker="o", markersize=3.5, markevery=marked, **style)
    gaps = [update for update, value in zip(updates, values) if not math.isfinite(value)]
    if gaps:
        height = axes.get_xaxis_transform()
        axes.vlines(
            gaps, 0, 1, colors=style["color"], linestyles=":", transform=height, label=NOT_FINITE
        )


def _draw_references(axes: Axes, references: Iterable[Reference], last: int) -> None:
    dashed: dict[str, Any] = {"color": REFERENCE_COLOUR, "linewidth": 1.1, "linestyle": "--"}
    for kind, value, label in references:
        if kind == "line":
            axes.axhline(value, label=label, **dashed)
        elif kind == "band":
            axes.axhspan(0, value, color=MEAN_COLOUR, alpha=0.18, linewidth=0, label=label)
        elif value <= last:
            axes.axvline(value, label=label, **dashed)


def _finish_panel(axes: Axes, names: list[str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(" and ".join(TITLES.get(name, name) for name in names), loc="left")
    axes.set_xlabel("updates")
    axes.grid(alpha=0.25)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_format_updates))
    if names[0] == LOSS_SCALE:
        axes.set_yscale("log", base=2)
    else:
        # Without an offset, which would overlap the title.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if names[0] in VARIANCES:
        axes.set_ylim(bottom=0)


def _format_updates(value: float, _: Any) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
