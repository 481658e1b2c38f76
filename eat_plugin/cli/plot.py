"""Plot the curves of a run, and for pre-training a clip with masks and predictions.

Plots losses, metrics, variances, learning rate and gradient norm over updates, from the logs of a
run (common.log_format=json, simple or tqdm), with reference values where they are known. For
pre-training it adds a clip, two masks, and the student's prediction of the hidden patches.
With several runs it plots their validation metric and loss in the same axes.

example: eat plot --run runs/quickstart --out losses.png
         eat plot --run runs/finetuned runs/scratch --out comparison.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.cli import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eat_plugin.report.example import Example
    from eat_plugin.report.runlog import Curves

WIDTH, CURVES_HEIGHT, EXAMPLE_HEIGHT = 10.0, 2.4, 4.0  # inches
DOTS_PER_INCH = 150
ENDINGS = (
    ".png", ".pdf", ".svg", ".svgz", ".eps", ".ps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp",
    ".pgf", ".raw", ".rgba",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        dest="run_dirs",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="DIR",
        help="folder of a run (hydra.run.dir) with logs and checkpoint; of several to compare them",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PNG", help="picture to write (png, pdf, svg)"
    )


def run(args: argparse.Namespace) -> int:
    from eat_plugin.cli.outputs import check_file
    from eat_plugin.data.files import replacing
    from eat_plugin.report.draw_curves import draw_comparison, name_runs
    from eat_plugin.report.runlog import read_curves

    out = args.out if args.out.suffix else args.out.with_name(f"{args.out.name}.png")
    check_file(out, ENDINGS, "a picture")
    folders = list(dict.fromkeys(args.run_dirs))
    curves = [read_curves(folder) for folder in folders]
    if len(folders) > 1:
        figure = draw_comparison(dict(zip(name_runs(folders), curves)))
    else:
        cfg, example = _read_checkpoint(folders[0])
        figure = draw_figure(curves[0], cfg, example, folders[0].resolve().name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        figure.savefig(file, format=out.suffix[1:].lower(), dpi=DOTS_PER_INCH)
    say(str(out))
    return 0


def _read_checkpoint(run_dir: Path) -> tuple[dict[str, Any], Example | None]:
    """Return configuration and example; what cannot be read is reported and left out."""
    from eat_plugin.report.example import (
        find_checkpoint,
        is_finetuned,
        read_configuration,
        read_example,
    )

    cfg: dict[str, Any] = {}
    try:
        checkpoint = find_checkpoint(run_dir)
        cfg = read_configuration(checkpoint)
        return cfg, None if is_finetuned(cfg) else read_example(checkpoint)
    except (OSError, ValueError) as error:
        missing = "example clip" if cfg else "reference values and example clip"
        reason = " ".join(str(error).split())
        sys.stderr.write(f"eat plot: without {missing}: {reason}\n")
        return cfg, None


def draw_figure(
    curves: Curves, cfg: Mapping[str, Any], example: Example | None, title: str
) -> Figure:
    """Draw curves and references, and below them the clip if there is an example."""
    from eat_plugin.report.charts import escape, styled_figure
    from eat_plugin.report.draw_curves import STYLE, arrange_panels, draw_panels
    from eat_plugin.report.references import find_references
    from eat_plugin.report.runlog import without_unused_rate

    curves = without_unused_rate(curves, cfg)
    rows = arrange_panels(curves)
    heights = [CURVES_HEIGHT] * len(rows) + ([EXAMPLE_HEIGHT] if example else [])
    with styled_figure(WIDTH, sum(heights) + 0.3, STYLE) as figure:
        last = max(updates[-1] for updates, _ in curves.values())
        figure.suptitle(f"{escape(title)}: {last:,} updates", fontsize=13, fontweight="bold")
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        draw_panels(parts, rows, curves, find_references(cfg))
        if example:
            from eat_plugin.report.draw_example import draw_example

            draw_example(parts[-1], example)
    return figure
