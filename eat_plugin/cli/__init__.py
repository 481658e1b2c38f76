"""The command `eat`: one file a subcommand, dispatched here.

A subcommand is a module with ``NAME``, ``HELP`` (one line), ``add_arguments(parser)`` and
``run(args) -> int``, the exit code. A user's mistake is a ValueError or an OSError raised by
``run``: `main` prints it as one line and exits with 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar

from tqdm import tqdm

# The module of each bears its name.
SUBCOMMANDS = (
    "manifest", "stats", "cache", "features", "predict", "evaluate", "export", "plot", "demo",
    "bench",
)  # fmt: skip
SOME_FAILED, MISTAKE, INTERRUPTED = 1, 2, 130  # exit codes

Item = TypeVar("Item")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line where argparse would print its usage as well."""
        self.exit(MISTAKE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the command's name; None takes the process's own.

    Returns:
        The exit code: 0, 1 if some of many files could not be used, 2 for a user's mistake, 130
        after ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = "eat"
    try:
        args = _build_parser(argv).parse_args(argv)
        command = f"eat {args.subcommand}"
        return args.run(args)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{command}: interrupted\n")
        return INTERRUPTED
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _report(command, f"{place}{error.strerror or error}")
    except ValueError as error:
        return _report(command, str(error))


def say(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{line}\n")


def progress(
    items: Iterable[Item], label: str, unit: str, total: int | None = None
) -> Iterable[Item]:
    """Show a progress bar on standard error while ``items`` are gone through.

    Args:
        items: What is worked on.
        label: What is done with them.
        unit: What one of them is.
        total: How many there are, where that is known.

    Returns:
        The same items; on a terminal the bar moves at once, in a log it is written twice a minute.
    """
    interval = 0.1 if sys.stderr.isatty() else 30.0  # seconds
    return tqdm(items, desc=label, unit=unit, total=total, mininterval=interval)


def _report(command: str, problem: str) -> int:
    sys.stderr.write(f"{command}: error: {' '.join(problem.split())}\n")
    return MISTAKE


def _build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser: of the subcommand asked for (the others are not imported), or of all."""
    wanted = [argv[0]] if argv and argv[0] in SUBCOMMANDS else list(SUBCOMMANDS)
    parser = _Parser(prog="eat", description="Tools around EAT models.")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name in wanted:
        module = importlib.import_module(f"{__name__}.{name}")
        subparser = subparsers.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser
