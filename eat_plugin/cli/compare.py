"""Compare two evaluations, runs, checkpoints or configurations.

Examples:
  eat compare evaluation_a evaluation_b      folders of eat evaluate --out
  eat compare runs/one runs/two              what differs between two runs
  eat compare checkpoint_last.pt pretrain    a checkpoint and a packaged configuration

Evaluations are compared on the clips that both have, by the same resamples of the clips for both
(paired bootstrap). A difference is called real if its 95 % interval excludes 0. That says how much
depends on the choice of clips; how much depends on the seed of training, only more runs say.

Then, and for all others, the options and records that differ are listed: git revision, versions,
data, seed, devices, hours, clips. A configuration is a name as in eat config, or a YAML file.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eat_plugin.choices import CONFIG_DIR
from eat_plugin.cli import at_least, say
from eat_plugin.configs import flatten_options, list_names

if TYPE_CHECKING:
    from eat_plugin.inference.scored_clips import Paired, ScoredClips

YAML = (".yaml", ".yml")
METRICS, RECORD_FILE = "metrics.json", "record.json"
ABSENT = "(none)"


class Side(NamedTuple):
    """One of the two: its options, what is on record, and its clips if it is an evaluation."""

    path: str
    options: dict[str, Any]
    record: dict[str, Any]
    clips: ScoredClips | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("first", "second"):
        parser.add_argument(name, help="evaluation, run, checkpoint or configuration")
    parser.add_argument("--json", action="store_true", help="print the result as a line of JSON")
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=at_least(100),
        default=1000,
        help="resamples for the intervals (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    first, second = _read(args.first), _read(args.second)
    result: dict[str, Any] = {"first": first.path, "second": second.path}
    if (first.clips is None) != (second.clips is None):
        one, other = (first, second) if second.clips is None else (second, first)
        raise ValueError(
            f"{one.path} is an evaluation, {other.path} is not; give two evaluations, or their "
            "checkpoints"
        )
    if first.clips is not None and second.clips is not None:
        result.update(_compare_clips(first.clips, second.clips, args.resamples))
    result["options"] = _differences(first.options, second.options)
    result["record"] = _differences(first.record, second.record)
    if args.json:
        say(json.dumps(result, default=str))
    else:
        _show(result)
    return 0


def _read(text: str) -> Side:
    """Read one of the two.

    Raises:
        ValueError: there is nothing of this name, or it cannot be compared.
    """
    path = Path(text)
    if (path / METRICS).is_file():
        return _read_evaluation(path)
    if not path.exists() and text in list_names():
        return _compose(text, text, CONFIG_DIR)
    if path.suffix in YAML and path.is_file():
        return _compose(text, path.stem, path.absolute().parent)
    if not path.exists():
        raise ValueError(
            f"there is no {text}: give a folder of eat evaluate --out or of a run, a checkpoint, "
            f"or a configuration ({', '.join(list_names())}, or a YAML file)"
        )
    from eat_plugin.report.example import find_checkpoint, read_run

    checkpoint = find_checkpoint(path) if path.is_dir() else path
    cfg, record = read_run(checkpoint)
    return Side(str(checkpoint), flatten_options(cfg), _flatten_record(record))


def _read_evaluation(folder: Path) -> Side:
    from eat_plugin.inference.scored_clips import read_scored

    clips = read_scored(folder)
    try:
        found = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        options = flatten_options(found["configuration"])
        record = _flatten_record(found["training"])
        record.update(flatten_options(found["evaluation"], "evaluation."))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{folder / RECORD_FILE} is missing or damaged: evaluate again, with eat evaluate --out"
        ) from error
    return Side(str(folder), options, record, clips)


def _compose(text: str, name: str, folder: Path) -> Side:
    from eat_plugin.launch.composing import compose_plain

    return Side(text, flatten_options(compose_plain(name, folder)), {})


def _flatten_record(record: dict[str, Any] | None) -> dict[str, Any]:
    """Return the last part of a run's record by names, and the sums over all parts."""
    if not record or not record.get("parts"):
        return {}
    parts = record["parts"]
    last = {name: value for name, value in parts[-1].items() if name != "from_update"}
    sums = {name: sum(part[name] for part in parts) for name in ("hours", "clips")}
    return flatten_options({"seed": record.get("seed"), **last, **sums})


def _compare_clips(first: ScoredClips, second: ScoredClips, resamples: int) -> dict[str, Any]:
    from eat_plugin.inference.scored_clips import compare_paired, match_clips

    one, two = match_clips(first, second)
    compared = [_describe(paired) for paired in compare_paired(one, two, resamples)]
    return {
        "clips": {"both": len(one.names), "first": len(first.names), "second": len(second.names)},
        "metrics": compared,
    }


def _describe(paired: Paired) -> dict[str, Any]:
    value, low, high = paired.difference
    return {
        "metric": paired.metric, "first": paired.first, "second": paired.second,
        "difference": value, "low": _finite(low), "high": _finite(high), "is_real": paired.is_real,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the values that differ, by name; a name that one of them lacks counts."""
    names = dict.fromkeys([*first, *second])
    return {
        name: [first.get(name, ABSENT), second.get(name, ABSENT)]
        for name in names
        if first.get(name, ABSENT) != second.get(name, ABSENT)
    }


def _show(result: dict[str, Any]) -> None:
    say(f"first:  {result['first']}\nsecond: {result['second']}")
    if "clips" in result:
        clips = result["clips"]
        say(
            f"on {clips['both']} clips that both have "
            f"(first {clips['first']}, second {clips['second']})"
        )
        for row in result["metrics"]:
            say(_show_metric(row))
    for what, found in (("options", result["options"]), ("records", result["record"])):
        say(f"{what} that differ: {len(found)}" if found else f"the same {what}")
        for name, (one, two) in found.items():
            say(f"  {name}: {one} -> {two}")


def _show_metric(row: dict[str, Any]) -> str:
    line = (
        f"{row['metric']:<10} first {row['first']:.4f}  second {row['second']:.4f}  difference "
        f"{row['difference']:+.4f}"
    )
    if row["low"] is not None:
        line += f" (95 % interval {row['low']:+.4f} to {row['high']:+.4f})"
    if not row["is_real"]:
        return f"{line}: within the noise of these clips, no difference shown"
    return f"{line}: the {'second' if row['difference'] > 0 else 'first'} is better"
