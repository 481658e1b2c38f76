"""Memory that this process keeps for its next update."""

from __future__ import annotations

import ctypes
import os

# Options of glibc's mallopt, and their values. Blocks from LARGE bytes on have pages of their own,
# which are returned when they are freed: the limit that glibc itself reaches after some updates.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
NEVER, STEP, LARGE, USUAL = -1, 64 << 20, 32 << 20, 65536
SMALL = 1 << 20  # of blocks that return: else those below LARGE stay, and fragments with them


def keep_freed_memory(keep: bool = True, returned: int = LARGE) -> None:
    """Let this process keep the memory that it frees.

    glibc returns large blocks to the system, which clears their pages at the next use: in an update
    on a CPU, up to a fifth of the time. Environment variables ``MALLOC_*`` have precedence. Without
    glibc nothing changes.

    Args:
        keep: False returns large blocks, as without this function.
        returned: bytes of the smallest block that is returned; ``SMALL`` for the least memory.
            Without effect where memory is kept.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_option(TRIM_THRESHOLD, NEVER)
    set_option(TOP_PAD, STEP)
    set_option(MMAP_THRESHOLD, returned)
    set_option(MMAP_MAX, 0 if keep else USUAL)
