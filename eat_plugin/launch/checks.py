"""The checks that a task makes at start, before anything is printed or written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fairseq.tasks import setup_task
from omegaconf import DictConfig, OmegaConf


class Start(NamedTuple):
    """A run before it starts.

    Attributes:
        nothing_to_do: why; empty for a run.
        cfg: its configuration, with the options that are chosen at start.
        choices: these options, as overrides.
    """

    nothing_to_do: str
    cfg: DictConfig
    choices: list[str]


def check_settings(cfg: DictConfig, folder: Path) -> Start:
    """Set up the task of a run, as fairseq will do in the folder of the run.

    Raises:
        ValueError: an option is invalid, or the checkpoint in the folder cannot be resumed with it.
    """
    container = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    with _working_in(folder), _without_log():
        resolved = OmegaConf.create(container)
        assert isinstance(resolved, DictConfig)
        task = setup_task(resolved.task)
        return Start(str(task.check_start()), resolved, task.run.choices)


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Change the working folder, if the folder exists."""
    before = os.getcwd()
    if folder.is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _without_log() -> Iterator[None]:
    """Log nothing: the run itself will log the same."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
