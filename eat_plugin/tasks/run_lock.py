"""One run per folder of checkpoints: a second one would overwrite those of the first."""

import errno
import fcntl
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Dict

from .run_config import RunConfig

logger = logging.getLogger(__name__)

NAME = ".lock"  # in checkpoint.save_dir
_held: Dict[str, int] = {}  # path -> descriptor, open until the process ends


def lock(run: RunConfig, keep: bool = True) -> None:
    """Lock the folder of checkpoints, in the first process of a run.

    The system removes the lock when the process ends, however it does. It is one that network file
    systems know (POSIX record lock); data workers do not inherit it.

    Args:
        run: the configuration.
        keep: until the end of this process.

    Raises:
        ValueError: another run has locked the folder.
    """
    folder = run.get("checkpoint.save_dir")
    is_first = not run.get("distributed_training.distributed_rank")
    if not folder or not os.path.isdir(folder) or not is_first or run.get("checkpoint.no_save"):
        return
    path = os.path.join(os.path.realpath(folder), NAME)
    if path in _held:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 1000).decode("utf-8", errors="replace").strip()
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise ValueError(
                f"another run ({holder}) writes its checkpoints to {os.path.dirname(path)}; wait "
                "until it ends, stop it, or choose another folder"
            ) from error
        logger.warning(
            "cannot lock %s (%s); a second run in this folder would overwrite its checkpoints",
            path, error.strerror,
        )  # fmt: skip
        return
    if not keep:
        os.close(descriptor)
        return
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"host {socket.gethostname()}, process {os.getpid()}, since {started}\n"
    with suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, text.encode())
    _held[path] = descriptor
