"""Charts of an evaluation, and the common style of all charts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 80  # classes; of more, the best and the worst are shown
MOST_NAMES = 60  # classes with names in a matrix
MOST_COUNTS = 20  # classes with counts in a matrix
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
    """Draw the average precisions [classes], best first; NaN is left out."""
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
    """Draw counts [true class, predicted class] as shares of each true class."""
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


def write_picture(command: str, path: Path, draw: Callable[[], Figure]) -> None:
    """Draw and write a PNG file; without matplotlib, print why there is none."""
    try:
        picture = draw()
    except ValueError as error:
        sys.stderr.write(f"eat {command}: no picture: {error}\n")
        return
    with replacing(path) as file:
        picture.savefig(file, format="png", dpi=120)


@contextmanager
def styled_figure(
    width: float, height: float, style: dict[Any, Any] | None = None
) -> Iterator[Figure]:
    """Yield an empty picture in the style of this package, with ``style`` on top; in inches.

    Raises:
        ValueError: matplotlib is not installed.
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
    """Return an empty picture and its axes, an array if there are several."""
    with styled_figure(width, height) as figure:
        return figure, figure.subplots(rows, columns)


def escape(name: str) -> str:
    """Return a name that matplotlib shows literally."""
    return name.replace("$", r"\$")  # otherwise a formula


def shorten(name: str, length: int) -> str:
    """Return the end of a long path."""
    return name if len(name) <= length else "…" + name[-length + 1 :]
