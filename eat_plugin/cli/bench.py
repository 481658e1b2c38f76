"""Compare speed and memory with plain forms of the same computations.

The benchmarks are part of a checkout; an installed package has none.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    if (ROOT / "benchmarks" / "arguments.py").is_file():
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
        importlib.import_module("benchmarks.arguments").add_arguments(parser)
    else:
        parser.prefix_chars = ""  # options are positional arguments too, for `run` to refuse
        parser.add_argument("arguments", nargs="*")


def run(args: argparse.Namespace) -> int:
    if "arguments" in args:
        raise ValueError("benchmarks need a checkout of the repository")
    return importlib.import_module("benchmarks.command").run(args)
