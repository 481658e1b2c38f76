"""Log-mel energies of whole clips: their statistics, and the rows of a feature cache.

Clips are read in blocks, without padding: an hour of audio needs no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..data.clip import ClipError
from ..data.entries import Clip, Entry, Storage, locate
from ..data.frontend import FRAME_LENGTH, FRAMES_A_SECOND, SAMPLE_RATE, FrontEnd
from ..data.manifest import Manifest
from ..data.sources import read_blocks
from ..data.statistics import Moments, sum_up
from .processes import in_processes

BLOCK_SECONDS = 30
LEAD_SECONDS = 1  # before a block, longer than the resampler's filter; its frames are dropped
CHUNK = 8  # clips that a worker process measures at a time


def measure_clip(clip: Clip) -> Moments:
    """Take the moments of a clip's log-mel energies, over all frames and bins.

    Raises:
        ClipError: the clip cannot be used, or is shorter than one frame.
    """
    with _one_thread():
        blocks = _clip_energies(locate(clip))
        moments = sum_up(Moments.of(block.numpy()) for block in blocks)
    if moments.count == 0:
        raise ClipError(f"is shorter than one frame ({1000 * FRAME_LENGTH // SAMPLE_RATE} ms)")
    return moments


def _clip_energies(entry: Entry) -> Iterator[Tensor]:
    if entry.storage is not Storage.CACHE:
        yield from block_energies(read_blocks(entry, BLOCK_SECONDS))
        return
    from ..data.feature_cache import read_cached

    start, block = 0, BLOCK_SECONDS * FRAMES_A_SECOND
    while len(energies := read_cached(entry, start, block)):
        yield energies
        start += block


def block_energies(blocks: Iterator[tuple[Tensor, int]]) -> Iterator[Tensor]:
    """Compute the log-mel energies of a clip block by block: the frames that the whole has.

    Blocks begin at whole seconds, which are whole samples before and after resampling. Each is
    computed with the second before it, whose frames are dropped.

    Args:
        blocks: the clip's parts of any length, in order: `[n]` float32, and the rate in Hz.

    Yields:
        Energies, `[frames, 128]` float32.
    """
    front_end = FrontEnd((LEAD_SECONDS + BLOCK_SECONDS) * FRAMES_A_SECOND, 0.0, 1.0)
    held, rate, lead = torch.zeros(0), SAMPLE_RATE, 0
    for waveform, rate in blocks:
        held = torch.cat([held, waveform])
        while len(held) >= front_end.needed_samples(rate):
            yield front_end.energies(held, rate)[lead:]
            held, lead = held[BLOCK_SECONDS * rate :], LEAD_SECONDS * FRAMES_A_SECOND
    yield front_end.energies(held, rate)[lead:]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: the sums are the same in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_all(manifest: Manifest, workers: int) -> Iterator[Moments | str]:
    """Measure the clips of a manifest in parallel.

    Yields:
        The moments of each clip in order, or the reason why it cannot be used.

    Raises:
        OSError: a worker process died.
    """
    entries = [manifest.entry(index) for index in range(len(manifest))]
    return in_processes(_measure, entries, workers, CHUNK)


def _measure(entry: Entry) -> Moments | str:
    try:
        return measure_clip(entry)
    except ClipError as error:
        return str(error)
