"""Files that a run would start from and that are damaged or old: refused, or replaced."""

import logging
import os
import re
from typing import NamedTuple, Optional

from ..checkpoint_files import REMEDY, DamagedError, find_damage, read_data
from ..data.files import clone, drafted
from .option_checks import CHECKPOINTS, DEFAULT, find_last
from .run_config import RunConfig

logger = logging.getLogger(__name__)


class Damaged(NamedTuple):
    """A damaged ``checkpoint_last.pt``, or a missing or old one in a folder with others.

    Attributes:
        path: the file.
        damage: what is wrong with it; empty if it is missing or old.
        intact: the newest intact checkpoint in its folder.
    """

    path: str
    damage: str
    intact: str


def check_files(run: RunConfig) -> Optional[Damaged]:
    """Look for damage in the files that a run starts from.

    Returns:
        A damaged, missing or old ``checkpoint_last.pt`` with its replacement, or None.

    Raises:
        ValueError: nothing can replace it, a file named by an option is damaged, or
            ``checkpoint.restore_file`` would undo updates of this run.
    """
    last = find_last(run)
    if run.get("checkpoint.restore_file") == DEFAULT:
        if os.path.isfile(last):
            damage = _describe_damage(last)
            # Without last checkpoints it was made by an earlier start, and is not kept up to date.
            if not damage and not run.get("checkpoint.no_last_checkpoints"):
                return None
            found = _replace_by_newest(run, last, damage)
            return found if damage or _is_newer(found, last) else None
        if not run.get("checkpoint.continue_once"):
            found = _replace_by_newest(run, last, "")
            if found is not None:
                return found
    for option in CHECKPOINTS:
        path = run.get(f"checkpoint.{option}")
        if path and path != DEFAULT and os.path.isfile(path):
            damage = find_damage(path)
            if damage:
                raise ValueError(f"checkpoint.{option} is {path!r}, which is damaged: {damage}; "
                                 f"{REMEDY}")  # fmt: skip
    _check_restored(run, last)
    return None


def _is_newer(found: Optional[Damaged], last: str) -> bool:
    """Whether a checkpoint has more updates than ``checkpoint_last.pt``."""
    updates = None if found is None else _count_updates(found.intact)
    return updates is not None and updates > (_count_updates(last) or 0)


def _check_restored(run: RunConfig, last: str) -> None:
    """Refuse to start again from ``checkpoint.restore_file`` where the run has gone on."""
    path = run.get("checkpoint.restore_file")
    if path == DEFAULT or not (os.path.isfile(path) and os.path.isfile(last)):
        return
    reached = None if os.path.samefile(path, last) else _count_updates(last)
    start = 0 if run.get("checkpoint.reset_optimizer") else _count_updates(path) or 0
    if reached is not None and reached > start:
        raise ValueError(
            f"checkpoint.restore_file is {path!r}, but this run has reached update {reached} "
            f"({os.path.abspath(last)}), which would be lost: to resume, leave it out (for the "
            "first start of a run there is checkpoint.continue_once); to go back, move that file "
            "away"
        )


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
        is_missing = not os.path.exists(found.path)
        try:
            if found.damage:
                os.link(found.path, aside)  # so that there is a checkpoint_last.pt at any time
        except OSError:
            if not is_missing:
                os.replace(found.path, aside)
    if not found.damage:
        state = "there is no checkpoint %s" if is_missing else "%s is not the newest checkpoint"
        text = f"{state}; the run continues from %s"
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


def _replace_by_newest(run: RunConfig, last: str, damage: str) -> Optional[Damaged]:
    """Find the intact checkpoint of a folder that has the most updates.

    Returns:
        The pair; None if ``last`` is missing and there are no others, which a new run would
        overwrite.

    Raises:
        ValueError: there is no intact one.
    """
    folder = os.path.dirname(last)
    suffix = re.escape(run.get("checkpoint.checkpoint_suffix") or "")
    names = re.compile(rf"checkpoint(\d+|_\d+_\d+|_best|\.best_.+){suffix}\.pt")
    paths = [entry.path for entry in os.scandir(folder)] if os.path.isdir(folder) else []
    paths = [path for path in sorted(paths) if names.fullmatch(os.path.basename(path))]
    updates = {path: number for path in paths if (number := _count_updates(path)) is not None}
    for path in sorted(updates, key=lambda path: updates[path], reverse=True):
        if not find_damage(path):
            return Damaged(last, damage, path)
    if not damage and not updates:
        return None
    problem = f"is damaged: {damage}" if damage else "is missing"
    raise ValueError(
        f"{os.path.abspath(last)} {problem}; its folder has no intact checkpoint: copy one there "
        "from a backup, or move the damaged ones away to start a new run"
    )


def _count_updates(path: str) -> Optional[int]:
    """Return the number of updates of a checkpoint; None if it cannot be read."""
    try:
        saved = read_data(path, check=False, only_data=True)
        return int(saved["optimizer_history"][-1]["num_updates"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
