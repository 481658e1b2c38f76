"""Drawing of a clip, its masks, and the prediction of hidden patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.frames import FRAMES_A_SECOND, HIGH_HZ
from .charts import escape, shorten
from .example import Example

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from .features import FeatureView

FREQUENCY_TICKS = (250, 500, 1000, 2000, 4000)  # Hz
HIDDEN_COLOUR = "#dcdfe4"
RECONSTRUCTION = (
    "reconstruction of hidden patches: the predicted pattern, with the mean and deviation of the "
    "true patch"
)


def draw_example(figure: Figure | SubFigure, example: Example) -> None:
    """Draw the whole spectrogram, and for each mask the input and the prediction."""
    count = len(example.masks)
    has_prediction = example.reconstructions is not None or example.agreements is not None
    grid = figure.add_gridspec(1 + has_prediction, 1 + count, width_ratios=(1.5, *[1] * count))
    whole = figure.add_subplot(grid[:, 0])
    image = _draw_spectrogram(whole, example, example.spectrogram)
    whole.set_title(f"teacher's view: {escape(shorten(example.name, 24))}", loc="left")
    num_frames = len(example.spectrogram)
    num_padded = int(np.isnan(example.spectrogram).all(axis=1).sum())
    if num_padded > num_frames // 10:
        middle = (1 - num_padded / num_frames / 2, 0.5)
        whole.text(*middle, "padding", transform=whole.transAxes, ha="center", color="grey")
    whole.set_xlabel("time (s)")
    whole.set_ylabel("frequency (Hz, mel scale)")
    figure.colorbar(image, ax=whole, label="normalised log-mel energy", pad=0.015, aspect=30)
    predictions = []
    for number, mask in enumerate(example.masks):
        views = [figure.add_subplot(grid[row, 1 + number]) for row in range(1 + has_prediction)]
        _draw_spectrogram(views[0], example, example.spectrogram)
        _draw_patches(views[0], example, np.where(mask, 1.0, np.nan), [HIDDEN_COLOUR])
        kept = f"{1 - mask.mean():.0%} kept"
        views[0].set_title(f"student's view {number + 1}: {kept}", loc="left")
        if has_prediction:
            predictions.append(_draw_prediction(views[1], example, number))
        views[-1].set_xlabel("time (s)")
        for row, axes in enumerate(views):
            axes.tick_params(labelbottom=row == len(views) - 1, labelleft=number == 0)
    if example.reconstructions is not None:
        figure.supxlabel(RECONSTRUCTION, fontsize=8, x=0.99, ha="right")
    elif example.agreements is not None:
        label = "cosine to target"
        figure.colorbar(predictions[-1], ax=predictions[-1].axes, label=label, pad=0.015)


def draw_features(figure: Figure, example: Example, view: FeatureView) -> None:
    """Draw a spectrogram, the main components of its patch features, and the attention of CLS."""
    all_axes = figure.subplots(1, 2 + (view.attention is not None), squeeze=False)[0]
    _draw_spectrogram(all_axes[0], example, example.spectrogram)
    all_axes[0].set_title(f"clip: {escape(shorten(example.name, 24))}", loc="left")
    colours = view.components.transpose(1, 0, 2)
    num_frames, num_bins = example.spectrogram.shape
    extent = (0, num_frames / FRAMES_A_SECOND, 0, num_bins)
    all_axes[1].imshow(colours, origin="lower", aspect="auto", extent=extent)
    all_axes[1].set_title("three main components, as red, green and blue", loc="left")
    if view.attention is not None:
        image = _draw_image(all_axes[2], example, view.attention, cmap="viridis", vmin=0)
        all_axes[2].set_title("attention of CLS in the last block", loc="left")
        figure.colorbar(image, ax=all_axes[2], label="1: even", pad=0.015)
    for axes in all_axes:
        axes.set_xlabel("time (s)")
        _show_frequencies(axes, example)


def _draw_prediction(axes: Axes, example: Example, number: int) -> Any:
    if example.reconstructions is not None:
        axes.set_title(f"reconstruction {number + 1}", loc="left")
        hidden = np.isnan(example.spectrogram)
        return _draw_spectrogram(
            axes, example, np.where(hidden, np.nan, example.reconstructions[number])
        )
    assert example.agreements is not None
    values = example.agreements[number]
    axes.set_title(f"agreement {number + 1}: mean {np.nanmean(values):.2f}", loc="left")
    image = _draw_patches(axes, example, values, "viridis")
    _show_frequencies(axes, example)
    return image


def _draw_spectrogram(axes: Axes, example: Example, values: np.ndarray) -> Any:
    """Draw [T, F] with the colours of the clip, time in seconds along x, mel scale along y."""
    low, high = np.nanpercentile(example.spectrogram, (2, 99.8))
    image = _draw_image(axes, example, values, cmap="magma", vmin=low, vmax=high)
    _show_frequencies(axes, example)
    return image


def _draw_patches(axes: Axes, example: Example, values: np.ndarray, colours: Any) -> Any:
    """Draw a value from 0 to 1 per patch, [T / patch, F / patch]; NaN is transparent."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(colours) if isinstance(colours, list) else colours
    return _draw_image(axes, example, values, cmap=colours, vmin=0, vmax=1)


def _draw_image(axes: Axes, example: Example, values: np.ndarray, **style: Any) -> Any:
    num_frames, num_bins = example.spectrogram.shape
    return axes.imshow(
        np.ma.masked_invalid(values.T),
        origin="lower",
        aspect="auto",
        extent=(0, num_frames / FRAMES_A_SECOND, 0, num_bins),
        interpolation="nearest",
        **style,
    )


def _show_frequencies(axes: Axes, example: Example) -> None:
    num_bins = example.spectrogram.shape[1]
    axes.set_yticks([_mel_position(hz, example.low_hz) * num_bins for hz in FREQUENCY_TICKS])
    axes.set_yticklabels([str(hz) for hz in FREQUENCY_TICKS])


def _mel_position(hz: float, low_hz: float) -> float:
    """Return the position of a frequency on the mel axis, from 0 to 1."""
    low, value, high = (math.log1p(f / 700) for f in (low_hz, hz, HIGH_HZ))
    return (value - low) / (high - low)
