"""``eat plot``: one picture of a run.

Above, each loss over updates, and the variances that show a collapse, or the metric of fine-tuning.
Below, of pre-training, a clip as the model sees it, beside a few of the masks that hide parts of
it.

Contents: ``read_example`` (checkpoint -> clip and masks), ``draw_figure`` (that and the logged
numbers -> picture), and the four names that every subcommand has.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eat_plugin.cli import say
from eat_plugin.cli.charts import styled_figure
from eat_plugin.cli.runlog import VARIANCES, Curves, read_curves
from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FRAME_SHIFT, HIGH_HZ, LOW_HZ, SAMPLE_RATE, FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import read_energies
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.models.interop import NO_CHECKPOINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

NAME = "plot"
HELP = "draw the losses of a run, and of pre-training a clip beside its masks"
EXAMPLE = "example: eat plot --run runs/quickstart --out losses.png"

NUM_MASKS = 4
FREQUENCY_TICKS = (250, 500, 1000, 2000, 4000)  # Hz
LINE_COLOUR, SECOND_COLOUR, HIDDEN_COLOUR = "#3b5b92", "#c8553d", "#dcdfe4"
STYLE = {"axes.titlesize": 10, "ytick.labelsize": 8, "legend.fontsize": 8}


@dataclass(frozen=True)
class Example:
    """A clip as a model is trained on it.

    Attributes:
        name: of the clip, as the manifest states it.
        spectrogram: normalised log-mel energies, float32 ``[T, F]``; frames of padding are NaN.
        masks: hidden patches, bool ``[masks, T / patch, F / patch]``.
        patch: side of a patch, in frames and mel bins.
    """

    name: str
    spectrogram: np.ndarray
    masks: np.ndarray
    patch: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Draws each loss over updates from the logs of a run (common.log_format=json); of\n"
        "fine-tuning the metric, of pre-training a clip beside several masks."
    )
    parser.epilog = EXAMPLE
    parser.add_argument(
        "--run",
        dest="run_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the run (hydra.run.dir): logs, checkpoint",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PNG", help="picture to write (png, pdf, svg)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw the picture and name it."""
    curves = read_curves(args.run_dir)
    checkpoint = find_checkpoint(args.run_dir)
    figure = draw_figure(curves, read_example(checkpoint), args.run_dir.resolve().name)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)
    say(str(args.out))
    return 0


def find_checkpoint(run_dir: Path) -> Path:
    """Find the last checkpoint of a run.

    Args:
        run_dir: folder of the run.

    Returns:
        ``checkpoint_last.pt``, or the newest checkpoint where there is none of that name.

    Raises:
        ValueError: if the run has written no checkpoint.
    """
    # Those of other runs below, as of fine-tuning, come first, the newest of this run last.
    found = sorted(
        run_dir.glob("**/*.pt"), key=lambda path: (-len(path.parts), path.stat().st_mtime)
    )
    if not found:
        raise ValueError(f"no checkpoint (*.pt) in {run_dir}; has the run written one yet?")
    named = [path for path in found if path.name == "checkpoint_last.pt"]
    return (named or found)[-1]


def read_example(checkpoint: Path) -> Example | None:
    """Load a clip of the data set that a checkpoint was trained on, and draw masks for it.

    The longest clip is taken, for the least padding.

    Args:
        checkpoint: file that fairseq wrote; only its configuration is used.

    Returns:
        The clip and ``NUM_MASKS`` masks; None of fine-tuning, which has no masks.

    Raises:
        ValueError: if the file is no checkpoint of a run on audio files, or its data cannot be read
            any more.
    """
    configuration = _read_configuration(checkpoint)
    if configuration is None:
        return None
    task, image, split = configuration
    manifest = read_manifest(Path(task.data) / f"{split}.tsv")
    index = int(np.argmax(manifest.sizes))
    front_end = FrontEnd(task.target_length, task.norm_mean, task.norm_std)
    try:
        energies = read_energies(manifest.path(index), front_end)
    except ClipError as error:
        raise ValueError(f"{manifest.path(index)}: {error}") from error
    spectrogram = front_end.finish(energies)[0].numpy()  # [T, F]
    spectrogram[len(energies) :] = np.nan

    grid = (spectrogram.shape[0] // image.patch_size, spectrogram.shape[1] // image.patch_size)
    spec = MaskSpec.from_options(image, grid, flexible=getattr(task, "flexible_mask", False))
    masks = draw_masks(spec, NUM_MASKS, torch.Generator().manual_seed(0))  # [masks, L]
    return Example(
        name=manifest.name(index),
        spectrogram=spectrogram,
        masks=masks.view(NUM_MASKS, *grid).bool().numpy(),
        patch=image.patch_size,
    )


def _read_configuration(checkpoint: Path) -> tuple[Any, Any, str] | None:
    """Return the task's settings, the model's for its input, and the name of the training split.

    None of fine-tuning.
    """
    try:
        # mmap: the weights, which nobody looks at here, stay on disk.
        saved = torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
        saved = saved["cfg"]
        if "num_classes" in saved["model"]:
            return None
        task = SimpleNamespace(**saved["task"])
        image = SimpleNamespace(**saved["model"]["modalities"]["image"])
        split = saved["dataset"]["train_subset"]
        fields = (task.data, task.target_length, task.norm_mean, task.norm_std, image.patch_size)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{checkpoint} was not written by EAT pre-training on audio files: its configuration "
            f"has no {error}"
        ) from error
    except (*NO_CHECKPOINT, OSError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is not a checkpoint that can be read: {reason}") from error
    if None in fields:
        raise ValueError(f"{checkpoint}: task.data and task.target_length must be set")
    return task, image, split


def draw_figure(curves: Curves, example: Example | None, title: str) -> Figure:
    """Draw the losses above and the clip with its masks below.

    Args:
        curves: what ``read_curves`` returned.
        example: what ``read_example`` returned; None leaves the lower half out.
        title: of the picture.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if matplotlib is not installed.
    """
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
    """Draw a panel for each loss and metric, and one for the variances."""
    losses = [name for name in curves if name not in VARIANCES]
    variances = [name for name in VARIANCES if name in curves]
    panels = [[name] for name in losses] + ([variances] if variances else [])
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, names in zip(all_axes, panels):
        for name, colour in zip(names, (LINE_COLOUR, SECOND_COLOUR)):
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
    """Draw the whole spectrogram, and beside it what each mask leaves of it."""
    half = NUM_MASKS // 2
    grid = figure.add_gridspec(2, 2 + half, width_ratios=(1.0,) * (2 + half), wspace=0.06)
    whole = figure.add_subplot(grid[:, :2])
    image = _draw_spectrogram(whole, example)
    whole.set_title(f"what the teacher sees: {_shorten(example.name)}", loc="left")
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
    """Draw the clip with time in seconds along x and frequency on the mel scale along y."""
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
    """Return where a frequency lies on the mel axis, between 0 (lowest) and 1 (highest)."""
    low, value, high = (math.log1p(f / 700) for f in (LOW_HZ, hz, HIGH_HZ))
    return (value - low) / (high - low)


def _shorten(name: str, length: int = 44) -> str:
    """Return the end of a long path."""
    return name if len(name) <= length else "…" + name[-length + 1 :]
