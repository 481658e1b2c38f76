"""The data set: clips from a reader become batches for a model.

All randomness of a clip comes from (seed, epoch, clip index). A run does not depend on the number
of workers or processes, nor on where it was interrupted.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch.utils.data import get_worker_info

from ..data.clip import ClipError
from ..data.lengths import sort_by_length
from ..data.reader import ClipReader
from ..data.remote import fetch_ahead
from ..data.stores import UnreachableError
from ..masking import MaskSpec, draw_masks, join_masks

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 100
BETWEEN_ATTEMPTS = 30.0  # seconds, while waiting for data

# Without data workers, fairseq reads ahead in a thread that it never stops. Python ends such
# threads at exit, and PyTorch aborts the process if one of them is running its code. Taking this
# lock at exit, for good, lets the current clip finish and keeps the next one from starting.
_reading = threading.Lock()
atexit.register(_reading.acquire)


class UnreadableError(RuntimeError):
    """No clip can be read."""


class Skipped(NamedTuple):
    """A clip that could not be used: its name in the manifest, and the reason."""

    name: str
    reason: str


def make_generator(*key: int) -> torch.Generator:
    """Make a generator whose stream depends on the numbers of a key alone."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


def read_some(reader: ClipReader, most: int) -> tuple[list[int], list[Any]]:
    """Read some clips of a reader, the same ones in every run, process and epoch.

    Returns:
        Indices of the clips, and what the reader gives for each; those that cannot be used are
        left out. They are fewer than ``most`` if ``MOST_ATTEMPTS`` for each did not find it.
    """
    indices, clips = [], []
    order = np.random.default_rng(0).permutation(len(reader.manifest))
    with _reading:
        for index in order[: MOST_ATTEMPTS * most].tolist():
            try:
                clips.append(reader.read(index, make_generator(0, index)))
                indices.append(index)
            except ClipError:
                continue  # named when it is trained on
            if len(clips) == most:
                break
    return indices, clips


