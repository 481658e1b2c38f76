"""Every option of fairseq does what docs/fairseq_options.md says."""

import multiprocessing
import os
import re
import signal
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig

from tests.training.conftest import flatten
from tests.training.in_process import load, train

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "fairseq_options.md"
ROW = re.compile(r"\| `(\w+)` \| `([^`]+)` \| (same|other|unused|refused|not tried) \| (.*)\|")
SECTIONS = (
    "common", "optimization", "dataset", "distributed_training", "checkpoint", "ema",
)  # fmt: skip
# Option -> files in the folder of the run, apart from checkpoint_last.pt and checkpoint_best.pt.
FILES = {
    "common.log_file": ["log.txt"],
    "common.tensorboard_logdir": ["tb"],
    "checkpoint.save_dir": ["elsewhere/checkpoint_last.pt"],
    "checkpoint.save_interval_updates": ["checkpoints/checkpoint_1_2.pt"],
    "checkpoint.no_last_checkpoints": ["checkpoints/checkpoint_1_2.pt"],
    "checkpoint.checkpoint_suffix": ["checkpoints/checkpoint_last-a.pt"],
}


def rows():
    """Section and option, overrides, result and note of each row."""
    section, found = "", []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif match := ROW.match(line):
            option, tried, result, note = match.groups()
            found.append((f"{section}.{option}", tried.split(), result, note))
    return found


def test_document__has_every_option():
    options = [
        f"{section.name}.{option}"
        for section in fields(FairseqConfig)
        if section.name in SECTIONS
        for option in section.type.__dataclass_fields__
        if option != "_name"
    ]
    listed = [option for option, *_ in rows()]
    assert set(options) <= set(listed)
    assert len(listed) == len(set(listed))
    for option, tried, *_ in rows():
        assert any(override.startswith(f"{option}=") for override in tried), option


def run(name, data, folder, overrides, queue):
    """Train in a child process: several runs start from the same state."""
    os.chdir(folder)
    signal.alarm(200)
    try:
        train(name, data, *overrides)
        queue.put(("trained", ""))
    except Exception as error:  # noqa: BLE001, reported
        queue.put((type(error).__name__, str(error)))


def try_options(name, data, folder, overrides):
    """Train; return how it ended and the message of an error."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    folder.mkdir()
    process = context.Process(target=run, args=(name, data, folder, overrides, queue))
    process.start()
    process.join()
    return ("died", str(process.exitcode)) if queue.empty() else queue.get()


def weights_of(folder):
    """All weights of the last checkpoint, by name; None without one."""
    path = folder / "checkpoints" / "checkpoint_last.pt"
    return flatten(load(path.parent)["model"]) if path.exists() else None


def find_contradiction(option, result, ended, base, folder):
    """Return what differs from the result in the document; None if nothing does."""
    if result == "refused":
        kind, message = ended
        return None if kind == "ValueError" and "\n" not in message else ended
    if ended != ("trained", ""):
        return ended
    missing = [name for name in FILES.get(option, []) if not (folder / name).exists()]
    if missing:
        return missing
    weights = weights_of(folder)
    if weights is None:
        return None if result == "other" or option in FILES else "no checkpoint"
    same = weights.keys() == base.keys() and all(
        torch.equal(value, base[name]) for name, value in weights.items()
    )
    return None if same == (result != "other") else f"same weights: {same}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain", "finetune"])
@pytest.mark.parametrize("section", SECTIONS)
def test_every_option__does_what_the_document_says(labelled, tmp_path, name, section):
    torch.set_num_threads(1)
    assert try_options(name, labelled, tmp_path / "base", []) == ("trained", "")
    base, wrong = weights_of(tmp_path / "base"), {}
    for option, tried, result, note in rows():
        if not option.startswith(f"{section}.") or result == "not tried":
            continue
        if name == "pretrain" and "refused in pre-training" in note:
            result = "refused"
        ended = try_options(name, labelled, tmp_path / option, tried)
        found = find_contradiction(option, result, ended, base, tmp_path / option)
        wrong.update({option: found} if found else {})
    assert not wrong
