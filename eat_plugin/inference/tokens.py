"""The tokens of all blocks of clips: computed, and kept on the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..choices import DEFAULT_BATCH
from ..data.clip import ClipError
from ..data.entries import Entry
from ..data.files import drafted, replacing
from ..data.frames import MEL_BINS
from .batches import group_results, list_jobs
from .loaded import Loaded
from .windows import Window

STORED = np.dtype("<f2")
MOST_OF_DISK = 0.5  # of the free space: more is computed again in each pass
TRIED = 8  # clips after which the size of all is estimated


class Tokens(NamedTuple):
    """The tokens of a clip.

    Attributes:
        whole: CLS of each block, the mean over windows; without CLS the mean over patches;
            [blocks, D] float32.
        patches: those of all windows without padding, of length 1, [n, blocks, D] float16; None if
            they were not asked for.
    """

    whole: np.ndarray
    patches: np.ndarray | None


class TokenReader:
    """Computes the tokens of clips, in adjacent windows of the length of training.

    Args:
        loaded: the model.
        with_patches: patches are needed.
        batch_size: windows at once.

    Attributes:
        shape: blocks and width D.
    """

    def __init__(self, loaded: Loaded, with_patches: bool, batch_size: int = DEFAULT_BATCH) -> None:
        self._loaded, self._windowing = loaded, loaded.windowing()
        self.with_patches, self._batch_size = with_patches, batch_size
        encoder = loaded.encoder
        self._bands = MEL_BINS if loaded.images is None else loaded.images.size[1]
        self._bands //= encoder.patch_encoder.patch_sides[1]
        self.shape = len(encoder.blocks), int(encoder.cfg.embed_dim)

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Tokens | ClipError]]:
        """Yield the number of each clip as soon as it is complete, and its tokens or error.

        Raises:
            ValueError: the model gives values that are not finite.
        """
        plans: list[list[Window]] = []
        broken: dict[int, ClipError] = {}
        jobs = list_jobs(self._plan(entries, plans, broken))
        compute = partial(self._loaded.features, granularity="all", layer="all")
        found = self._loaded.map_windows(jobs, self._windowing, compute, self._batch_size)
        for clip, rows in group_results(found):
            yield clip, rows if isinstance(rows, ClipError) else self._join(plans[clip], rows)
        yield from broken.items()

    def _plan(
        self,
        entries: Sequence[Entry],
        plans: list[list[Window]],
        broken: dict[int, ClipError],
    ) -> Iterator[tuple[Entry, list[Window]]]:
        for clip, entry in enumerate(entries):
            windows: list[Window] = []
            try:
                size, rate = self._loaded.probe(entry)
                size = size if entry.size is None else entry.size
                windows = self._loaded.plan(self._windowing, size, rate)
            except ClipError as error:
                broken[clip] = error
            plans.append(windows)
            yield entry, windows

    def _join(self, windows: list[Window], rows: list[np.ndarray]) -> Tokens:
        """Join the tokens of windows, [blocks, E + L, D] each."""
        if not all(np.isfinite(row).all() for row in rows):
            raise ValueError(
                f"{self._loaded.path} gives features that are not finite; check its weights"
            )
        extra, parts = self._loaded.encoder.num_extra_tokens, []
        for window, row in zip(windows, rows):
            grid = row[:, extra:].reshape(len(row), -1, self._bands, row.shape[-1])
            valid = grid[:, window.first : window.last].reshape(len(row), -1, row.shape[-1])
            parts.append(valid.swapaxes(0, 1))  # [n, blocks, D]
        if extra:
            whole = np.mean([row[:, extra - 1] for row in rows], axis=0)
        else:
            whole = np.concatenate(parts).mean(axis=0)
        if not self.with_patches:
            return Tokens(whole, None)
        patches = to_unit(np.concatenate(parts))
        return Tokens(whole, patches.astype(STORED))


def to_unit(x: np.ndarray) -> np.ndarray:
    """Scale vectors along the last axis to length 1."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))


