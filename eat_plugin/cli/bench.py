"""`eat bench`: how fast this package is, beside plain forms of the same computations."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
from pathlib import Path

import torch

from eat_plugin.bench import front_end, training
from eat_plugin.bench.timing import Comparison, compare
from eat_plugin.cli import progress, say

CASES = {**front_end.CASES, **training.CASES}
NAME = "bench"
HELP = "time this package beside plain forms of the same computations"
EXAMPLE = f"""
examples:
  eat bench
  eat bench log_mel load_flac --rounds 200
  eat bench --json > bench.json

Each computation runs in two forms, in turn, in one process: ours, and a plain one that reads as its
definition (eat_plugin/bench/plain*.py). Times are medians, ratios are medians of the ratios of the
rounds: what else the machine does falls on both. The results of both are compared.

cases: {", ".join(CASES)}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    parser.add_argument("cases", metavar="CASE", nargs="*", help="what to time (default: all)")
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=int,
        default=50,
        help="calls of each form, fewer of updates (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=1,
        help="threads of PyTorch; a data worker has one (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON, with the machine named")


def run(args: argparse.Namespace) -> int:
    """Time the cases and print a table.

    Returns:
        0.

    Raises:
        ValueError: An option makes no sense, or there is no such case.
    """
    for name in args.cases:
        if name not in CASES:
            raise ValueError(f"there is no case {name!r}; choose from {', '.join(CASES)}")
    for option in ("rounds", "threads"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        measured = [
            measure(name, args.rounds) for name in progress(args.cases or list(CASES), "timing", "")
        ]
    finally:
        torch.set_num_threads(before)
    machine = describe_machine(args.threads)
    if args.json:
        results = [dataclasses.asdict(comparison) for comparison in measured]
        say(json.dumps({"machine": machine, "rounds": args.rounds, "results": results}, indent=2))
        return 0
    say(", ".join(f"{key} {value}" for key, value in machine.items()))
    say(f"\n{'plain ms':>9} {'ours ms':>9} {'ratio':>6} {'difference':>10}")
    for comparison in measured:
        say(format_row(comparison))
    return 0


def measure(name: str, rounds: int) -> Comparison:
    """Prepare a case and time it."""
    with tempfile.TemporaryDirectory() as folder:
        return compare(name, CASES[name](Path(folder)), rounds)


def describe_machine(threads: int) -> dict[str, str]:
    """Say what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(threads),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def format_row(comparison: Comparison) -> str:
    """Write a comparison as a line of the table."""
    difference = "random" if comparison.difference is None else f"{comparison.difference:.1e}"
    return (
        f"{comparison.plain_ms:9.3f} {comparison.ours_ms:9.3f} {comparison.ratio:6.2f} "
        f"{difference:>10}  {comparison.what}"
    )
