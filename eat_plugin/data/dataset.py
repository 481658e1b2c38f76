"""The audio data set: from manifest entries to batches for a model.

Everything random about a clip comes from (seed, epoch, clip index) alone. A run therefore does not
depend on the number of workers or processes, nor on where it was interrupted.

Contents: ``AudioDataset``, ``Skipped`` (a clip that could not be used), ``make_generator``.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor
from torch.utils.data import get_worker_info

from ..masking import MaskSpec, draw_masks
from .features import FrontEnd
from .manifest import Manifest
from .sources import ClipError, probe_audio, read_audio

CROPS = ("start", "random")
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


class AudioDataset(FairseqDataset):
    """Spectrograms of the clips of a manifest, with masks drawn beside them.

    A clip that cannot be used is replaced by another one, drawn from the same (seed, epoch, index);
    the batch names it under ``skipped``.

    Args:
        manifest: the clips.
        front_end: from waveforms to normalised log-mel spectrograms.
        masks: what masks to draw for each clip; None draws none.
        num_masks: masks of a clip, K.
        seed: seed of the run.
        crop: which part of a clip longer than the window is taken: ``start``, or ``random`` for
            another part in each epoch.
        shuffle: put the clips in random order before they are put into batches.

    Raises:
        ValueError: if ``crop`` is unknown.
    """

    def __init__(
        self,
        manifest: Manifest,
        front_end: FrontEnd,
        *,
        masks: MaskSpec | None = None,
        num_masks: int = 1,
        seed: int = 1,
        crop: str = "start",
        shuffle: bool = True,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"task.crop is {crop!r}; choose one of {', '.join(CROPS)}")
        self.manifest = manifest
        self.front_end = front_end
        self.masks = masks
        self.num_masks = num_masks
        self.seed = seed
        self.crop = crop
        self.shuffle = shuffle
        # In shared memory: fairseq keeps the data workers from one epoch to the next.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.manifest)

    def set_epoch(self, epoch: int) -> None:
        """Tell this process and its workers which epoch they draw for, from 1."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one clip.

        Returns:
            ``id``; ``clip``, the index of the clip that was used, ``id`` or another one in place of
            a damaged clip; ``source`` [1, T, F] float32; ``mask`` [K, L] uint8, 1 = hidden, where
            masks are drawn; ``skipped``, a list of ``Skipped``.

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
        source = self._load(clip, generator, skipped)
        while source is None:
            if len(skipped) == MOST_ATTEMPTS:
                raise RuntimeError(
                    f"{MOST_ATTEMPTS} clips in a row cannot be used, the first is "
                    f"{skipped[0].name!r}: {skipped[0].reason}; the root of the manifest is "
                    f"{self.manifest.root}"
                )
            clip = int(torch.randint(len(self), (), generator=generator))
            source = self._load(clip, generator, skipped)
        item: dict[str, Any] = {"id": index, "clip": clip, "source": source, "skipped": skipped}
        if self.masks is not None:
            item["mask"] = draw_masks(self.masks, self.num_masks, generator)
        return item

    def _load(
        self, index: int, generator: torch.Generator, skipped: list[Skipped]
    ) -> Tensor | None:
        try:
            waveform, sample_rate = self._read(index, generator)
        except ClipError as error:
            skipped.append(Skipped(self.manifest.name(index), str(error)))
            return None
        return self._transform(waveform, sample_rate, generator)

    def _transform(self, waveform: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
        """Turn a waveform [n] into a spectrogram [1, T, F]."""
        return self.front_end(waveform, sample_rate)

    def _read(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        """Read what the window needs of a clip: a waveform [n], and its rate in Hz."""
        path, size = self.manifest.path(index), int(self.manifest.sizes[index])
        _, sample_rate = probe_audio(path)
        needed = self.front_end.needed_samples(sample_rate)
        if size <= needed:
            return read_audio(path, expected_samples=size)
        start = 0
        if self.crop == "random":
            start = int(torch.randint(size - needed + 1, (), generator=generator))
        return read_audio(path, expected_samples=size, start=start, num_samples=needed)

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Put clips together into a batch.

        Args:
            samples: what ``__getitem__`` returned.

        Returns:
            ``id`` [B]; ``skipped``; and ``net_input`` with ``source`` [B, 1, T, F] and, where masks
            are drawn, ``precomputed_mask`` [B*K, L] (row b*K + k), ``num_visible`` and
            ``noise_seed``. Empty for no samples.
        """
        if not samples:
            return {}
        if get_worker_info() is None:
            with _reading:
                return self._collate(samples)
        return self._collate(samples)

    def _collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [sample["id"] for sample in samples]
        net_input: dict[str, Any] = {
            "source": torch.stack([sample["source"] for sample in samples]),
        }
        if self.masks is not None:
            net_input["precomputed_mask"] = torch.cat([sample["mask"] for sample in samples])
            net_input["num_visible"] = self.masks.num_visible
            net_input["noise_seed"] = make_generator(
                self.seed, int(self._epoch), *ids
            ).initial_seed()
        return {
            "id": torch.tensor(ids, dtype=torch.int64),
            "net_input": net_input,
            "skipped": [clip for sample in samples for clip in sample["skipped"]],
        }

    def ordered_indices(self) -> np.ndarray:
        """Return the order of clips, from the seed and epoch that fairseq sets around this call."""
        if self.shuffle:
            return np.random.permutation(len(self))  # noqa: NPY002, fairseq seeds this generator
        return np.arange(len(self))

    def num_tokens(self, index: int) -> int:
        """Return the length of a clip in frames: the window's, for every clip."""
        return self.front_end.target_length

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of many clips in frames."""
        return np.full(len(indices), self.front_end.target_length, dtype=np.int64)

    def size(self, index: int) -> int:
        """Return the length of a clip in frames, for fairseq's length filter."""
        return self.front_end.target_length
