"""The flags of ``fairseq-train`` for an architecture and its task, as text."""

import argparse
from typing import Any

from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from ..choices import ARCHITECTURES, TASK_OF
from ..flags import add_model_flags, add_task_flags
from .architectures import read_architecture


def describe_flags(arch: str) -> str:
    """Return the help of all flags of an architecture and its task, with their defaults."""
    model, size = ARCHITECTURES[arch]
    task = TASK_OF[model]
    command = f"fairseq-train DATA --user-dir $(eat user-dir) --task {task} --arch {arch}"
    parser = argparse.ArgumentParser(usage=f"{command} --criterion {task} ...", add_help=False)
    group = parser.add_argument_group(f"--arch {arch}")
    shown = _flatten(read_architecture(model, size))
    add_model_flags(group, ARCH_MODEL_REGISTRY[arch], shown=shown)
    add_task_flags(parser, TASK_REGISTRY[task])
    return parser.format_help()


def _flatten(options: dict[str, Any]) -> dict[str, Any]:
    """Return all options by their last name; outer ones replace nested ones."""
    flat: dict[str, Any] = {}
    for value in options.values():
        flat.update(_flatten(value) if isinstance(value, dict) else {})
    return {**flat, **{name: item for name, item in options.items() if not isinstance(item, dict)}}
