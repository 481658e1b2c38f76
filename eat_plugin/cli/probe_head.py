"""`eat probe --head`: a head on the frozen features of all blocks."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.choices import CGP, LINEAR
from eat_plugin.cli import Failures, progress
from eat_plugin.cli.probe import (
    SEED,
    Clips,
    choose_clips,
    conclude_splits,
    deliver,
    describe_run,
    open_data,
)
from eat_plugin.data.entries import original_name
from eat_plugin.data.fingerprints import digest_files, take_fingerprint
from eat_plugin.data.manifest import digest_clips

if TYPE_CHECKING:
    from eat_plugin.inference.probing import Interval, Judge
    from eat_plugin.inference.tokens import SplitTokens, TokenReader


def run_head(args: argparse.Namespace) -> int:
    """Train a head on the training split, score the held-out one, and report."""
    from eat_plugin.cli import head_report
    from eat_plugin.inference.head_training import Plan
    from eat_plugin.inference.probing import Judge, Split, check_targets
    from eat_plugin.inference.tokens import TokenReader

    began = time.monotonic()
    if args.layer != "all":
        raise ValueError("--layer is for vectors; --head takes all blocks")
    for name in ("prototypes", "features"):
        if getattr(args, name) is not None and args.head != CGP:
            raise ValueError(f"--{name} is for --head {CGP}, not for {args.head}")
    loaded, label_set, names = open_data(args)
    reader = TokenReader(loaded, args.head == CGP, args.batch_size)
    splits = [choose_clips(args, name, label_set, loaded) for name in names]
    check_targets(splits[0].labels.multi_hot(splits[0].numbers))  # before work that takes long
    with _folder(args) as folder:
        tokens = [_find(args, reader, clips, folder) for clips in splits]
        failures = [_name(clips, found) for clips, found in zip(splits, tokens)]
        conclude_splits(splits, failures)
        train, heldout = (
            Split({}, clips.labels.multi_hot(clips.numbers[found.usable]))
            for clips, found in zip(splits, tokens)
        )
        check_targets(train.targets)
        seed = SEED if args.seed is None else args.seed
        judge = Judge.choose(train, heldout, args.resamples, seed)
        wanted = args.prototypes, args.updates, seed
        plan = Plan.choose(args.head, len(train.targets), *wanted)
        results = _measure(plan, tokens, (train, heldout), judge, loaded.device)
    summary = {
        **describe_run(args, loaded, (train, heldout), splits, failures),
        **head_report.summarize(plan, judge, *results),
        "seconds": round(time.monotonic() - began, 1),
    }
    code = deliver(args, summary, list(head_report.format_report(summary)), failures)
    if args.out is not None:
        head_report.draw_results(args.out, summary)
    return code


def _measure(
    plan: Any, tokens: list[SplitTokens], splits: tuple[Any, Any], judge: Judge, device: Any
) -> tuple[Interval, list[Interval], list[float] | None]:
    """Train the head, and a linear probe of each block; return their figures and the weights."""
    from eat_plugin.inference.head_training import Clips, make_head, score_clips, train_head
    from eat_plugin.inference.heads import BlockMixture

    train, heldout = (Clips(found, device) for found in tokens)
    shape = (*tokens[0].whole.shape[1:], splits[0].targets.shape[1])
    found = {}
    for name in dict.fromkeys((LINEAR, plan.head)):
        head = make_head(plan._replace(head=name), *shape).to(device)
        losses = train_head(head, train, splits[0].targets, plan, judge.single)
        for _ in progress(losses, f"training {name}", "update", plan.updates):
            pass
        found[name] = head, score_clips(head, heldout, judge.single)
    blocks = [judge.judge(scores, splits[1].targets) for scores in found[LINEAR][1]]
    head, scores = found[plan.head]
    if not isinstance(head, BlockMixture):
        return blocks[-1], blocks, None
    return judge.judge(scores, splits[1].targets), blocks, head.weights.tolist()


@contextmanager
def _folder(args: argparse.Namespace) -> Iterator[Path]:
    """Yield a folder for features; without ``--features`` it is removed at the end."""
    if args.features is not None:
        args.features.mkdir(parents=True, exist_ok=True)
        yield args.features
        return
    with tempfile.TemporaryDirectory(prefix="eat-probe-") as folder:
        yield Path(folder)


def _find(args: argparse.Namespace, reader: TokenReader, clips: Clips, folder: Path) -> SplitTokens:
    """Return the tokens of a split: those that are kept, or computed now."""
    from eat_plugin.inference import tokens

    key: dict[str, Any] = {}
    if args.features is not None:
        key = {
            "checkpoint": take_fingerprint(args.checkpoint, checksum=True).sha256,
            "manifest": digest_clips(args.data / f"{clips.split}.tsv"),
            "files": digest_files(clips.manifest.entry(int(n)) for n in clips.numbers),
            "clips": hashlib.sha256(clips.numbers.astype("<i8").tobytes()).hexdigest(),
        }
        found = tokens.find_tokens(folder, clips.split, key, reader.shape)
        if found is not None and reader.with_patches:
            return found
    entries = [clips.manifest.entry(int(number)) for number in clips.numbers]

    def watch(found: tokens.Found) -> tokens.Found:
        return iter(progress(found, f"reading {clips.split}", "clip", len(entries)))

    result = tokens.collect_tokens(reader, entries, folder, clips.split, watch)
    if isinstance(result.patches, tokens.ComputedPatches):
        sys.stderr.write(
            f"eat probe: the features of {clips.split} would take more than half of the free space "
            f"in {folder}; they are computed again in each pass\n"
        )
    if args.features is not None:
        tokens.save_tokens(folder, clips.split, key, result)
    return result


def _name(clips: Clips, found: SplitTokens) -> Failures:
    """Return the reasons by the names of the clips."""
    numbers = clips.numbers
    return {
        original_name(clips.manifest.name(int(numbers[number]))): reason
        for number, reason in found.failures.items()
    }
