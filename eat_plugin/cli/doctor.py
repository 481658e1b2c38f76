"""Check software, machine, configuration and data before a run.

Examples:
  eat doctor                                             software and machine
  eat doctor --data /my/data                             and a run of eat pretrain on these clips
  eat doctor --data /my/data --size tiny optimization.max_update=4000
  eat doctor --data /my/data --config-name finetune model.model_path=/my/checkpoint.pt
  eat doctor --config-name pretrain --size large         without clips
  eat doctor --data /my/data --time                      times some updates
  eat doctor --data /my/data --json

One line per finding: ok, warning or error; software, machine, configuration or data; what was
seen; the fix. It takes the options of eat pretrain (in place of --checkpoint C:
checkpoint.finetune_from_model=C) and writes nothing. It takes some seconds, of which two measure
how fast the clips can be read. Without --time, hours and memory are estimates:
from the FLOPs of the model and the speed of matrix products on this machine.

The exit code is 0, with warnings too, and 2 with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import asdict

from eat_plugin.cli import MISTAKE, checkup, say, training
from eat_plugin.doctor.finding import ERROR, LEVELS, Finding, find_worst
from eat_plugin.prepare.amounts import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_configuration(parser, checkup.CONFIG, has_data=False)
    parser.add_argument(
        "--time", action="store_true", help="train some updates for speed and memory (needs --data)"
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")


def run(args: argparse.Namespace) -> int:
    if args.time and args.data is None:
        raise ValueError("--time needs --data: updates are timed on your clips")
    os.environ.setdefault(*training.PASSIVE)  # as for a run
    began = time.monotonic()
    findings: list[Finding] = []
    for finding in checkup.examine(args):
        if finding.seen in [other.seen for other in findings]:  # found in two ways
            continue
        findings.append(finding)
        if not args.json:
            say(str(finding))
    worst, seconds = find_worst(findings), time.monotonic() - began
    if args.json:
        rows = [asdict(finding) for finding in findings]
        say(json.dumps({"level": worst, "seconds": round(seconds, 1), "findings": rows}, indent=2))
    else:
        numbers = Counter(finding.level for finding in findings)
        shown = ", ".join(count(numbers[level], level) for level in LEVELS[:0:-1])
        say(f"{shown}; {seconds:.1f} s")
    return MISTAKE if worst == ERROR else 0
