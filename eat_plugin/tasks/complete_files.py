"""Files of checkpoints: written and copied completely or not at all."""

import errno
import os
from contextlib import contextmanager
from typing import Any, Iterator

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from ..checkpoint_files import find_damage
from ..data.files import clone, drafted


@contextmanager
def complete_files() -> Iterator[None]:
    """Replace fairseq's ways of writing and copying a checkpoint."""
    names = {"torch_persistent_save": write_checkpoint, "PathManager": _Linking}
    given = {name: getattr(checkpoint_utils, name) for name in names}
    try:
        for name, value in names.items():
            setattr(checkpoint_utils, name, value)
        yield
    finally:
        for name, value in given.items():
            setattr(checkpoint_utils, name, value)


class _Linking(PathManager):
    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Give a checkpoint a second name."""
        copy_checkpoint(src_path, dst_path)
        return True


def copy_checkpoint(source: str, target: str) -> None:
    """Give a checkpoint a second name, by a hard link where there are any."""
    with drafted(target, follow_links=False) as draft:
        clone(source, draft)


def write_checkpoint(state: Any, filename: str, async_write: bool = False) -> None:
    """Write a checkpoint under a temporary name, flush it, compare its checksums, rename it.

    Raises:
        OSError: the disk is full or broken; there is no new file.
    """
    try:
        with drafted(filename, follow_links=False) as draft:
            with open(draft, "wb") as file:
                torch.save(state, file)
            damage = find_damage(draft)
            if damage:
                raise OSError(errno.EIO, f"damaged after writing: {damage}", os.fspath(filename))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        counter: Any = _Counter()
        torch.save(state, counter)
        text = f"{error.strerror}, {counter.size / 1e6:.1f} MB needed"
        raise OSError(error.errno, text, filename) from error


class _Counter:
    """A file that counts its bytes."""

    size = 0

    def write(self, data: Any) -> int:
        number = memoryview(data).nbytes
        self.size += number
        return number

    def flush(self) -> None:
        """Do nothing; PyTorch calls it."""
