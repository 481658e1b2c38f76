"""Base of the tasks: manifests, readers, and an account of clips that cannot be used."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Mapping, Optional, Set, Tuple

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.data import FairseqDataset
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import nn

from ..data.frames import KALDI
from ..data.frontend import FrontEnd
from ..data.manifest import Manifest
from ..data.overlap import TRAIN
from ..data.reader import ClipReader
from ..flags import add_task_flags
from ..inputs.images import check_model, make_image_front_end
from ..inputs.sound import check_patches
from . import checks, normalisation, sound
from .best_checkpoints import BestCheckpoints
from .choosing import Rule
from .config import AudioConfig
from .data_checks import check_folder, check_manifest, check_splits, read_split
from .image_checks import check_kind
from .resumed import ResumedRun
from .run_config import RunConfig
from .run_lock import lock
from .run_state import early_stop_state, leave_on_device, start_run
from .same_model import check_same_model
from .saving import Saver
from .skipped_clips import SKIPPED, check_share, count_clips, report_missing
from .start_from import check_front_end
from .worker_restarts import restart_workers
from .world_size import keep_position

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd

logger = logging.getLogger(__name__)

UPDATES_BETWEEN_CHECKS = 100


class AudioTask(FairseqTask):
    """A task on sound or images, some of which may be damaged.

    Data sets replace a damaged clip and name it in the batch. This class logs each name once per
    process, counts clips over all processes (``skipped_clips`` in the log, per epoch), and ends a
    run in which too many of an epoch's clips fail.

    Args:
        cfg: the options.
        from_checkpoint: the task is set up for a checkpoint, not for a run.
        given: the options as fairseq passed them, if ``cfg`` was translated from others.
        **kwargs: arguments of ``FairseqTask``.

    Raises:
        ValueError: an option is invalid; the message names it, its value and the choices.
    """

    source_dictionary = target_dictionary = None  # of text; fairseq 0.12.2 has no default
    recipe: ClassVar[Mapping[str, Rule]] = {}  # how options are chosen that are left open

    def __init__(
        self, cfg: AudioConfig, from_checkpoint: bool = False, given: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg, **kwargs)
        self.run = run = RunConfig(cfg if given is None else given)
        self.resumed: Optional[ResumedRun] = None
        self._validates = from_checkpoint or not run.get("dataset.disable_validation")
        if not from_checkpoint:
            self.resumed = checks.check_run(run, self.recipe, cfg)
            self.check_own_options(run)
            if self.resumed is None and cfg.images is None:
                check_front_end(run, cfg.frontend or KALDI)
            start_run(run, self.resumed)
        normalisation.resolve_norm(cfg, run, from_checkpoint, self.resumed)
        self._front_end = sound.make_front_end(cfg, self.resumed)
        self.images: Optional[ImageFrontEnd] = make_image_front_end(cfg)
        self.train_split: str = run.get("dataset.train_subset") or TRAIN
        self._best = BestCheckpoints(run)
        self.saver = Saver(run, self.resumed)
        self._compared = False
        self._named: Set[str] = set()
        self._skipped: Any = 0  # a tensor if processes sum on their GPUs
        self._updates = 0

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Declare the flags of `fairseq-train` and `fairseq-validate`."""
        add_task_flags(parser, cls)

    @property
    def front_end(self) -> FrontEnd:
        """The front end; its first use measures training clips, if they are not measured yet."""
        if self.cfg.norm_mean is None:
            normalisation.measure_norm(self.cfg, self.run, self.train_split)
            self._front_end = sound.make_front_end(self.cfg, self.resumed)
        return self._front_end

    def check_own_options(self, run: RunConfig) -> None:
        """Refuse options that do not suit this kind of task; a hook."""

    def check_start(self) -> str:
        """Return why nothing is left to do, or an empty text.

        Raises:
            ValueError: ``task.data`` is no folder, or another run writes to the folder of the run.
        """
        check_folder(self.run)
        lock(self.run, keep=False)
        return checks.describe_end(self.run, self.resumed)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> nn.Module:
        """Build the model.

        Raises:
            ValueError: there is no manifest to train on; the model takes other input than the task
                makes; or the checkpoint being resumed has another model.
        """
        if not from_checkpoint:
            check_manifest(self.run)
        model = super().build_model(cfg, from_checkpoint)
        if self.resumed is not None:
            check_same_model(self.resumed, cfg, getattr(model, "pretrained_model_args", None))
        check_model(model, self.images)
        check_patches(model, self._front_end)
        return model

    def load_dataset(
        self,
        split: str,
        combine: bool = False,
        task_cfg: Optional[FairseqDataclass] = None,
        **kwargs: Any,
    ) -> None:
        """Load ``{split}.tsv``; the split to train on is shuffled and augmented.

        Raises:
            ValueError: the split cannot be read or measured, options contradict each other, or
                another run writes to the folder.
            SystemExit: with 0, if the run to resume has all updates: fairseq would make another.
        """
        if split == self.train_split and combine:  # only fairseq's trainer combines shards
            lock(self.run)
            end = checks.describe_end(self.run, self.resumed)
            if end:
                logger.info(end)
                raise SystemExit(0)
        cfg: Any = task_cfg or self.cfg
        path = Path(self.cfg.data) / f"{split}.tsv"
        # fairseq 0.12.2 loads the validation split of runs that do not validate.
        if split == self.train_split or self._validates or path.is_file():
            manifest, train = self._read_manifest(path, split), split == self.train_split
            reader: Any = self.make_reader(manifest, path, cfg, train)
            dataset: Any = self.make_dataset(reader, cfg, split)
            dataset.wait = 60 * self.cfg.wait_for_data
            if split == self.train_split:
                checks.check_batches(self.run, dataset.epoch_size)
            if self.images is None:  # after all checks, since it may measure clips
                reader.front_end = self.front_end
            self.datasets[split] = dataset

    def make_dataset(self, reader: ClipReader, cfg: Any, split: str) -> FairseqDataset:
        """Make the data set of a split from the reader of its clips.

        Raises:
            ValueError: options contradict each other, or do not suit the clips.
        """
        raise NotImplementedError

    def _read_manifest(self, path: Path, split: str) -> Manifest:
        if split == self.train_split:
            checks.refuse_lone_processes()
        manifest = read_split(path)
        logger.info("%s: %d clips under %s", split, len(manifest), manifest.root)
        if split == self.train_split and not self._compared:
            self._compared = True
            check_splits(self.run, path.parent)
            normalisation.warn_of_audioset(self.cfg, manifest)
        return manifest

    def make_reader(self, manifest: Manifest, path: Path, cfg: Any, train: bool) -> ClipReader:
        """Make the reader of the clips of a manifest; with ``train`` they are augmented.

        Raises:
            ValueError: the clips are of another kind than the task's, or an option does not suit.
        """
        check_kind(manifest, path, self.images)
        if self.images is None:
            return sound.make_reader(cfg, manifest, self._front_end, train)
        from ..images.image_reader import ImageReader

        return ImageReader(manifest, self.images, augment=train)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an iterator over epochs of batches, which outlives its data workers."""
        batches = super().get_batch_iterator(dataset, *args, **kwargs)
        batches = keep_position(batches, self.run, self.resumed)
        return restart_workers(batches, self.saver.stopping)

    def state_dict(self) -> Dict[str, Any]:
        """Return the state that checkpoints keep."""
        return {**super().state_dict(), **early_stop_state(), **self.saver.state()}

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Start a new count of skipped clips."""
        super().begin_epoch(epoch, model)
        self._skipped = 0

    def begin_valid_epoch(self, epoch: int, model: nn.Module) -> None:
        """Start a validation."""
        super().begin_valid_epoch(epoch, model)
        self._best.begin_validation()

    def post_validate(self, model: nn.Module, stats: Dict[str, Any], agg: Any) -> None:
        """Take the metrics of a split; fairseq calls this before it saves a checkpoint."""
        self._best.validated(stats)

    def post_save(self, path: str, num_updates: int) -> None:
        """Complete the best checkpoints; fairseq calls this after it has saved one."""
        self.saver.attempt(partial(self._best.saved, path, num_updates))

    def train_step(
        self,
        sample: Dict[str, Any],
        model: nn.Module,
        criterion: FairseqCriterion,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Tuple[Any, Any, Dict[str, Any]]:
        """Run forward and backward, and report the batch's skipped clips."""
        sample = sound.compute_on_device(sample, self.front_end, model)
        loss, sample_size, log = super().train_step(
            sample, model, criterion, optimizer, update_num, ignore_grad
        )
        self.saver.stopping.fail(getattr(model, "collapse", ""))
        log[SKIPPED] = 0 if ignore_grad else self._name_skipped(sample)
        if ignore_grad:  # another batch in the place of an empty one: it does not count
            return loss, 0 * sample_size, {name: 0 * value for name, value in log.items()}
        return loss, sample_size, log

    def valid_step(
        self, sample: Dict[str, Any], model: nn.Module, criterion: FairseqCriterion
    ) -> Tuple[Any, Any, Dict[str, Any]]:
        """Run forward, and report the batch's skipped clips."""
        sample = sound.compute_on_device(sample, self.front_end, model)
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        self._name_skipped(sample)
        count_clips(sample, log)
        return loss, sample_size, log

    def reduce_metrics(
        self, logging_outputs: List[Dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Reduce the criterion's log, and count skipped clips.

        More of them in an epoch than ``max_skipped_share`` end the run.
        """
        if not criterion.training:
            report_missing(logging_outputs)
            super().reduce_metrics(logging_outputs, criterion)
            return
        skipped = sum(log.pop(SKIPPED, 0) for log in logging_outputs)
        self.saver.record.count(logging_outputs)
        super().reduce_metrics(logging_outputs, criterion)
        self._skipped = self._skipped + skipped
        self._updates += 1
        metrics.log_scalar(SKIPPED, self._skipped, weight=0, round=0)
        leave_on_device()
        # Every process has the same sum, so all stop at the same update. Reading it from a GPU
        # synchronises, hence not in every update.
        if not torch.is_tensor(self._skipped) or self._updates % UPDATES_BETWEEN_CHECKS == 0:
            drawn = self.dataset(self.train_split).epoch_size
            reason = check_share(int(self._skipped), drawn, self.cfg.max_skipped_share)
            self.saver.stopping.fail(reason)

    def _name_skipped(self, sample: Dict[str, Any]) -> int:
        clips = sample.get("skipped", ()) if sample else ()
        for name, reason in clips:
            if name not in self._named:
                self._named.add(name)
                logger.warning("clip %r cannot be used and was replaced: %s", name, reason)
        return len({name for name, _ in clips})
