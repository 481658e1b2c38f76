"""List the packaged configurations, copy them, or show that of a checkpoint.

Examples:
  eat config                       names, groups and the folder
  eat config --copy my_configs     then: eat pretrain --config-dir my_configs ...
  eat config --checkpoint checkpoint_last.pt     its record and its options

The record of a checkpoint says what is needed to repeat its run: git revision and versions of
packages, checksums of the data, seed, processes and devices, hours of all of them, clips seen.
Hours and clips include those before the run was resumed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from eat_plugin.choices import CONFIG_DIR
from eat_plugin.cli import say
from eat_plugin.configs import flatten_options, list_groups, list_names, read_summary
from eat_plugin.data.files import name_draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--copy", metavar="DIR", type=Path, help="copy all configurations to a new folder"
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="show the record and options of a run"
    )


def run(args: argparse.Namespace) -> int:
    if args.checkpoint is not None:
        _show_checkpoint(args.checkpoint)
        return 0
    if args.copy is not None:
        if args.copy.exists():
            raise ValueError(f"--copy {args.copy} exists; choose a new folder")
        draft = name_draft(args.copy)
        try:
            shutil.copytree(CONFIG_DIR, draft)
            draft.rename(args.copy)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        say(str(args.copy))
        return 0
    say(f"folder: {CONFIG_DIR}\n")
    for name in list_names():
        say(f"{name:<20} {read_summary(CONFIG_DIR / f'{name}.yaml')}")
    for group, choices in list_groups().items():
        say("")
        for choice in choices:
            shown = f"{group}={choice}"
            say(f"{shown:<30} {read_summary(CONFIG_DIR / group / f'{choice}.yaml')}")
    return 0


def _show_checkpoint(path: Path) -> None:
    from eat_plugin.report.example import read_run
    from eat_plugin.reproduction import describe_record

    cfg, record = read_run(path)
    for line in ["no record: of an older version"] if record is None else describe_record(record):
        say(line)
    say("")
    for name, value in flatten_options(cfg).items():
        say(f"{name}={value}")
