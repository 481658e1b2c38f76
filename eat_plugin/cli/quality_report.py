"""`eat manifest --check`: decodes every clip, and tells what the data are like.

In this file:
    add_arguments    the options
    check            decodes the clips, writes quality.csv and quality.png
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eat_plugin.cli import progress, say
from eat_plugin.cli.charts import BAR_COLOUR, MEAN_COLOUR, escape, new_figure
from eat_plugin.data.files import replacing
from eat_plugin.data.tables import write_csv
from eat_plugin.prepare.listing import Clip
from eat_plugin.prepare.quality import (
    CLIPPED_SHARE,
    PROBLEMS,
    SHORTEST,
    SILENCE_DBFS,
    Examination,
    examine_all,
    find_copies,
    name_problems,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE, PICTURE = "quality.csv", "quality.png"
COLUMNS = (
    "path", "seconds", "rate", "channels", "peak_dbfs", "rms_dbfs", "clipped_share",
    "silent_share", "hash", "problems",
)  # fmt: skip
LOWEST_SHOWN = -100  # dBFS
MOST_CLASSES = 40  # that the picture shows
EPILOG = f"""
--check decodes every clip to its end. Damage inside a file shows now, not in training: such a clip
goes to rejected.tsv. {TABLE} has a line for each other clip, with its problems:
  silent      the peak is below {SILENCE_DBFS:g} dBFS
  clipped     more than {CLIPPED_SHARE:.1%} of the samples are at full scale
  short       less than {1000 * SHORTEST:g} ms, one frame
  duplicate   the samples are those of an earlier clip; a wav file and its flac copy count as one
{PICTURE} shows lengths, rates, levels and classes. Clips with problems stay in the manifest, unless
--drop names what to leave out: eat manifest /my/audio --out data --check --drop silent,duplicate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--check", action="store_true", help="decode all clips, and tell what they are like"
    )
    parser.add_argument(
        "--drop",
        metavar="PROBLEM",
        nargs="+",
        action=_Problems,
        default=[],
        help="with --check: leave out clips with these problems, parted by commas or spaces "
        f"({', '.join(PROBLEMS)})",
    )


class _Problems(argparse.Action):
    """Takes names from ``PROBLEMS``, parted by commas or spaces."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Part the names, and refuse one that is unknown."""
        names = [name for value in values or () for name in value.split(",")]
        for name in names:
            if name not in PROBLEMS:
                parser.error(f"{option_string} {name!r}: choose from {', '.join(PROBLEMS)}")
        setattr(namespace, self.dest, names)


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError where the options make no sense."""
    if args.drop and not args.check:
        raise ValueError("--drop leaves out what --check finds; give --check, too")


def check(
    out: Path, root: Path, clips: list[Clip], workers: int, drop: list[str]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Decode the clips, write a table and a picture, print a summary.

    Args:
        out: where to write.
        root: of the clips.
        clips: those whose headers are right.
        workers: processes to use at most.
        drop: problems that leave a clip out.

    Returns:
        The clips that stay, and the names of the others, each with the reason.

    Raises:
        OSError: a file cannot be written.
    """
    paths = [str(root / clip.name) for clip in clips]
    found = list(progress(examine_all(paths, workers), "decoding", "clip", len(paths)))
    rejected = [(clip.name, one) for clip, one in zip(clips, found) if isinstance(one, str)]
    good = [(clip, one) for clip, one in zip(clips, found) if not isinstance(one, str)]
    copies = find_copies([one for _, one in good])
    kept, rows, counts = [], [], Counter[str]()
    for (clip, one), original in zip(good, copies):
        problems = name_problems(one, original is not None)
        counts.update(problems)
        rows.append(_row(clip, one, problems))
        dropped = [problem for problem in problems if problem in drop]
        if dropped:
            same = "" if original is None else f", a copy of {good[original][0].name}"
            rejected.append((clip.name, f"left out by --drop: {', '.join(dropped)}{same}"))
        else:
            kept.append(clip)
    write_csv(out / TABLE, [COLUMNS, *rows])
    if good:
        _write_picture(out, good)
    summary = ", ".join(f"{counts[problem]} {problem}" for problem in PROBLEMS)
    say(f"{out / TABLE}: {len(clips) - len(good)} damaged inside, {summary}")
    return kept, rejected


def _row(clip: Clip, one: Examination, problems: list[str]) -> tuple[object, ...]:
    return (
        clip.name, f"{one.seconds:.4f}", one.rate, one.channels,
        f"{one.peak_dbfs:.2f}", f"{one.rms_dbfs:.2f}", f"{one.clipped_share:.6f}",
        f"{one.silent_share:.4f}", one.digest, " ".join(problems),
    )  # fmt: skip


def _write_picture(out: Path, clips: list[tuple[Clip, Examination]]) -> None:
    try:
        picture = draw(clips)
    except ValueError as error:  # no reason to decode all clips once more
        sys.stderr.write(f"eat manifest: no picture: {error}\n")
        return
    with replacing(out / PICTURE) as file:
        picture.savefig(file, format="png", dpi=120)


def draw(clips: list[tuple[Clip, Examination]]) -> Figure:
    """Draw lengths, rates, levels, and classes where there are some.

    Raises:
        ValueError: if matplotlib is not installed.
    """
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
        axes[1, 1].set(title=f"{len(classes)} classes{more}", ylabel="clips")
    else:
        shares = [one.silent_share for one in examinations]
        axes[1, 1].hist(shares, bins=40, range=(0, 1), color=BAR_COLOUR)
        axes[1, 1].set(title="silence", xlabel="share of a clip", ylabel="clips")
    return figure
