"""List the flags of `fairseq-train` for an architecture and its task.

fairseq's own --help has the flags of all tasks: --batch-size, --max-update, --lr, --save-dir and so
on. It ends before those of a task and an architecture, which are listed here. Published options
that accept one value are left out.

example: eat flags eat_base | less
"""

from __future__ import annotations

import argparse

from eat_plugin.choices import ARCHITECTURES
from eat_plugin.cli import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "arch", metavar="ARCH", choices=ARCHITECTURES, help=f"one of {', '.join(ARCHITECTURES)}"
    )


def run(args: argparse.Namespace) -> int:
    from eat_plugin.registered.arguments import describe_flags

    say(describe_flags(args.arch))
    return 0
