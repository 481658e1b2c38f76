"""Write a page on runs: curves, options, clips, as one HTML file that needs no network.

Examples:
  eat report runs/first --out report.html
  eat report runs/first runs/second --device cuda --clips 100

The page has interactive curves of all logged values (drag or ctrl + wheel to zoom, double click to
reset), with reference values and a healthy run behind them where they compare; several runs are in
the same axes. It lists the options that differ between the runs and from the packaged recipe.

It works during a run and after its end, a crash too. From the newest checkpoint of the
first run, and --clips clips of its data (the held-out split if it has one), the page shows
  pre-training  masks and predictions, or what the features of the patches distinguish
  fine-tuning   the confusion matrix, the average precision of each class, the worst-scored clips
  both          the nearest neighbours of three clips, with spectrograms and players
With --clips 0 it has curves and options; without a checkpoint, curves alone.

The sounds of some twenty clips are in the page, up to 5 s each: mind who may hear them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.cli import at_least, quiet_libraries, say

if TYPE_CHECKING:
    from eat_plugin.report.build import Run
    from eat_plugin.report.page import Section

PACKAGES = ("matplotlib", "jinja2", "vl_convert")
CLIPS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN", help="folder of a run (hydra.run.dir)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="HTML",
        help="page to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--clips", type=at_least(0), default=CLIPS, metavar="N",
        help="clips to read, drawn by a fixed seed; 0 for none (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    from eat_plugin.cli.outputs import check_file
    from eat_plugin.cli.training import PASSIVE
    from eat_plugin.data.files import replacing

    os.environ.setdefault(*PASSIVE)  # read when PyTorch is imported
    from eat_plugin.inference.loading import choose_device
    from eat_plugin.report import build
    from eat_plugin.report.draw_curves import name_runs
    from eat_plugin.report.page import render

    check_file(args.out, (".html", ".htm"), "a page")
    for package in PACKAGES:
        if find_spec(package) is None:  # before work that takes long
            raise ModuleNotFoundError(name=package)
    choose_device(args.device)  # an unknown one is a mistake
    folders = list(dict.fromkeys(args.run_dirs))
    runs = [_read_run(name, path) for name, path in zip(name_runs(folders), folders)]
    with _recipe(runs[0].cfg) as (name, packaged):
        sections = [build.describe(run) for run in runs]
        sections += build.draw_curves(runs)
        sections += _show_clips(runs[0], args)
        if runs[0].cfg:
            sections += build.list_options([run for run in runs if run.cfg], packaged(), name)
        sections += build.list_records(runs)
        title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
        page = render(title, "Report of the EAT plugin", sections)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as file:
        file.write(page.encode())
    say(f"{args.out}: {len(page.encode()) / 1e6:.1f} MB")
    return 0


def _read_run(name: str, folder: Path) -> Run:
    """Read log and configuration; what cannot be read is said on the page."""
    from eat_plugin.report.build import Run
    from eat_plugin.report.example import find_checkpoint, read_run
    from eat_plugin.report.runlog import parse_all, read_series

    curves = read_series(folder, parse_all)
    try:
        checkpoint = find_checkpoint(folder)
        cfg, record = read_run(checkpoint)
        return Run(name, folder, curves, cfg, checkpoint, record)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"eat report: {name} without options and clips: {reason}\n")
        return Run(name, folder, curves, {}, None, None, f"Without options and clips: {reason}.")


def _show_clips(run: Run, args: argparse.Namespace) -> list[Section]:
    """Make the sections of clips; what cannot be shown is reported and said on the page."""
    from eat_plugin.report.build import show_clips
    from eat_plugin.report.example import load_for_drawing
    from eat_plugin.report.page import Section

    if run.checkpoint is None or not args.clips:
        return []
    sections: list[Section] = []
    try:
        loaded = load_for_drawing(run.checkpoint, args.device)
        sections.extend(show_clips(loaded, args.clips))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"eat report: without clips: {reason}\n")
        sections.append(Section("Clips", f"Not all can be shown: {reason}"))
    return sections


@contextmanager
def _recipe(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], dict[str, object] | None]]]:
    """Compose the packaged recipe of a run while the clips are drawn: importing fairseq is slow.

    Yields:
        Its name, and a function that returns its options; None without fairseq.
    """
    from eat_plugin.report.example import is_finetuned

    name, overrides = "pretrain", ["size=base"]
    if cfg and is_finetuned(dict(cfg)):
        name, overrides = "finetune", []
    elif cfg and cfg["model"].get("retention_loss"):
        name = "sslam"
    elif cfg and cfg["model"].get("loss_average") == "elements":
        name = "bat"
    if name in ("pretrain", "finetune") and cfg and (cfg.get("task") or {}).get("images"):
        name, overrides = f"image_{name}", []
    title = " ".join([f"{name}.yaml", *overrides])
    if not cfg or find_spec("fairseq") is None:
        yield title, lambda: None
        return
    if "fairseq" in sys.modules:
        yield title, lambda: _compose(name, overrides)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin) as pool:
        composed = pool.submit(_compose, name, overrides)
        pool.shutdown(wait=False)  # it ends when that is done, which takes a second
        yield title, composed.result


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it
    quiet_libraries()


def _compose(name: str, overrides: list[str]) -> dict[str, object]:
    from eat_plugin.choices import CONFIG_DIR
    from eat_plugin.launch.composing import compose_plain
    from eat_plugin.report.page import flatten

    return dict(flatten(compose_plain(name, CONFIG_DIR, overrides)))
