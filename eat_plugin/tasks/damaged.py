"""Damaged files that a run would start from: refused, or for ``checkpoint_last.pt`` replaced."""

import logging
import os
import re
from typing import List, NamedTuple, Optional

from ..checkpoint_files import REMEDY, DamagedError, find_damage, read_data
from ..data.files import clone, drafted
from .option_checks import CHECKPOINTS, DEFAULT, find_last
from .run_config import RunConfig

logger = logging.getLogger(__name__)


class Damaged(NamedTuple):
    """A damaged ``checkpoint_last.pt``, or a missing one beside others.

    Attributes:
        path: the file.
        damage: what is wrong with it; empty if it is missing.
        intact: the newest intact checkpoint in its folder.
    """

    path: str
    damage: str
    intact: str


def check_files(run: RunConfig) -> Optional[Damaged]:
    """Look for damage in the files that a run starts from.

    Returns:
        A damaged or missing ``checkpoint_last.pt`` with its replacement, or None.

    Raises:
        ValueError: nothing can replace it, or a file named by an option is damaged.
    """
    last = find_last(run)
    if run.get("checkpoint.restore_file") == DEFAULT and os.path.isfile(last):
        damage = _describe_damage(last)
        problem = f"is damaged: {damage}"
        return Damaged(last, damage, _find_newest(run, last, problem)) if damage else None
    is_given = run.get("checkpoint.restore_file") != DEFAULT or run.get("checkpoint.continue_once")
    others = [] if is_given else _list_others(run, last)
    if any(_count_updates(path) >= 0 for path in others):  # a new run would overwrite them
        return Damaged(last, "", _find_newest(run, last, "is missing"))
    for option in CHECKPOINTS:
        path = run.get(f"checkpoint.{option}")
        if path and path != DEFAULT and os.path.isfile(path):
            damage = find_damage(path)
            if damage:
                raise ValueError(f"checkpoint.{option} is {path!r}, which is damaged: {damage}; "
                                 f"{REMEDY}")  # fmt: skip
    return None


def replace_damaged(found: Damaged) -> None:
    """Rename a damaged checkpoint, and let the newest intact one take its place.

    Raises:
        OSError: the folder cannot be written to; nothing has changed.
    """
    aside, number = f"{found.path}.damaged", 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{found.path}.damaged{number}"
    with drafted(found.path, follow_links=False) as draft:
        clone(found.intact, draft)
        try:
            os.link(found.path, aside)  # so that there is a checkpoint_last.pt at any time
        except OSError:
            if os.path.lexists(found.path):
                os.replace(found.path, aside)
    if not found.damage:
        text = "there is no checkpoint %s; the run continues from %s"
        logger.warning(text, os.path.abspath(found.path), os.path.abspath(found.intact))
        return
    logger.warning(
        "%s is damaged: %s; it is kept as %s, and the run continues from %s",
        os.path.abspath(found.path), found.damage, os.path.basename(aside),
        os.path.abspath(found.intact),
    )  # fmt: skip


def _describe_damage(path: str) -> str:
    damage = find_damage(path)
    if damage:
        return damage
    try:
        read_data(path, check=False, only_data=True)
    except DamagedError:
        return "it cannot be read as a checkpoint"
    except ValueError:  # Python objects; fairseq reports them
        pass
    return ""


def _list_others(run: RunConfig, last: str) -> List[str]:
    """Return the other checkpoints in a folder."""
    folder = os.path.dirname(last)
    suffix = re.escape(run.get("checkpoint.checkpoint_suffix") or "")
    names = re.compile(rf"checkpoint(\d+|_\d+_\d+|_best|\.best_.+){suffix}\.pt")
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in sorted(found) if names.fullmatch(name)]


def _find_newest(run: RunConfig, last: str, problem: str) -> str:
    """Return the intact checkpoint of a folder that has the most updates."""
    for path in sorted(_list_others(run, last), key=_count_updates, reverse=True):
        if _count_updates(path) >= 0 and not find_damage(path):
            return path
    raise ValueError(
        f"{os.path.abspath(last)} {problem}; its folder has no intact checkpoint: copy "
        "one there from a backup, or move the damaged ones away to start a new run"
    )


def _count_updates(path: str) -> int:
    """Return the number of updates of a checkpoint; -1 if it cannot be read."""
    try:
        saved = read_data(path, check=False, only_data=True)
        return int(saved["optimizer_history"][-1]["num_updates"])
    except (OSError, ValueError, LookupError, TypeError):
        return -1
