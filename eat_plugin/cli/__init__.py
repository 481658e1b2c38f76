"""The command `eat` with one module per subcommand.

The module's docstring is the help. ``add_arguments(parser)`` declares the options,
``run(args) -> int`` returns the exit code: 0, or 1 if some files are unusable or training failed.
For a user's mistake ``run`` raises ValueError or OSError: `main` prints one line and exits with 2.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import eat_plugin
from eat_plugin.cli.progress_bar import progress as progress
from eat_plugin.configs import check_choice, suggest
from eat_plugin.data.channels import CHANNELS, MEAN
from eat_plugin.heap import keep_freed_memory
from eat_plugin.prepare.processes import available_cores

# Each has a module of the same name, with _ for -. A module imports PyTorch and fairseq only when
# it runs, so that help and mistakes are fast.
SUBCOMMANDS = (
    "doctor", "manifest", "stats", "cache", "pretrain", "finetune", "evaluate", "compare", "probe",
    "predict", "features", "export", "import", "plot", "report", "config", "config-dir", "user-dir",
    "flags", "demo",
    "bench",
)  # fmt: skip
# Extra of the package -> the modules that it brings; the names of packages that differ from these.
EXTRAS = {
    "train": ("fairseq", "fairseq_cli", "hydra", "omegaconf"), "plot": ("matplotlib",),
    "probe": ("sklearn",), "hdf5": ("h5py",), "images": ("PIL",), "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"), "report": ("jinja2", "vl_convert"),
    "events": ("sed_scores_eval",),
}  # fmt: skip
PACKAGES = {
    "fairseq_cli": "fairseq", "hydra": "hydra-core", "sklearn": "scikit-learn", "PIL": "pillow",
    "vl_convert": "vl-convert-python",
}  # fmt: skip
OUTPUT = "standard output"
SOME_FAILED, MISTAKE, INTERRUPTED = 1, 2, 130  # exit codes

Failures = dict[str, str]
"""Path of each unusable file -> the reason."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Report a mistake as `main` does, in one line without the usage."""
        raise ValueError(f"{message} (see {self.prog} --help)")


class _ShowVersions(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(_describe_versions())
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with the arguments of the process, or others; return the exit code.

    It is 0; 1 if some files are unusable or training failed; 2 for a user's mistake; 130 after
    ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = " ".join(["eat", *(name for name in argv[:1] if name in SUBCOMMANDS)])
    quiet_libraries()
    try:
        args = parse(argv)
        if getattr(args, "device", "") == "cpu":
            keep_freed_memory()
        code = int(args.run(args))
        with _output():
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output has closed it
        _drop_output()
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{command}: interrupted\n")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        return _report(command, _explain_missing(error.name or str(error)))
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        if error.filename == OUTPUT:
            _drop_output()
        return _report(command, f"{place}{error.strerror or error}")
    except ValueError as error:
        return _report(command, str(error))


def _drop_output() -> None:
    """Write to nowhere what is left for standard output, which cannot be written to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; overrides of options may be anywhere in it.

    Raises:
        ValueError: an argument is invalid.
    """
    if argv and not argv[0].startswith("-"):
        check_choice("subcommand", argv[0], SUBCOMMANDS)
    parser = _build_parser(argv)
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
        import argcomplete

        argcomplete.autocomplete(parser)
    args, rest = parser.parse_known_args(argv)
    # argparse ends a list of positional arguments at the first option.
    if "overrides" in args and not any(text.startswith("-") for text in rest):
        args.overrides += rest
    elif rest:
        unknown = next((text for text in rest if text.startswith("-")), rest[0])
        known = [text for text in args.options if text.startswith("--")]
        hint = suggest(unknown.partition("=")[0], known) if unknown.startswith("--") else ""
        raise ValueError(
            f"unrecognized argument {unknown}{hint} (see eat {args.subcommand} --help)"
        )
    return args


def say(line: str) -> None:
    """Write a line to standard output.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    with _output():
        sys.stdout.write(f"{line}\n")


@contextmanager
def _output() -> Iterator[None]:
    """Name standard output in an error of writing to it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, OUTPUT) from error


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number, ``least`` or more."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {number}")
        return number

    return whole_number


def part_of(text: str) -> tuple[int, int]:
    """Parse the argument ``I/N``: part I of N, from 1."""
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"must be from 1/N to N/N, got {text!r}")
    return int(number), int(total)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare ``--workers``."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=at_least(1),
        default=available_cores(),
        help="number of processes; does not change the result (default: one per core, here "
        "%(default)s)",
    )


def add_channels(parser: argparse.ArgumentParser) -> None:
    """Declare ``--channels``."""
    parser.add_argument(
        "--channels",
        choices=CHANNELS,
        default=MEAN,
        help="how the channels of a clip are mixed: as task.channels in training (default: "
        "%(default)s)",
    )


def conclude(command: str, failures: Failures, total: int) -> int:
    """List the unusable files of all ``total`` files on standard error, and return the exit code.

    Raises:
        ValueError: no file can be used.
    """
    if not failures:
        return 0
    lines = [" ".join(f"{path}: {reason}".split()) for path, reason in failures.items()]
    if total == len(lines) == 1:
        raise ValueError(lines[0])
    sys.stderr.write(f"eat {command}: {len(lines)} of {total} files cannot be used:\n")
    sys.stderr.writelines(f"  {line}\n" for line in lines)
    if len(lines) == total:
        raise ValueError(f"none of the {total} files can be used")
    return SOME_FAILED


def quiet_libraries() -> None:
    """Show warnings of libraries only, although some of them set the level of all loggers."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])


def _report(command: str, problem: str) -> int:
    sys.stderr.write(f"{command}: error: {' '.join(problem.split())}\n")
    return MISTAKE


def _explain_missing(module: str) -> str:
    """Say which package a command needs, and how it is installed."""
    name = module.partition(".")[0]
    extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
    hint = "" if extra is None else f": pip install 'eat-plugin[{extra}]'"
    return f"needs the package {PACKAGES.get(name, name)}, which is not installed{hint}"


def _describe_versions() -> str:
    """Return the versions of the plugin and of the packages that it needs."""
    found = [f"eat-plugin {eat_plugin.__version__}", f"Python {sys.version.split()[0]}"]
    for name in ("fairseq", "fairseq-fixed", "torch", "hydra-core", "omegaconf", "numpy"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def _build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser for the subcommand (the others are not imported), or for all of them."""
    wanted = [argv[0]] if argv and argv[0] in SUBCOMMANDS else list(SUBCOMMANDS)
    parser = _Parser(prog="eat", description="Pre-train, fine-tune and use EAT models.")
    parser.add_argument("--version", action=_ShowVersions, nargs=0, help="show versions and exit")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name in wanted:
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        summary, _, details = (module.__doc__ or "").partition("\n\n")
        subparser = subparsers.add_parser(
            name,
            help=summary[:1].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=details,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        options = [text for action in subparser._actions for text in action.option_strings]
        subparser.set_defaults(run=module.run, options=options)
    return parser
