"""What the tasks on audio share: manifests, and clips that cannot be used."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.data import FairseqDataset
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING
from torch import nn

from ..data.containers import check_archives
from ..data.frontend import FrontEnd
from ..images.image_reader import ImageFrontEnd, ImageReader
from ..data.manifest import Manifest, read_manifest
from ..data.reader import ClipReader
from ..options import option
from . import device_front_end, lengths, precision, settings, normalisation as statistics
from .image_options import ImagesConfig, check_kind, check_model, make_image_front_end
from .resume import EarlierRun, find_earlier_run

logger = logging.getLogger(__name__)

TRAIN = "train"
FEWEST_TOLERATED = 10
UPDATES_BETWEEN_CHECKS = 100


@dataclass
class AudioConfig(FairseqDataclass):
    """Options that the tasks share."""

    data: str = option(MISSING, "folder of train.tsv and so on")
    target_length: int = option(1024, "window of a clip, in frames of 10 ms")
    norm_mean: Optional[float] = option(None, statistics.HELP.format(what="mean"))
    norm_std: Optional[float] = option(None, statistics.HELP.format(what="standard deviation"))
    pad_value: str = option(
        "zero", "what short clips are padded with: zero (as published) or silence"
    )
    crop: str = option("start", "part of a training clip longer than the window: start, or random")
    length: str = option("pad", lengths.HELP)
    patch_size: int = option(
        II("model.modalities.image.patch_size"),
        "length=mask: frames of the model's patches, of which clips are made up",
    )
    fbank: device_front_end.FbankConfig = field(
        default_factory=device_front_end.FbankConfig,
        metadata={"help": "how spectrograms are computed"},
    )
    images: Optional[ImagesConfig] = option(
        None, "the data are images, and how they are cropped and so on"
    )
    rebuild_batches: bool = option(True, "put other clips together in each epoch")
    max_skipped_share: float = option(0.01, "share of an epoch's clips that may be unusable")
    seed: int = II("common.seed")


class AudioTask(FairseqTask):
    """A task on sound or images, whose clips may be damaged.

    Data sets replace such a clip and name it in the batch. This class logs each name once a
    process, counts clips over all processes (``skipped_clips`` in the log, per epoch), and ends a
    run in which too many of an epoch's clips fail.

    Attributes:
        earlier: what the run that goes on has to keep; None if it begins anew.
        front_end: makes spectrograms of sound.
        images: makes the model's input of images; None where the data are sound.

    Args:
        cfg: the options.
        from_checkpoint: the task is set up for a checkpoint, not for a run.
        given: what fairseq handed over, in its whole configuration, where ``cfg`` was translated
            from it; None where it is ``cfg`` itself.
        **kwargs: what else fairseq passes on.

    Raises:
        ValueError: if an option cannot work, naming it, its value and the choices.
    """

    source_dictionary = target_dictionary = None  # of text; fairseq 0.12.2 has no default

    def __init__(
        self, cfg: AudioConfig, from_checkpoint: bool = False, given: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg, **kwargs)
        device_front_end.check_options(cfg)
        self.earlier: Optional[EarlierRun] = None
        self._validates = True
        if not from_checkpoint:
            given = cfg if given is None else given
            self.check_settings(given)
            root = settings.whole_config(given)
            self._validates = not settings.setting(root, "dataset.disable_validation")
            self.earlier = find_earlier_run(given)
            precision.check(given, self.earlier)
        statistics.settle(cfg, from_checkpoint, self.earlier)
        self.front_end: FrontEnd = lengths.make_front_end(cfg)
        self.images: Optional[ImageFrontEnd] = make_image_front_end(cfg)
        self._compared = False
        self._named: Set[str] = set()
        self._skipped: Any = 0  # a tensor where processes add up on their GPUs
        self._updates = 0

    def check_settings(self, given: Any) -> None:
        """Refuse options of fairseq that cannot work.

        Args:
            given: the task's options, as fairseq handed them over.

        Raises:
            ValueError: naming them, and what to set.
        """
        settings.check(given)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> nn.Module:
        """Build the model.

        Raises:
            ValueError: if it takes other input than the task makes.
        """
        model = super().build_model(cfg, from_checkpoint)
        check_model(model, self.images)
        lengths.check_patches(model, self.front_end)
        return model

    def load_dataset(
        self,
        split: str,
        combine: bool = False,
        task_cfg: Optional[FairseqDataclass] = None,
        **kwargs: Any,
    ) -> None:
        """Load a split; ``train`` is shuffled and augmented, others are taken as they are.

        Args:
            split: name of the manifest, without ``.tsv``.
            combine: part of fairseq's interface; a split is one file.
            task_cfg: options to use instead of the task's own.
            **kwargs: part of fairseq's interface.

        Raises:
            ValueError: if the split cannot be read, or options do not go together.
        """
        # fairseq 0.12.2 loads the validation split of runs that do not validate.
        if split == TRAIN or self._validates or self.manifest_path(split).is_file():
            self.datasets[split] = self.make_dataset(split, task_cfg or self.cfg)

    def make_dataset(self, split: str, cfg: Any) -> FairseqDataset:
        """Make the data set of a split; see ``load_dataset``.

        Args:
            split: name of the manifest.
            cfg: the task's options.
        """
        raise NotImplementedError

    def manifest_path(self, split: str) -> Path:
        """Return where the manifest of a split is, or would be."""
        return Path(self.cfg.data) / f"{split}.tsv"

    def read_split(self, split: str) -> Manifest:
        """Read the manifest of a split.

        Raises:
            ManifestError: if it is missing or broken, or an archive of its clips has changed.
            ValueError: if this is one of several processes that do not know of each other.
        """
        if split == TRAIN:
            _refuse_lone_processes()
        path = self.manifest_path(split)
        if not path.is_file():
            raise ValueError(
                f"there is no {os.path.abspath(path)}; task.data has to be a folder that eat "
                "manifest has written, by its absolute path"
            )
        manifest = read_manifest(path)
        check_archives(Path(self.cfg.data) / f"{split}.archives", manifest.root)
        logger.info("%s: %d clips under %s", split, len(manifest), manifest.root)
        if split == TRAIN and not self._compared:
            self._compared = True
            statistics.compare(self.cfg, manifest)
        return manifest

    def make_reader(self, manifest: Manifest, split: str, cfg: Any, **options: Any) -> ClipReader:
        """Make the reader of a split's clips.

        Args:
            manifest: the clips.
            split: name of the manifest; images of ``train`` are augmented.
            cfg: the task's options.
            **options: how sound is read, as ``device_front_end.make_reader`` has it.

        Raises:
            ValueError: if the clips are images and the task takes sound, or the reverse.
        """
        check_kind(manifest, Path(cfg.data) / f"{split}.tsv", self.images)
        if self.images is not None:
            return ImageReader(manifest, self.images, augment=split == TRAIN)
        return device_front_end.make_reader(cfg, manifest, self.front_end, **options)

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Start to count anew."""
        super().begin_epoch(epoch, model)
        self._skipped = 0

    def train_step(
        self,
        sample: Dict[str, Any],
        model: nn.Module,
        criterion: FairseqCriterion,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Tuple[Any, Any, Dict[str, Any]]:
        """Do forward and backward, and report the batch's skipped clips."""
        sample = device_front_end.complete(sample, self.front_end, model)
        loss, sample_size, log = super().train_step(
            sample, model, criterion, optimizer, update_num, ignore_grad
        )
        log["skipped_clips"] = 0 if ignore_grad else self._name_skipped(sample)
        return loss, sample_size, log

    def valid_step(
        self, sample: Dict[str, Any], model: nn.Module, criterion: FairseqCriterion
    ) -> Tuple[Any, Any, Dict[str, Any]]:
        """Do forward, and report the batch's skipped clips."""
        sample = device_front_end.complete(sample, self.front_end, model)
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        log["skipped_clips"] = self._name_skipped(sample)
        return loss, sample_size, log

    def reduce_metrics(
        self, logging_outputs: List[Dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Reduce the criterion's log, and keep account of skipped clips.

        Raises:
            RuntimeError: if more of the epoch's clips failed than ``max_skipped_share``.
        """
        skipped = sum(log.pop("skipped_clips", 0) for log in logging_outputs)
        super().reduce_metrics(logging_outputs, criterion)
        if not criterion.training:
            metrics.log_scalar_sum("skipped_clips", skipped, round=0)
            return
        self._skipped = self._skipped + skipped
        self._updates += 1
        metrics.log_scalar("skipped_clips", self._skipped, weight=0, round=0)
        # Every process has the same sum here, so all of them stop at the same update. Reading a
        # sum from a GPU makes it wait, hence not in every update.
        if not torch.is_tensor(self._skipped) or self._updates % UPDATES_BETWEEN_CHECKS == 0:
            self._check_share(int(self._skipped), self.dataset(TRAIN))

    def _check_share(self, skipped: int, dataset: Any) -> None:
        drawn = dataset.epoch_size
        tolerated = max(FEWEST_TOLERATED, int(self.cfg.max_skipped_share * drawn))
        if skipped > tolerated:
            raise RuntimeError(
                f"{skipped} clips of this epoch cannot be used, of {drawn} in all; at most "
                f"{tolerated} are tolerated (task.max_skipped_share="
                f"{self.cfg.max_skipped_share}, and never fewer than {FEWEST_TOLERATED}). The log "
                "names each of them with its reason"
            )

    def _name_skipped(self, sample: Dict[str, Any]) -> int:
        clips = sample.get("skipped", ()) if sample else ()
        for name, reason in clips:
            if name not in self._named:
                self._named.add(name)
                logger.warning("clip %r cannot be used and was replaced: %s", name, reason)
        return len({name for name, _ in clips})


def _refuse_lone_processes() -> None:
    """Raise where a launcher started several processes and fairseq takes each for the only one."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and not torch.distributed.is_initialized():
        raise ValueError(
            f"the launcher started {started} processes, but each would train alone: set "
            f"distributed_training.distributed_world_size={started}"
        )
