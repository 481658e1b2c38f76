"""Pictures of an evaluation: how well each class does, or which is taken for which.

In this file:
    draw_average_precision    bars, for clips of several labels
    draw_confusion            a matrix, for clips of one label
    styled_figure             an empty picture, drawn in the style of this package
    new_figure                the same, with axes
    escape                    a name, as a picture is to show it
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 80  # with more classes, the best and the worst half of them
MOST_NAMES = 60  # classes that a matrix has room to name
MOST_COUNTS = 20  # classes whose counts can be read in a matrix
BAR_COLOUR, MEAN_COLOUR = "#3b5b92", "#c8553d"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 7,
}


def draw_average_precision(names: tuple[str, ...], precisions: np.ndarray, title: str) -> Figure:
    """Draw the average precision of each class that occurs, best first.

    Args:
        names: of the classes.
        precisions: [classes], NaN for a class that does not occur.
        title: of the picture.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    order = np.argsort(-precisions, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(precisions))]
    mean, half, num_known = precisions[order].mean(), MOST_BARS // 2, len(order)
    if num_known > MOST_BARS:
        title += f"; the {half} best and the {half} worst"
        order = np.concatenate([order[:half], order[-half:]])
    rows = np.arange(len(order))
    figure, axes = new_figure(7.5, 1.6 + 0.17 * len(order))
    axes.barh(rows, precisions[order], color=BAR_COLOUR, height=0.7)
    if num_known > MOST_BARS:
        axes.axhline(half - 0.5, color="grey", linewidth=0.8)
    axes.axvline(mean, color=MEAN_COLOUR, linewidth=1.2, label=f"mean {mean:.3f}")
    axes.set_yticks(rows, [escape(names[index]) for index in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    axes.set_title(title, loc="left")
    return figure


def draw_confusion(names: tuple[str, ...], counts: np.ndarray, title: str) -> Figure:
    """Draw which class is taken for which, as shares of each true class.

    Args:
        names: of the classes.
        counts: [classes, classes], true class by predicted class.
        title: of the picture.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    size = float(np.clip(2 + 0.35 * len(names), 5, 16))
    figure, axes = new_figure(size + 1, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(names) <= MOST_NAMES:
        shown = [escape(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90)
        axes.set_yticks(range(len(names)), shown)
    if len(names) <= MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts)):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", color=colour,
                fontsize=8,
            )  # fmt: skip
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, loc="left")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7, aspect=30)
    return figure


@contextmanager
def styled_figure(
    width: float, height: float, style: dict[Any, Any] | None = None
) -> Iterator[Figure]:
    """Make an empty picture, to be drawn on in the style of this package.

    Args:
        width: in inches.
        height: in inches.
        style: what is to be another than in ``STYLE``.

    Yields:
        The picture.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    # Importing fairseq leaves the root logger at DEBUG, where matplotlib reports every font.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "drawing needs matplotlib: pip install matplotlib, or this package's extra 'plot'"
        ) from error
    with rc_context({**STYLE, **(style or {})}):
        yield Figure(figsize=(width, height), layout="constrained")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """Make an empty picture.

    Args:
        width: in inches.
        height: in inches.
        rows: of axes.
        columns: of axes.

    Returns:
        The picture, and its axes; an array of them if there are several.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    with styled_figure(width, height) as figure:
        return figure, figure.subplots(rows, columns)


def escape(name: str) -> str:
    """Return a name as matplotlib takes it literally."""
    return name.replace("$", r"\$")  # otherwise taken for a formula
