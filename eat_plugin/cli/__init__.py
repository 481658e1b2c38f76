"""The command `eat` with one module per subcommand.

The module has ``NAME``, ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``,
the exit code: 0, or 1 if some files are unusable. For a user's mistake ``run`` raises ValueError or
OSError: `main` prints one line and exits with 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar

from tqdm import tqdm

# Each has a module of the same name.
SUBCOMMANDS = (
    "manifest", "stats", "cache", "features", "predict", "evaluate", "export", "plot", "demo",
    "bench",
)  # fmt: skip
SOME_FAILED, MISTAKE, INTERRUPTED = 1, 2, 130  # exit codes

Item = TypeVar("Item")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage."""
        self.exit(MISTAKE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the command's name; None for those of the process.

    Returns:
        The exit code: 0; 1 if some files are unusable; 2 for a user's mistake; 130 after ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = "eat"
    try:
        args = _build_parser(argv).parse_args(argv)
        command = f"eat {args.subcommand}"
        return args.run(args)
    except BrokenPipeError:  # the reader of the output has closed it
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
    """Iterate over items with a progress bar on standard error, in a log every 30 s.

    Args:
        items: the items.
        label: the work, as ``"reading headers"``.
        unit: one item, as ``"file"``.
        total: number of items, if known.
    """
    interval = 0.1 if sys.stderr.isatty() else 30.0  # seconds
    return tqdm(items, desc=label, unit=unit, total=total, mininterval=interval)


def _report(command: str, problem: str) -> int:
    sys.stderr.write(f"{command}: error: {' '.join(problem.split())}\n")
    return MISTAKE


def _build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser for the subcommand (the others are not imported), or for all of them."""
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