class ClipDataset(FairseqDataset):
    """The clips of a reader, with masks.

    A clip that cannot be used is replaced by another one, drawn from the same (seed, epoch, index);
    the batch names it under ``skipped``. Clips that keep their own length (``reader.lengths``) are
    batched by similar length, and their masks and noise do not depend on other clips.

    Args:
        reader: reads the clips.
        masks: masks to draw for each clip; None draws none.
        num_masks: masks per clip, K.
        seed: seed of the run.
        shuffle: shuffle the clips before they are batched.

    Attributes:
        wait: seconds to wait if no clip can be read, as when a file system is away.
    """

    wait = 0.0

    def __init__(
        self,
        reader: ClipReader,
        *,
        masks: MaskSpec | None = None,
        num_masks: int = 1,
        seed: int = 1,
        shuffle: bool = True,
    ) -> None:
        self.reader = reader
        self.lengths = reader.lengths
        self.masks = masks
        self.num_masks = num_masks
        self.seed = seed
        self.shuffle = shuffle
        self._least_frames = self._find_least_frames()
        # In shared memory: fairseq keeps the data workers from one epoch to the next.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.reader.manifest)

    @property
    def epoch_size(self) -> int:
        """Clips per epoch."""
        return len(self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 1, in this process and its workers."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load a clip.

        Args:
            index: of the clip; plus the number of clips, once for each earlier draw in this epoch:
                each draw has its own crop, masks and augmentations.

        Returns:
            ``id``; ``clip``, the index of the clip used: ``id``, or its replacement; ``source``
            from the reader; ``mask`` [K, L] uint8, 1 = hidden; ``noise_seed`` of a clip that keeps
            its own length; ``skipped``, a list of ``Skipped``.

        Raises:
            UnreadableError: ``MOST_ATTEMPTS`` clips in a row, or the store of a clip, could not be
                used, and not after ``wait`` either.
        """
        end = time.monotonic() + self.wait
        while True:
            try:
                if get_worker_info() is None:
                    with _reading:
                        return self._get_item(int(index))
                return self._get_item(int(index))
            except UnreadableError as error:
                left = end - time.monotonic()
                if left <= 0:
                    raise
                logger.warning("waiting for the data, %.1f more minutes: %s", left / 60, error)
                time.sleep(min(left, BETWEEN_ATTEMPTS))

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Load the clips of a batch; those in a store are fetched at the same time."""
        manifest = self.reader.manifest
        if manifest.stored is not None:
            fetch_ahead(manifest.entry(int(index) % len(self)) for index in indices)
        return [self[index] for index in indices]

    def _get_item(self, draw: int) -> dict[str, Any]:
        repetition, index = divmod(draw, len(self))
        key = (self.seed, int(self._epoch), index, *([repetition] if repetition else []))
        generator = make_generator(*key)
        skipped: list[Skipped] = []
        clip = index
        longest = None
        loaded = self._load(clip, longest, generator, skipped)
        while loaded is None:
            if len(skipped) == MOST_ATTEMPTS:
                raise UnreadableError(
                    f"{MOST_ATTEMPTS} clips in a row cannot be used, the first is "
                    f"{skipped[0].name!r}: {skipped[0].reason}; the root of the manifest is "
                    f"{self.reader.manifest.root}"
                )
            clip = int(torch.randint(len(self), (), generator=generator))
            if self.lengths is not None:  # the batch was made for the length of the damaged clip
                longest = max(self.num_tokens(index), self._least_frames)
            loaded = self._load(clip, longest, generator, skipped)
        return {"id": index, "clip": clip, **loaded, "skipped": skipped}

    def _load(
        self, index: int, longest: int | None, generator: torch.Generator, skipped: list[Skipped]
    ) -> dict[str, Any] | None:
        try:
            source = self.reader.read(index, generator)
            source = source if longest is None else source[:, :longest]
            return {"source": source, **self._draw(source, generator)}
        except UnreachableError as error:  # no other clip in its place: the store may come back
            raise UnreadableError(f"{error.filename}: {error.strerror}") from error
        except ClipError as error:
            skipped.append(Skipped(self.reader.manifest.name(index), str(error)))
            return None

    def _draw(self, source: Any, generator: torch.Generator) -> dict[str, Any]:
        """Draw the masks of a clip, and the seed of its noise."""
        if self.masks is None:
            return {}
        if self.lengths is None:
            return {"mask": draw_masks(self.masks, self.num_masks, generator)}
        num_frames = source.size(1)
        if num_frames < self._least_frames:
            raise ClipError(
                f"has {num_frames} frames; mask_prob={self.masks.mask_prob} needs "
                f"{self._least_frames}, so that a mask keeps at least one patch"
            )
        masks = self.masks.resized(num_frames // self.lengths.patch)
        return {
            "mask": draw_masks(masks, self.num_masks, generator),
            "noise_seed": int(torch.randint(1 << 62, (), generator=generator)),
        }

    def _find_least_frames(self) -> int:
        """Find the least length at which every mask keeps a patch and hides one."""
        if self.masks is None or self.lengths is None:
            return 0
        columns = 1
        while True:
            try:
                self.masks.resized(columns)
            except ValueError:
                columns += 1
            else:
                return columns * self.lengths.patch

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Join clips from ``__getitem__`` to a batch.

        Returns:
            ``id`` [B]; ``replaced`` bool [B]; ``skipped``; ``net_input`` with ``source`` and others
            from the reader's ``collate`` and, with masks, ``precomputed_mask`` [B*K, L] (row b*K +
            k), ``num_visible`` (without ``padding_mask``) and ``noise_seed``. Empty for no samples.
        """
        if not samples:
            return {}
        if get_worker_info() is None:
            with _reading:
                return self._collate(samples)
        return self._collate(samples)

    def _collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [sample["id"] for sample in samples]
        net_input = self.reader.collate([sample["source"] for sample in samples])
        if self.masks is not None:
            masks = [sample["mask"] for sample in samples]
            if "padding_mask" in net_input:
                net_input["precomputed_mask"] = join_masks(masks)
            else:
                net_input["precomputed_mask"] = torch.cat(masks)
                net_input["num_visible"] = int((masks[0][0] == 0).sum())
            if self.lengths is not None:
                net_input["noise_seed"] = [sample["noise_seed"] for sample in samples]
            else:
                generator = make_generator(self.seed, int(self._epoch), *ids)
                net_input["noise_seed"] = generator.initial_seed()
        return {
            "id": torch.tensor(ids, dtype=torch.int64),
            "replaced": torch.tensor([sample["clip"] != sample["id"] for sample in samples]),
            "net_input": net_input,
            "skipped": [clip for sample in samples for clip in sample["skipped"]],
        }

    def ordered_indices(self) -> np.ndarray:
        """Return the order of clips, from the seed and epoch that fairseq sets around this call.

        Clips that keep their own length are sorted by it; fairseq shuffles the batches.
        """
        indices = self._choose_clips()
        if self.lengths is None:
            return indices
        return sort_by_length(indices, self.lengths.frames, self.shuffle)

    def _choose_clips(self) -> np.ndarray:
        if self.shuffle:
            return np.random.permutation(len(self))  # noqa: NPY002, fairseq seeds this generator
        return np.arange(len(self))

    def num_tokens(self, index: int) -> int:
        """Return the length of a clip in frames, as read."""
        if self.lengths is None:
            return self.reader.num_frames
        return int(self.lengths.frames[index % len(self)])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of many clips in frames."""
        if self.lengths is not None:
            return self.lengths.frames[indices % len(self)]
        return np.full(len(indices), self.reader.num_frames, dtype=np.int64)

    def size(self, index: int) -> int:
        """Return the length of a clip in frames, for fairseq's length filter."""
        return self.num_tokens(index)
