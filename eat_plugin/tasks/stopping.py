"""Requests to end a run before its last update: signals, and failures that leave the model intact.

All processes agree before each step of training and of validation, so that they end with the same
update.
"""

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, Tuple

import torch
import torch.distributed as dist

from ..choices import PREEMPTED_STATUS

logger = logging.getLogger(__name__)

# Kinds of requests and their exit codes; of several, the last counts.
CONTINUE, INTERRUPTED, PREEMPTED, FAILED = range(4)
_KINDS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED, signal.SIGUSR1: PREEMPTED}


class Stopping:
    """What this process was asked to do, and the agreement of all processes on it.

    Attributes:
        is_active: requests are obeyed; without, a signal and an error have their usual effect.
    """

    def __init__(self) -> None:
        self.is_active = False
        self._request = CONTINUE
        self._reason = ""
        self._process = os.getpid()
        self._given: Dict[int, Any] = {}  # handlers before this run
        self._group: Any = None
        self._device = torch.device("cpu")

    def begin(self, device: torch.device) -> None:
        """Take over the signals, and connect the processes of the run; all of them call this.

        Args:
            device: of the training.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group, self._device = _connect(device)
        self.is_active, self._process = True, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in _KINDS:
                self._given[number] = signal.signal(number, self._handle)

    def fail(self, reason: str) -> None:
        """Ask for an end with an error; the first reason is kept. Do nothing if there is none.

        Raises:
            RuntimeError: requests are not obeyed.
        """
        if not reason:
            return
        if not self.is_active:
            raise RuntimeError(reason)
        self._reason = self._reason or reason
        self._request = FAILED

    def agree(self) -> int:
        """Return the kind of request, the same in all processes; ``CONTINUE`` if there is none."""
        if self._group is None:
            return self._request
        kind = torch.tensor(self._request, device=self._device)
        dist.all_reduce(kind, dist.ReduceOp.MAX, group=self._group)
        return int(kind)

    def end(self, kind: int) -> None:
        """Give the signals back once all processes are here, and leave the run.

        Raises:
            KeyboardInterrupt: after ctrl-C.
            SystemExit: with ``PREEMPTED_STATUS`` after SIGTERM or SIGUSR1.
            RuntimeError: after a failure, with its reason.
        """
        self.agree()  # waits until the first process has saved
        self.release()
        if kind == INTERRUPTED:
            raise KeyboardInterrupt
        if kind == PREEMPTED:
            raise SystemExit(PREEMPTED_STATUS)
        raise RuntimeError(self._reason or "another process of the run failed; see its log")

    @contextmanager
    def released_after_errors(self) -> Iterator[None]:
        """Give the signals back if the block ends with an error."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the signals back to those that had them."""
        self.is_active = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._given.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: not one of Python
        self._given.clear()

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a data worker, which has the handlers of its parent
            return
        if number == signal.SIGINT and self._request == INTERRUPTED:
            raise KeyboardInterrupt
        self._request = max(self._request, _KINDS[signal.Signals(number)])
        again = "; ctrl-C again ends it at once" if number == signal.SIGINT else ""
        text = f"{signal.Signals(number).name}: the run ends after this update{again}\n"
        with suppress(OSError, RuntimeError):  # the code that was interrupted may be writing
            sys.stderr.write(text)


def _connect(device: torch.device) -> Tuple[Any, torch.device]:
    """Return a group of all processes, and the device of its tensors.

    If all of them find a network for it, the group is not over GPUs, which would wait for the host
    before each update.
    """
    if dist.get_backend() == "gloo":
        return dist.group.WORLD, torch.device("cpu")
    all_find = torch.tensor(int(_finds_network()), device=device)
    dist.all_reduce(all_find, dist.ReduceOp.MIN)
    if all_find:
        return dist.new_group(backend="gloo"), torch.device("cpu")
    return dist.group.WORLD, device


def _finds_network() -> bool:
    try:
        dist.ProcessGroupGloo.create_default_device()
    except (AttributeError, RuntimeError):  # without gloo; the name of the host has no address
        return False
    return True
