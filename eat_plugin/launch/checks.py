"""The checks that a task makes at start, before anything is printed or written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fairseq.tasks import setup_task
from omegaconf import DictConfig, OmegaConf

OWN = "eat_plugin"


class Start(NamedTuple):
    """A run before it starts.

    Attributes:
        nothing_to_do: why; empty for a run.
        cfg: its configuration, with the options that are chosen at start.
        choices: these options, as overrides.
        task: its task.
        warnings: what the task would log as warnings.
    """

    nothing_to_do: str
    cfg: DictConfig
    choices: list[str]
    task: Any
    warnings: list[str]


def check_settings(cfg: DictConfig, folder: Path) -> Start:
    """Set up the task of a run, as fairseq will do in the folder of the run.

    Raises:
        ValueError: an option is invalid, or the checkpoint in the folder cannot be resumed with it.
    """
    container = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    with working_in(folder), collecting_warnings() as warnings:
        resolved = OmegaConf.create(container)
        assert isinstance(resolved, DictConfig)
        task = setup_task(resolved.task)
        return Start(str(task.check_start()), resolved, task.run.choices, task, warnings)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change the working folder, if the folder exists."""
    before = os.getcwd()
    if folder.is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _Collector(logging.Handler):
    """Keeps the warnings of the plugin; those of fairseq are dropped."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(OWN):
            self.messages.append(record.getMessage())


@contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """Log nothing, since the run itself will log the same; yield a list of our warnings."""
    collector = _Collector()
    loggers = [logging.getLogger(name) for name in (OWN, "fairseq")]
    given = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.propagate = False
    try:
        yield collector.messages
    finally:
        for logger, propagates in zip(loggers, given):
            logger.removeHandler(collector)
            logger.propagate = propagates
