"""`eat bench`: the benchmarks of a checkout; an installed package has none."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

NAME = "bench"
HELP = "time this package beside plain forms of the same computations"
ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, or take any arguments without a checkout, for `run` to refuse."""
    if (ROOT / "benchmarks" / "command.py").is_file():
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
        importlib.import_module("benchmarks.command").add_arguments(parser)
    else:
        parser.prefix_chars = ""  # options are positional arguments too
        parser.add_argument("arguments", nargs="*")


def run(args: argparse.Namespace) -> int:
    """Run the benchmarks; return 1 if a case failed.

    Raises:
        ValueError: there is no checkout, or an option is invalid.
    """
    if "arguments" in args:
        raise ValueError("benchmarks need a checkout of the repository")
    return importlib.import_module("benchmarks.command").run(args)
