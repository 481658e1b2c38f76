"""The data set: clips that a reader reads become batches for a model.

Everything random about a clip comes from (seed, epoch, clip index) alone. A run therefore does not
depend on the number of workers or processes, nor on where it was interrupted.

Contents: ``ClipDataset``, ``Skipped`` (a clip that could not be used), ``make_generator``.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch.utils.data import get_worker_info

from ..masking import MaskSpec, draw_masks, join_masks
from .clip import ClipError
from .lengths import ClipLengths, pad_clips, sort_by_length
from .reader import ClipReader
from .packed import PackedClip, join_clips

MOST_ATTEMPTS = 100

# Without data workers, fairseq reads ahead in a thread that it never stops. Python ends such
# threads at exit, and PyTorch aborts the process if it is at work in one of them. Taking this lock
# for good at exit lets the clip at hand be finished and keeps the next one from being started.
_reading = threading.Lock()
atexit.register(_reading.acquire)


class Skipped(NamedTuple):
    """A clip that could not be used.

    Attributes:
        name: its path as the manifest has it.
        reason: what is wrong with it.
    """

    name: str
    reason: str


def make_generator(*key: int) -> torch.Generator:
    """Make a generator whose stream depends on the numbers of a key and on nothing else."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


class ClipDataset(FairseqDataset):
    """The clips that a reader reads, with masks drawn beside them.

    A clip that cannot be used is replaced by another one, drawn from the same (seed, epoch, index);
    the batch names it under ``skipped``.

    Args:
        reader: reads the clips.
        masks: what masks to draw for each clip; None draws none.
        num_masks: masks of a clip, K.
        seed: seed of the run.
        shuffle: put the clips in random order before they are put into batches.
        lengths: of clips that keep their own length: a batch has clips of similar length, and
            masks, noise and all else of a clip do not depend on the others. None where all are read
            alike.
    """

    def __init__(
        self,
        reader: ClipReader,
        *,
        masks: MaskSpec | None = None,
        num_masks: int = 1,
        seed: int = 1,
        shuffle: bool = True,
        lengths: ClipLengths | None = None,
    ) -> None:
        self.reader = reader
        self.masks = masks
        self.num_masks = num_masks
        self.seed = seed
        self.shuffle = shuffle
        self.lengths = lengths
        self._least_frames = self._find_least_frames()
        # In shared memory: fairseq keeps the data workers from one epoch to the next.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.reader.manifest)

    @property
    def epoch_size(self) -> int:
        """Clips of an epoch."""
        return len(self)

    def set_epoch(self, epoch: int) -> None:
        """Tell this process and its workers which epoch they draw for, from 1."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one clip.

        Returns:
            ``id``; ``clip``, the index of the clip that was used, ``id`` or another one in place of
            a damaged clip; ``source``, what the reader gives; ``mask`` [K, L] uint8, 1 = hidden,
            where masks are drawn; ``noise_seed`` beside it, of a clip of its own length;
            ``skipped``, a list of ``Skipped``.

        Raises:
            RuntimeError: if no clip of the data set could be used.
        """
        if get_worker_info() is None:
            with _reading:
                return self._get_item(int(index))
        return self._get_item(int(index))

    def _get_item(self, index: int) -> dict[str, Any]:
        generator = make_generator(self.seed, int(self._epoch), index)
        skipped: list[Skipped] = []
        clip = index
        longest = None
        loaded = self._load(clip, longest, generator, skipped)
        while loaded is None:
            if len(skipped) == MOST_ATTEMPTS:
                raise RuntimeError(
                    f"{MOST_ATTEMPTS} clips in a row cannot be used, the first is "
                    f"{skipped[0].name!r}: {skipped[0].reason}; the root of the manifest is "
                    f"{self.reader.manifest.root}"
                )
            clip = int(torch.randint(len(self), (), generator=generator))
            if self.lengths is not None:
                # No longer than the clip it stands for: the batch was made for that one's length.
                longest = max(self.num_tokens(index), self._least_frames)
            loaded = self._load(clip, longest, generator, skipped)
        return {"id": index, "clip": clip, **loaded, "skipped": skipped}

    def _load(
        self, index: int, longest: int | None, generator: torch.Generator, skipped: list[Skipped]
    ) -> dict[str, Any] | None:
        try:
            source = self.reader(index, generator)
            source = source if longest is None else source[:, :longest]
            return {"source": source, **self._draw(source, generator)}
        except ClipError as error:
            skipped.append(Skipped(self.reader.manifest.name(index), str(error)))
            return None

    def _draw(self, source: Any, generator: torch.Generator) -> dict[str, Any]:
        """Draw what a clip needs beside its source."""
        if self.masks is None:
            return {}
        if self.lengths is None:
            return {"mask": draw_masks(self.masks, self.num_masks, generator)}
        num_frames = source.size(1)
        if num_frames < self._least_frames:
            raise ClipError(
                f"has {num_frames} frames; mask_prob={self.masks.mask_prob} takes "
                f"{self._least_frames}, or no patch of a mask would be kept"
            )
        masks = self.masks.resized(num_frames // self.lengths.patch)
        return {
            "mask": draw_masks(masks, self.num_masks, generator),
            "noise_seed": int(torch.randint(1 << 62, (), generator=generator)),
        }

    def _find_least_frames(self) -> int:
        """Find the length of the shortest clip of which every mask keeps a patch and hides one."""
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
        """Put clips together into a batch.

        Args:
            samples: what ``__getitem__`` returned.

        Returns:
            ``id`` [B]; ``skipped``; and ``net_input`` with ``source`` [B, C, T, F] and, where masks
            are drawn, ``precomputed_mask`` [B*K, L] (row b*K + k), ``num_visible`` and
            ``noise_seed``. Of clips of different length ``padding_mask`` [B, L] rather than
            ``num_visible``; of a reader of several windows their number of each clip,
            ``num_windows``; of a reader of samples what ``join_clips`` makes, as ``source``. Empty
            for no samples.
        """
        if not samples:
            return {}
        if get_worker_info() is None:
            with _reading:
                return self._collate(samples)
        return self._collate(samples)

    def _collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [sample["id"] for sample in samples]
        net_input = self._collate_sources([sample["source"] for sample in samples])
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
                net_input["noise_seed"] = make_generator(
                    self.seed, int(self._epoch), *ids
                ).initial_seed()
        return {
            "id": torch.tensor(ids, dtype=torch.int64),
            "net_input": net_input,
            "skipped": [clip for sample in samples for clip in sample["skipped"]],
        }

    def _collate_sources(self, sources: list[Any]) -> dict[str, Any]:
        if isinstance(sources[0], PackedClip):
            return {"source": join_clips(sources)}
        if self.lengths is not None:
            source, padding = pad_clips(sources, self.lengths.patch)
            return {"source": source, **({} if padding is None else {"padding_mask": padding})}
        if sources[0].dim() == 4:
            return {"source": torch.cat(sources), "num_windows": [len(clip) for clip in sources]}
        return {"source": torch.stack(sources)}

    def ordered_indices(self) -> np.ndarray:
        """Return the order of clips, from the seed and epoch that fairseq sets around this call.

        Clips that keep their own length are sorted by it, roughly where they are shuffled; fairseq
        shuffles the batches that it makes of them.
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
        """Return the length of a clip in frames: what is read."""
        return self.reader.num_frames if self.lengths is None else int(self.lengths.frames[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of many clips in frames."""
        if self.lengths is not None:
            return self.lengths.frames[indices]
        return np.full(len(indices), self.reader.num_frames, dtype=np.int64)

    def size(self, index: int) -> int:
        """Return the length of a clip in frames, for fairseq's length filter."""
        return self.num_tokens(index)
