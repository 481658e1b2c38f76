"""Run of `eat bench` (`python -m benchmarks`)."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import logging
import os
import platform
import tempfile
import warnings
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fairseq
import torch
from tqdm import tqdm

from eat_plugin.modules.decoders import COMPILED as DECODER
from eat_plugin.modules.transformer import COMPILED as BLOCKS

from .arguments import CPU, CUDA, OF_GPUS
from .cases import ROWS
from .launching import say
from .profiling import format_stages
from .table import format_table, goals_of
from .timing import Comparison, Place, compare, hide_gpus

MODEL_THREADS = torch.get_num_threads()  # PyTorch's default: containers and OMP_NUM_THREADS too


def _names(device: str) -> list[str]:
    return [
        name
        for name, row in ROWS.items()
        if device in row.devices and (not row.package or find_spec(row.package))
    ]


def run(args: argparse.Namespace) -> int:
    """Measure the cases and print a table; return 1 if a case failed.

    Raises:
        ValueError: unknown case, invalid option or no such device.
    """
    _check(args)
    names = args.cases or _names(args.device)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        for logger in map(logging.getLogger, ("fairseq.trainer", "eat_plugin.tasks")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        measured = {name: measure(name, args) for name in tqdm(names, desc="measuring")}
    if args.device == CPU and not args.cases:
        measured = {name: measured.get(name) or Comparison(name, ROWS[name].what) for name in ROWS}
    machine = describe_machine(args)
    comparisons = list(measured.values())
    failed = int(any(comparison.problem for comparison in comparisons))
    if args.json:
        results = [_as_dictionary(comparison) for comparison in comparisons]
        say(json.dumps({"machine": machine, "rounds": args.rounds, "results": results}, indent=2))
        return failed
    say(", ".join(f"{key} {value}" for key, value in machine.items()))
    say("")
    say("\n".join(format_table(comparisons)))
    for comparison in comparisons:
        if comparison.stages is not None:
            say("\n".join(["", f"{comparison.name}:", *format_stages(comparison.stages)]))
    return failed


def _check(args: argparse.Namespace) -> None:
    for name in args.cases:
        if name not in ROWS:
            raise ValueError(f"there is no case {name!r}; choose from {', '.join(ROWS)}")
        if args.device not in ROWS[name].devices:
            raise ValueError(f"the case {name!r} runs on {ROWS[name].devices[0]} only")
    for option in ("rounds", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option} must be at least 1, got {value}")
    others = [name for name in args.cases if name not in OF_GPUS]
    if args.cuda_graph and (others or not args.cases):
        reason = f"not for {others[0]!r}" if others else "name some of them"
        raise ValueError(f"--cuda-graph is for {', '.join(OF_GPUS)}: {reason}")
    if args.device == CUDA and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but PyTorch finds no GPU; choose cpu")


def measure(name: str, args: argparse.Namespace) -> Comparison:
    """Prepare a case and measure it."""
    row = ROWS[name]
    torch.set_num_threads(args.threads or (MODEL_THREADS if row.has_model else 1))
    device = torch.device(args.device)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"fairseq\.")
        if args.device == CPU:
            stack.enter_context(hide_gpus())
        place = Place(Path(folder), device, args.compile, args.cuda_graph)
        try:
            comparison = compare(name, row.prepare(place), args.rounds, device, args.profile)
        except (ValueError, OSError, RuntimeError) as error:  # out of memory, no mp3 encoder
            reason = str(error).partition("\n")[0]
            comparison = Comparison(name, row.what, problem=f"failed: {reason}")
    if args.device == CUDA:
        gc.collect()  # fairseq's trainer is part of a reference cycle
        torch.cuda.empty_cache()
    return comparison


def _as_dictionary(comparison: Comparison) -> dict[str, Any]:
    goals = goals_of(comparison)
    reached = [{**goal._asdict(), "reached": goal.is_reached(comparison)} for goal in goals]
    return {**dataclasses.asdict(comparison), "goals": reached}


def describe_machine(args: argparse.Namespace) -> dict[str, str]:
    """Describe the machine and the versions."""
    machine = {
        "processor": _processor(), "cores": str(os.cpu_count()),
        "threads": str(args.threads or f"1 (models: {MODEL_THREADS})"),
        "python": platform.python_version(), "torch": torch.__version__,
        "fairseq": fairseq.__version__,
    }  # fmt: skip
    if args.device == CUDA:
        machine["GPU"] = torch.cuda.get_device_name()
        machine["CUDA"] = str(torch.version.cuda)
    used = " and ".join(function.what for function in (BLOCKS, DECODER) if function.is_in_use)
    compiled = f"yes: {used}" if used else "requested, but not in use"
    machine["compile"] = compiled if args.compile else "no"
    machine["CUDA graph"] = "yes" if args.cuda_graph else "no"
    return machine


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
