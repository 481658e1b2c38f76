"""List the packaged configurations, or copy them.

Examples:
  eat config                       names, groups and the folder
  eat config --copy my_configs     then: eat pretrain --config-dir my_configs ...
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from eat_plugin.choices import CONFIG_DIR
from eat_plugin.cli import say
from eat_plugin.configs import list_groups, list_names, read_summary
from eat_plugin.data.files import name_draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--copy", metavar="DIR", type=Path, help="copy all configurations to a new folder"
    )


def run(args: argparse.Namespace) -> int:
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
