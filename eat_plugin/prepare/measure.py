"""Log-mel energies of whole clips, and their statistics.

Clips are read in blocks, without padding: an hour of audio needs no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..data.channels import MEAN
from ..data.clip import ClipError
from ..data.entries import Clip, Entry, Storage, locate
from ..data.fingerprints import check_archives
from ..data.frames import FRAMES_A_SECOND, KALDI, SAMPLE_RATE, TOO_SHORT, UNCHANGED
from ..data.frontend import FrontEnd, find_spectra
from ..data.manifest import Manifest, read_manifest
from ..data.sources import read_blocks
from ..data.statistics import Moments, sum_up
from .processes import Progress, try_in_processes

BLOCK_SECONDS = 30
LEAD_SECONDS = 1  # before a block, longer than the resampler's filter; its frames are dropped
CHUNK = 8  # clips that a worker process measures per task


def measure_clip(clip: Clip, channels: str = MEAN) -> Moments:
    """Return the moments of a clip's log-mel energies, over all bins and of each bin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are bit-identical in every process
    try:
        moments = sum_up(
            Moments.of(block.numpy()) for block in _clip_energies(locate(clip), channels)
        )
    finally:
        torch.set_num_threads(threads)
    if moments.count == 0:
        raise ClipError(TOO_SHORT)
    return moments


def _clip_energies(entry: Entry, channels: str) -> Iterator[Tensor]:
    if entry.storage is not Storage.CACHE:
        yield from block_energies(read_blocks(entry, BLOCK_SECONDS, channels))
        return
    from ..data.feature_cache import read_cached

    start, block = 0, BLOCK_SECONDS * FRAMES_A_SECOND
    while len(energies := read_cached(entry, start, block, channels)):
        yield energies
        start += block


def block_energies(blocks: Iterator[tuple[Tensor, int]], kind: str = KALDI) -> Iterator[Tensor]:
    """Compute the log-mel energies of a clip block by block; the frames equal those of the whole.

    Blocks start at whole seconds, which are whole samples before and after resampling. Each is
    computed with the second before it, whose frames are dropped.

    Args:
        blocks: consecutive parts of the clip, of any length: `[n]` float32, and the rate in Hz.
        kind: front end.

    Yields:
        Energies, `[frames, 128]` float32.
    """
    length = (LEAD_SECONDS + BLOCK_SECONDS) * FRAMES_A_SECOND
    front_end = FrontEnd(length, *UNCHANGED, kind=kind)
    held, rate, lead = torch.zeros(0), SAMPLE_RATE, 0
    for waveform, rate in blocks:
        held = torch.cat([held, waveform])
        while len(held) >= front_end.needed_samples(rate):
            yield front_end.energies(held, rate)[lead:]
            held, lead = held[BLOCK_SECONDS * rate :], LEAD_SECONDS * FRAMES_A_SECOND
    rest = replace(front_end, target_length=2 * length)  # frames may begin before the end
    yield rest.energies(held, rate)[lead:]


def needs_statistics(path: Path) -> bool:
    """Whether statistics of log-mel values suit a manifest; those of some caches are others."""
    entry = read_manifest(path).entry(0)
    if entry.storage is not Storage.CACHE:
        return True
    from ..data.feature_cache import cached_kind

    return find_spectra(cached_kind(entry)).norm is None


def measure_all(manifest: Manifest, workers: int, channels: str = MEAN) -> Iterator[Moments | str]:
    """Yield the moments of each clip of a manifest, or the message of its ClipError."""
    entries = [manifest.entry(index) for index in range(len(manifest))]
    return try_in_processes(partial(measure_clip, channels=channels), entries, workers, CHUNK)


def measure_split(
    path: Path, workers: int, progress: Progress, channels: str = MEAN
) -> tuple[Moments, int, dict[str, str]]:
    """Measure the clips of a manifest.

    Returns:
        The moments of all usable clips, the number of these, and the reason per path of the others.
    """
    manifest = read_manifest(path)
    check_archives(path.with_suffix(".archives"), manifest.root)
    if manifest.entry(0).storage is Storage.IMAGE:
        raise ValueError(f"{path}:2: {manifest.name(0)!r} is an image; eat stats is for sound")
    if manifest.entry(0).storage is Storage.CACHE:
        from ..data.feature_cache import check_cache

        check_cache(manifest.entry(0), channels)
    total, failures = Moments(), {}
    measured = measure_all(manifest, workers, channels)
    results = progress(measured, "measuring", "clip", len(manifest))
    for index, result in enumerate(results):
        if isinstance(result, str):
            failures[str(manifest.path(index))] = result
        else:
            total += result
    return total, len(manifest) - len(failures), failures
