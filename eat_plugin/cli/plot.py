"""Plot the losses of a run, and for pre-training a clip and its masks.

Plots each loss over updates from the logs of a run (common.log_format=json), the metric of
fine-tuning or the variances that show a collapse, and for pre-training a clip and several masks.

example: eat plot --run runs/quickstart --out losses.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eat_plugin.cli import say
from eat_plugin.cli.charts import BAR_COLOUR, MEAN_COLOUR, styled_figure
from eat_plugin.cli.runlog import (
    VARIANCES,
    Curves,
    Example,
    find_checkpoint,
    read_curves,
    read_example,
)
from eat_plugin.data.frames import FRAME_SHIFT, HIGH_HZ, LOW_HZ, SAMPLE_RATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FREQUENCY_TICKS = (250, 500, 1000, 2000, 4000)  # Hz
HIDDEN_COLOUR = "#dcdfe4"
STYLE = {"axes.titlesize": 10, "ytick.labelsize": 8, "legend.fontsize": 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        dest="run_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the run (hydra.run.dir) with logs and checkpoint",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PNG", help="picture to write (png, pdf, svg)"
    )


def run(args: argparse.Namespace) -> int:
    curves = read_curves(args.run_dir)
    example = read_example(find_checkpoint(args.run_dir))
    figure = draw_figure(curves, example, args.run_dir.resolve().name)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)
    say(str(args.out))
    return 0


def draw_figure(curves: Curves, example: Example | None, title: str) -> Figure:
    """Draw the losses, and below them the clip and its masks if there is an example."""
    with styled_figure(13, 3.6 if example is None else 7.2, STYLE) as figure:
        last = max(updates[-1] for updates, _ in curves.values())
        figure.suptitle(f"{title}: {last:,} updates", fontsize=13, fontweight="bold")
        if example is None:
            _draw_curves(figure, curves)
            return figure
        halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15), hspace=0.04)
        _draw_curves(halves[0], curves)
        _draw_example(halves[1], example)
    return figure


def _draw_curves(figure: SubFigure | Figure, curves: Curves) -> None:
    """Draw a panel per loss and metric, and one for the variances."""
    losses = [name for name in curves if name not in VARIANCES]
    variances = [name for name in VARIANCES if name in curves]
    panels = [[name] for name in losses] + ([variances] if variances else [])
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, names in zip(all_axes, panels):
        for name, colour in zip(names, (BAR_COLOUR, MEAN_COLOUR)):
            updates, values = curves[name]
            marker = "o" if len(updates) < 2 else ""
            axes.plot(updates, values, color=colour, linewidth=1.6, marker=marker, label=name)
        axes.set_title(names[0] if len(names) == 1 else " and ".join(names), loc="left")
        axes.set_xlabel("updates")
        axes.grid(alpha=0.25)
        axes.margins(x=0.02)
        if len(names) > 1:
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False)
    all_axes[0].set_ylabel("as logged")


def _draw_example(figure: SubFigure, example: Example) -> None:
    """Draw the whole spectrogram, and what each mask keeps of it."""
    half = len(example.masks) // 2
    grid = figure.add_gridspec(2, 2 + half, width_ratios=(1.0,) * (2 + half), wspace=0.06)
    whole = figure.add_subplot(grid[:, :2])
    image = _draw_spectrogram(whole, example)
    whole.set_title(f"teacher's view: {_shorten(example.name)}", loc="left")
    num_frames = len(example.spectrogram)
    num_padded = int(np.isnan(example.spectrogram).all(axis=1).sum())
    if num_padded > num_frames // 10:
        middle = (1 - num_padded / num_frames / 2, 0.5)
        whole.text(*middle, "padding", transform=whole.transAxes, ha="center", color="grey")
    whole.set_xlabel("time (s)")
    whole.set_ylabel("frequency (Hz, mel scale)")
    figure.colorbar(image, ax=whole, label="normalised log-mel energy", pad=0.015, aspect=30)
    for number, mask in enumerate(example.masks):
        row, column = divmod(number, half)
        axes = figure.add_subplot(grid[row, 2 + column])
        _draw_spectrogram(axes, example)
        _cover_hidden(axes, mask, example)
        axes.set_title(f"student's view {number + 1}: {1 - mask.mean():.0%} kept", loc="left")
        axes.set_xlabel("time (s)" if row == 1 else "")
        axes.tick_params(labelbottom=row == 1, labelleft=column == 0)


def _draw_spectrogram(axes: Axes, example: Example) -> Any:
    """Draw the clip, time in seconds along x, mel scale along y."""
    num_frames, num_bins = example.spectrogram.shape
    low, high = np.nanpercentile(example.spectrogram, (2, 99.8))
    axes.set_facecolor("white")
    image = axes.imshow(
        example.spectrogram.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=high,
        extent=(0, num_frames * FRAME_SHIFT / SAMPLE_RATE, 0, num_bins),
        interpolation="nearest",
    )
    axes.set_yticks([_mel_position(hz) * num_bins for hz in FREQUENCY_TICKS])
    axes.set_yticklabels([str(hz) for hz in FREQUENCY_TICKS])
    return image


def _cover_hidden(axes: Axes, mask: np.ndarray, example: Example) -> None:
    """Cover the hidden patches of a mask, bool ``[T / patch, F / patch]``."""
    from matplotlib.colors import ListedColormap

    rows, columns = mask.shape
    seconds = rows * example.patch * FRAME_SHIFT / SAMPLE_RATE
    axes.imshow(
        np.ma.masked_equal(mask.T, 0),
        origin="lower",
        aspect="auto",
        cmap=ListedColormap([HIDDEN_COLOUR]),
        extent=(0, seconds, 0, columns * example.patch),
        interpolation="nearest",
    )


def _mel_position(hz: float) -> float:
    """Return the position of a frequency on the mel axis, from 0 to 1."""
    low, value, high = (math.log1p(f / 700) for f in (LOW_HZ, hz, HIGH_HZ))
    return (value - low) / (high - low)


def _shorten(name: str, length: int = 44) -> str:
    """Return the end of a long path."""
    return name if len(name) <= length else "…" + name[-length + 1 :]
