"""Freed memory is kept for the next clip rather than given back to the system.

A spectrogram takes some blocks of a megabyte or two. By default the C library of Linux (glibc) may
give such memory back when it is freed, and the system clears it anew, page by page, for the next
clip: about a thousand pages a clip, which costs as much time as all the arithmetic.
"""

from __future__ import annotations

import torch

LARGEST_BLOCK = 30 << 20  # bytes; glibc takes no notice of 32 MiB and more


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, keep freed blocks of up to ``LARGEST_BLOCK``.

    glibc sets its thresholds by the largest block that has been freed (mallopt(3), "dynamic mmap
    threshold"); a user's own (``MALLOC_TRIM_THRESHOLD_``) stay as they are. The block made here is
    never touched, and so takes no memory. Other C libraries take no notice.
    """
    torch.empty(LARGEST_BLOCK, dtype=torch.uint8)