class Patches(Protocol):
    """The patches of the clips of a split."""

    def take(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Return the patches of clips by number, [n, blocks, D] float16 each."""


class StoredPatches:
    """Patches in a file, which is mapped into memory.

    Args:
        path: the file, rows of [blocks, D] float16.
        counts: patches of each clip.
        shape: blocks and width.
    """

    def __init__(self, path: Path, counts: Sequence[int], shape: tuple[int, int]) -> None:
        self._ends = np.cumsum([0, *counts])
        rows = int(self._ends[-1])
        self._rows = np.memmap(path, STORED, "r", shape=(rows, *shape))

    def take(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """See ``Patches``."""
        return [self._rows[self._ends[number] : self._ends[number + 1]] for number in numbers]


class ComputedPatches:
    """Patches that are computed each time: they would not fit on the disk."""

    def __init__(self, reader: TokenReader, entries: Sequence[Entry]) -> None:
        self._reader, self._entries = reader, entries

    def take(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """See ``Patches``; raise ValueError if a clip cannot be read any more."""
        found: dict[int, np.ndarray] = {}
        for number, tokens in self._reader.read([self._entries[number] for number in numbers]):
            if isinstance(tokens, ClipError):
                raise ValueError(f"{self._entries[numbers[number]].path} {tokens}")
            assert tokens.patches is not None
            found[number] = tokens.patches
        return [found[number] for number in range(len(numbers))]


class SplitTokens(NamedTuple):
    """The tokens of a split.

    Attributes:
        usable: numbers of the clips that can be used, among those given, ascending.
        whole: [clips, blocks, D] float32, of these clips.
        patches: of these clips; None if they were not asked for.
        failures: number of each other clip -> the reason.
    """

    usable: list[int]
    whole: np.ndarray
    patches: Patches | None
    failures: dict[int, str]


Found = Iterator[tuple[int, "Tokens | ClipError"]]


def collect_tokens(
    reader: TokenReader,
    entries: Sequence[Entry],
    folder: Path,
    name: str,
    watch: Callable[[Found], Found] = iter,
) -> SplitTokens:
    """Compute the tokens of a split.

    Patches are kept in ``folder``, unless they would take more than half of its free space: then
    they are computed again when they are taken.

    Args:
        reader: computes tokens.
        entries: the clips.
        folder: exists.
        name: of the files in it.
        watch: passes the clips on one by one, as a progress bar does.

    Raises:
        ValueError: the model gives values that are not finite.
        OSError: the disk is full.
    """
    path = folder / f"{name}.patches"
    whole: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    failures: dict[int, str] = {}
    keeps = reader.with_patches
    # Complete or not at all, and not by two processes at once.
    with drafted(path) as draft, open(draft, "wb") as file:
        for number, tokens in watch(reader.read(entries)):
            if isinstance(tokens, ClipError):
                failures[number] = str(tokens)
                continue
            whole[number] = tokens.whole
            if tokens.patches is not None:
                counts[number] = len(tokens.patches)
            if keeps and tokens.patches is not None:
                file.write(tokens.patches.tobytes())
                if len(counts) == TRIED:
                    free = shutil.disk_usage(folder).free + file.tell()
                    keeps = file.tell() / TRIED * len(entries) <= MOST_OF_DISK * free
        if not keeps:
            file.truncate(0)
    usable = list(whole)  # complete in order, as jobs are
    patches: Patches | None = None
    if keeps and usable:
        patches = StoredPatches(path, [counts[number] for number in usable], reader.shape)
    if reader.with_patches and not keeps:
        patches = ComputedPatches(reader, [entries[number] for number in usable])
    stacked = [whole[number] for number in usable]
    array = np.stack(stacked) if stacked else np.zeros((0, *reader.shape), np.float32)
    return SplitTokens(usable, array, patches, failures)


def save_tokens(folder: Path, name: str, key: dict[str, Any], found: SplitTokens) -> None:
    """Complete the files of a split, so that ``find_tokens`` finds them."""
    if not isinstance(found.patches, StoredPatches):
        return
    counts = [len(part) for part in found.patches.take(range(len(found.usable)))]
    record = {"key": key, "usable": found.usable, "counts": counts, "failures": found.failures}
    with replacing(folder / f"{name}.npy") as file:
        np.save(file, found.whole)
    with replacing(folder / f"{name}.json") as file:
        file.write(json.dumps(record).encode())


def find_tokens(
    folder: Path, name: str, key: dict[str, Any], shape: tuple[int, int]
) -> SplitTokens | None:
    """Return the tokens of a split that an earlier run has kept; None if there are none.

    Raises:
        ValueError: they are of another checkpoint or of other clips.
    """
    try:
        record = json.loads((folder / f"{name}.json").read_bytes())
        usable, counts, found = record["usable"], record["counts"], record["key"]
        failures = {int(number): str(why) for number, why in record["failures"].items()}
        whole = np.load(folder / f"{name}.npy", allow_pickle=False)
        patches = StoredPatches(folder / f"{name}.patches", counts, shape)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if found != key:
        raise ValueError(
            f"{folder} holds the features of another checkpoint or of other clips; choose another "
            "--features, or remove it"
        )
    return SplitTokens(usable, whole, patches, failures)
