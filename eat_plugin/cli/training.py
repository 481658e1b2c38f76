"""What `eat pretrain` and `eat finetune` share: arguments, composition, run."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.choices import CONFIG_DIR, PREEMPTED_STATUS, USER_DIR
from eat_plugin.cli import SOME_FAILED, say
from eat_plugin.cli.outputs import check_folder
from eat_plugin.configs import list_groups, quote
from eat_plugin.options import OtherPrecisionError
from eat_plugin.records import CONSOLE

if TYPE_CHECKING:
    from eat_plugin.launch.launchers import Place

LOG_INTERVAL = 10  # updates, at most
REPORTS = 40  # of a run, if they are chosen
WIDTH_FOR_GPU = 512  # of a transformer
# PyTorch has a thread per core, and there are data workers. By default waiting threads keep their
# cores busy: with one other busy process an update on two cores takes four times as long.
PASSIVE = ("OMP_WAIT_POLICY", "passive")


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the arguments of both commands, for a default configuration."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the configuration and print the fairseq-hydra-train command, without training",
    )
    add_configuration(parser, name)


def add_configuration(parser: argparse.ArgumentParser, name: str, has_data: bool = True) -> None:
    """Declare the arguments that choose a configuration; ``has_data``: it needs clips."""
    parser.add_argument(
        "--data",
        metavar="DATA",
        type=Path,
        required=has_data,
        help="folder that eat manifest wrote",
    )
    parser.add_argument(
        "--out",
        metavar="RUN",
        type=Path,
        help="folder of the run (default: runs/CONFIG-NAME, of the configuration and the data "
        "folder); the same command resumes a run",
    )
    parser.add_argument(
        "--size",
        metavar="SIZE",
        help=f"size of the model: {', '.join(list_groups()['size'])} (default: base)",
    )
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        type=Path,
        default=CONFIG_DIR,
        help="folder with configurations of your own (default: the packaged ones, see eat config)",
    )
    parser.add_argument(
        "--config-name", metavar="NAME", help=f"configuration (default: {name}, or image_{name})"
    )
    parser.add_argument(
        "overrides",
        metavar="OPTION=VALUE",
        nargs="*",
        help="any option of the configuration, as optimization.max_update=1000",
    )


def run(args: argparse.Namespace, name: str, overrides: list[str]) -> int:
    """Train with a configuration; return the exit code.

    Args:
        args: from ``add_arguments``.
        name: of the default configuration.
        overrides: of the command's own options.

    Raises:
        ValueError: an option or a file is invalid.
    """
    check_data(args.data)
    if args.size is not None:
        overrides = [f"size={args.size}", *overrides]
    name, folder = find_names(args, name)
    check_folder(folder, "the folder of the run", writes=not args.dry_run)

    os.environ.setdefault(*PASSIVE)  # read when PyTorch is imported
    from eat_plugin.launch import checks, launchers, machine

    place = launchers.find_place()
    cfg, arguments, given = compose(args, name, overrides, folder, place)
    try:
        start = checks.check_settings(cfg, folder)
    except OtherPrecisionError as error:  # of another machine
        if given.intersection(machine.PRECISIONS):
            raise
        cfg, arguments, given = compose(args, name, overrides, folder, place, error.overrides)
        start = checks.check_settings(cfg, folder)
    on_cpu = machine.has_no_gpu(cfg)
    prefix = f"{'='.join(PASSIVE)} " if on_cpu else ""
    command = f"{prefix}fairseq-hydra-train {shlex.join(arguments)}"
    chosen = f"chosen for this run; set an option to fix it:\n  {shlex.join(start.choices)}\n"
    chosen = chosen if start.choices else ""
    total = int(start.cfg.optimization.max_update)
    if args.dry_run or start.nothing_to_do:
        say(start.nothing_to_do or command)
        sys.stderr.write("" if start.nothing_to_do else chosen)  # not mixed with the command
        return 0
    if place.rank > 0:
        return _train(args.subcommand, arguments, folder, total, place.rank)
    workers = cfg.dataset.num_workers
    say(f"{machine.describe(cfg)}, data workers: {workers}; equivalent command:\n  {command}")
    say(f"run {folder}, full log {folder / CONSOLE}")
    if args.subcommand == "pretrain" and on_cpu and cfg.model.embed_dim >= WIDTH_FOR_GPU:
        say("this size needs a GPU: an update on a CPU takes minutes; --size tiny is for CPUs")
    reports = min(start.cfg.common.log_interval, total)
    say(f"{chosen}starting; the first report is after {reports} updates")
    status = _train(args.subcommand, arguments, folder, total)
    if not status:
        name = "" if cfg.checkpoint.no_last_checkpoints else "checkpoint_last.pt"
        say(f"checkpoint {folder / cfg.checkpoint.save_dir / name}")
    return status


def find_names(args: argparse.Namespace, name: str) -> tuple[str, Path]:
    """Return the names of the configuration, by default the one for the data, and of the run."""
    data = Path("nodata") if args.data is None else args.data.expanduser().resolve()
    name = args.config_name or (name if args.data is None else _choose_config(data, name))
    return name, (args.out or Path("runs", f"{name}-{data.name}")).expanduser().resolve()


def compose(
    args: argparse.Namespace, name: str, overrides: list[str], folder: Path, place: Place,
    precision: Sequence[str] = (),
) -> tuple[Any, list[str], set[str]]:  # fmt: skip
    """Return the configuration, arguments for fairseq-hydra-train, and the options of the user.

    ``precision`` are overrides in place of the choice for this machine.
    """
    from eat_plugin.launch import composing, launchers, machine

    own = [
        f"common.user_dir={quote(USER_DIR)}",
        f"hydra.run.dir={quote(folder)}",
    ]
    if args.data is not None:
        own.append(f"task.data={quote(args.data.expanduser().resolve())}")
    given = {composing.parse_override(text).key for text in args.overrides}
    _refuse_taken(given)
    chosen = machine.choose_precision(given, precision)
    on_cpu = machine.trains_on_cpu([*chosen, *args.overrides])
    own += chosen + launchers.choose_options(place, given, on_cpu) + overrides
    config_dir = _find_config_dir(args.config_dir)
    cfg, written = composing.compose(name, [*own, *args.overrides], config_dir)
    if "dataset.num_workers" not in given:
        cfg.dataset.num_workers = machine.limit_workers(cfg, place.on_this_machine)
        written.append(f"dataset.num_workers={cfg.dataset.num_workers}")
    if "common.log_interval" not in given and _reports_rarely(cfg):
        cfg.common.log_interval = LOG_INTERVAL
        written.append(f"common.log_interval={LOG_INTERVAL}")
    return cfg, ["--config-dir", str(config_dir), "--config-name", name, *written], given


def _reports_rarely(cfg: Any) -> bool:
    """Whether a run has, or would choose, more than ``LOG_INTERVAL`` updates between reports."""
    reports, updates = cfg.common.log_interval, cfg.optimization.max_update
    is_long = updates < 0 or updates // REPORTS > LOG_INTERVAL
    return bool(reports > LOG_INTERVAL or (reports < 0 and is_long))


def _train(command: str, arguments: list[str], folder: Path, total: int, rank: int = 0) -> int:
    from eat_plugin.launch.run import PreemptedError, TrainingError, train

    try:
        train(arguments, folder, total, rank)
    except TrainingError as error:
        sys.stderr.write(f"eat {command}: error: {error}\n")
        return SOME_FAILED
    except PreemptedError as error:
        if rank == 0:
            sys.stderr.write(f"eat {command}: {error}; the same command resumes it\n")
        return PREEMPTED_STATUS
    except KeyboardInterrupt:
        sys.stderr.write("the same command resumes the run\n")
        raise
    return 0


def check_data(data: Path) -> None:
    """Raise ValueError if a folder has no manifest of training clips."""
    if not (data / "train.tsv").is_file():
        problem = "has no train.tsv" if data.is_dir() else "is not a folder"
        raise ValueError(
            f"--data {data} {problem}; list clips with: eat manifest AUDIO --out DATA, then --data "
            "DATA"
        )


def find_checkpoint(text: str, otherwise: str) -> Path:
    """Return the absolute path of ``--checkpoint``; raise ValueError if it is not a file."""
    path = Path(text).expanduser()
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"--checkpoint {path} {problem}; give a checkpoint, or {otherwise}")
    return path.resolve()


def _find_config_dir(path: Path) -> Path:
    """Return the absolute path; raise ValueError if it is not a folder."""
    if not path.expanduser().is_dir():
        raise ValueError(f"--config-dir {path} is not a folder")
    return path.expanduser().resolve()


def _choose_config(data: Path, name: str) -> str:
    """Return the configuration for the clips of a manifest: sound or images."""
    from eat_plugin.data.entries import IMAGE_ENDINGS

    with (data / "train.tsv").open(encoding="utf-8", errors="replace") as lines:
        next(lines, "")
        first = next(lines, "").partition("\t")[0].lower()
    return f"image_{name}" if first.endswith(IMAGE_ENDINGS) else name


def _refuse_taken(given: set[str]) -> None:
    for key, option in (("task.data", "--data"), ("hydra.run.dir", "--out"), ("size", "--size")):
        if key in given:
            raise ValueError(f"{key} is set by {option}; use {option}")
