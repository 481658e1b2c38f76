"""List the flags of `fairseq-train` for an architecture and its task.

fairseq's own --help has the flags of all tasks: --batch-size, --max-update, --lr, --save-dir and so
on. It ends before those of a task and an architecture, which are listed here. Published options
that accept one value are left out.

example: eat flags eat_base | less
"""

from __future__ import annotations

import argparse
from typing import Any

from eat_plugin.choices import ARCHITECTURES, TASK_OF
from eat_plugin.cli import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "arch", metavar="ARCH", choices=ARCHITECTURES, help=f"one of {', '.join(ARCHITECTURES)}"
    )


def run(args: argparse.Namespace) -> int:
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    from eat_plugin.flags import add_model_flags, add_task_flags
    from eat_plugin.models.architectures import read_architecture

    model, size = ARCHITECTURES[args.arch]
    task = TASK_OF[model]
    command = f"fairseq-train DATA --user-dir $(eat user-dir) --task {task} --arch {args.arch}"
    parser = argparse.ArgumentParser(usage=f"{command} --criterion {task} ...", add_help=False)
    group = parser.add_argument_group(f"--arch {args.arch}")
    shown = _flatten(read_architecture(model, size))
    add_model_flags(group, ARCH_MODEL_REGISTRY[args.arch], shown=shown)
    add_task_flags(parser, TASK_REGISTRY[task])
    say(parser.format_help())
    return 0


def _flatten(options: dict[str, Any]) -> dict[str, Any]:
    """Return all options by their last name; outer ones replace nested ones."""
    flat: dict[str, Any] = {}
    for value in options.values():
        flat.update(_flatten(value) if isinstance(value, dict) else {})
    return {**flat, **{name: item for name, item in options.items() if not isinstance(item, dict)}}
