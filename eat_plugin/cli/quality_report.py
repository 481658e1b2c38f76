"""The options and the picture of `eat manifest --check`."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from eat_plugin.cli import add_channels
from eat_plugin.prepare.amounts import count
from eat_plugin.prepare.arrangement import ListedClip
from eat_plugin.prepare.quality import (
    CLIPPED_SHARE,
    PHASE_DB,
    PROBLEMS,
    SHORTEST,
    SILENCE_DBFS,
    Examination,
)
from eat_plugin.report.charts import BAR_COLOUR, MEAN_COLOUR, escape, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST_SHOWN = -100  # dBFS
MOST_CLASSES = 40  # drawn
EPILOG = f"""
--check decodes every clip, so that damage inside a file shows now and not in training: such clips
go to rejected.tsv. quality.csv has a line for each other clip, with its problems:
  silent      the peak is below {SILENCE_DBFS:g} dBFS in each tenth of a second, without its mean
  clipped     more than {CLIPPED_SHARE:.1%} of the samples are at full scale
  phase       channels that cancel out, as a signal and its inverse do: their average is more than
              {PHASE_DB:g} dB below them (for N channels: {PHASE_DB:g} dB + 10 lg(N / 2))
  short       shorter than {1000 * SHORTEST:g} ms, one frame, although its header says more
  duplicate   same samples as an earlier clip; a wav file and its flac copy are duplicates
Levels are those of the signal that a model hears, the average of the channels. To use clips with
'phase', train with task.channels=first or loudest; --channels checks that signal.
quality.png shows lengths, rates, levels and classes; with --split NAME the files are
quality.NAME.csv and quality.NAME.png. Clips with problems stay in the manifest unless --drop
excludes them: eat manifest /my/audio --out data --check --drop silent,duplicate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="decode all clips and report their problems"
    )
    add_channels(parser)
    parser.add_argument(
        "--drop",
        metavar="PROBLEM",
        nargs="+",
        type=_split_problems,
        default=[],
        help="with --check: exclude clips with these problems, separated by commas or spaces "
        f"({', '.join(PROBLEMS)})",
    )


def _split_problems(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PROBLEMS:
            raise argparse.ArgumentTypeError(f"{name!r}: choose from {', '.join(PROBLEMS)}")
    return names


def draw(clips: list[tuple[ListedClip, Examination]]) -> Figure:
    """Draw lengths, levels, rates, and classes or silence."""
    examinations = [one for _, one in clips]
    classes = Counter(label for clip, _ in clips for label in clip.labels)
    figure, axes = new_figure(9, 6, 2, 2)
    seconds = np.array([one.seconds for one in examinations])
    axes[0, 0].hist(seconds, bins=40, range=(0, 1.05 * seconds.max()), color=BAR_COLOUR)
    axes[0, 0].set(title="length", xlabel="seconds", ylabel="clips")
    levels = [
        np.clip([one.rms_dbfs for one in examinations], LOWEST_SHOWN, None),
        np.clip([one.peak_dbfs for one in examinations], LOWEST_SHOWN, None),
    ]
    axes[0, 1].hist(
        levels, bins=40, label=["root mean square", "peak"], histtype="stepfilled", alpha=0.7,
        color=[BAR_COLOUR, MEAN_COLOUR],
    )  # fmt: skip
    axes[0, 1].axvline(SILENCE_DBFS, color="grey", linewidth=0.8, label="silence")
    axes[0, 1].set(title="level", xlabel="dB of full scale", ylabel="clips")
    axes[0, 1].legend(frameon=False, fontsize=8)
    rates = Counter(f"{one.rate / 1000:g}" for one in examinations)
    shown = sorted(rates, key=float)
    axes[1, 0].bar(shown, [rates[rate] for rate in shown], width=0.5, color=BAR_COLOUR)
    axes[1, 0].set(title="rate", xlabel="kHz", ylabel="clips")
    if classes:
        common = classes.most_common(MOST_CLASSES)
        names = [escape(label) for label, _ in common]
        axes[1, 1].bar(range(len(common)), [count for _, count in common], color=BAR_COLOUR)
        axes[1, 1].set_xticks(range(len(common)), names, rotation=90)
        more = f", the {MOST_CLASSES} largest" if len(classes) > MOST_CLASSES else ""
        axes[1, 1].set(title=f"{count(len(classes), 'class')}{more}", ylabel="clips")
    else:
        shares = [one.silent_share for one in examinations]
        axes[1, 1].hist(shares, bins=40, range=(0, 1), color=BAR_COLOUR)
        axes[1, 1].set(title="silence", xlabel="share of a clip", ylabel="clips")
    return figure
