"""The results of a head: as data, as text, as a chart, and as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.cli.probe_report import (
    describe_interval,
    describe_sides,
    format_ends,
    format_rows,
    percent,
)
from eat_plugin.prepare.amounts import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eat_plugin.inference.head_training import Plan
    from eat_plugin.inference.probing import Interval, Judge

FILES = ("probe.json", "probe.md", "probe.png", "missing.tsv")


def summarize(
    plan: Plan, judge: Judge, figure: Interval, blocks: list[Interval], weights: list[float] | None
) -> dict[str, Any]:
    """Return the results as data for JSON; undefined numbers are None.

    Args:
        plan: how the head was trained.
        judge: the metric.
        figure: of the head.
        blocks: of the linear probe of each block.
        weights: of each block in the head; None for ``linear``.
    """
    from eat_plugin.inference.probing import LEVEL

    return {
        "metric": judge.metric,
        "level": LEVEL,
        "seed": plan.seed,
        "head": plan.head,
        "prototypes": plan.prototypes,
        "updates": plan.updates,
        **describe_interval(figure),
        "blocks": [
            {
                "block": number + 1,
                "weight": None if weights is None else weights[number],
                "linear": describe_interval(interval),
            }
            for number, interval in enumerate(blocks)
        ],
    }


def format_report(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report: what was probed, the figure, the blocks."""
    yield from describe_sides(summary)
    head = summary["head"]
    size = f" of {count(summary['prototypes'], 'prototype')}" if summary["prototypes"] else ""
    trained = f"{count(summary['updates'], 'update')}, seed {summary['seed']}"
    yield f"head: {head}{size}, {trained}"
    yield f"{summary['metric']} in %, on the held-out clips with the 95 % interval"
    yield ""
    yield f"{head}: {percent(summary['value'])}{format_ends(summary)}"
    yield ""
    cells = [["block", "weight", "linear probe of this block"]]
    for row in summary["blocks"]:
        weight = "" if row["weight"] is None else f"{row['weight']:.3f}"
        linear = percent(row["linear"]["value"]) + format_ends(row["linear"])
        cells.append([str(row["block"]), weight, linear])
    yield from format_rows(cells)


def draw_blocks(summary: dict[str, Any]) -> Figure:
    """Draw the weight of each block as bars, and the linear probe of each block as a line."""
    from eat_plugin.report.charts import BAR_COLOUR, MEAN_COLOUR, escape, new_figure, shorten

    rows = summary["blocks"]
    figure, axes = new_figure(7.5, 3.6)
    numbers = [row["block"] for row in rows]
    figures = [100 * row["linear"]["value"] for row in rows]
    ends = None
    if rows[0]["linear"]["low"] is not None:
        lows, highs = ([100 * row["linear"][end] for row in rows] for end in ("low", "high"))
        ends = [[a - b for a, b in zip(figures, lows)], [b - a for a, b in zip(figures, highs)]]
    axes.errorbar(
        numbers, figures, ends, color=MEAN_COLOUR, marker="o", markersize=3, capsize=2,
        label="linear probe of a block",
    )  # fmt: skip
    if summary["head"] != "linear":
        axes.axhline(
            100 * summary["value"], color=MEAN_COLOUR, linestyle=":", label=summary["head"]
        )
        weights = axes.twinx()
        weights.bar(numbers, [row["weight"] for row in rows], color=BAR_COLOUR, alpha=0.35)
        weights.set_ylabel("weight of a block", fontsize=9)
        weights.tick_params(labelsize=8)
        axes.set_zorder(weights.get_zorder() + 1)  # the line before the bars
        axes.patch.set_visible(False)
    axes.set_xticks(numbers)
    axes.set_xlabel("block", fontsize=9)
    axes.set_ylabel(f"{summary['metric']} (%)", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(escape(shorten(summary["checkpoint"], 60)), loc="left", fontsize=11)
    return figure


def draw_results(out: Path, summary: dict[str, Any]) -> None:
    """Write the chart to a folder, if each block has a figure."""
    from eat_plugin.report.charts import write_picture

    if all(row["linear"]["value"] is not None for row in summary["blocks"]):
        write_picture("probe", out / "probe.png", lambda: draw_blocks(summary))
