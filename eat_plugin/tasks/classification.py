"""Task ``eat_classification``: labelled clips and their metrics."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch.distributed as dist
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import register_task
from omegaconf import open_dict
from torch import nn

from ..data.events import ENDING, read_event_labels
from ..data.label_set import LabelSet, read_label_set
from ..data.labels import read_labels, read_weights
from ..data.manifest import Manifest
from ..data.reader import ClipReader
from ..data.statistics import WHOLE
from ..metrics import METRICS, ClipScores, metric_names, summarize
from ..options import option
from ..ranking import RankedScores
from . import event_labels
from .base import AudioConfig, AudioTask, logger
from .choosing import Known
from .data_checks import check_manifest
from .image_checks import check_kind
from .labelled import LabelledDataset
from .option_checks import check_metric
from .recipe import FINETUNING
from .run_config import RunConfig
from .start_from import resolve_start

SCORES = ("_predictions", "_targets")


@dataclass
class ClassificationConfig(AudioConfig):
    """Options of ``eat_classification``."""

    single_label: bool = option(False, "each clip has exactly one label")
    eval_windows: int = option(3, "length=crop: windows per longer clip, averaged in evaluation")
    roll_gain: Optional[bool] = option(False, "roll and scale training waveforms")
    noise: bool = option(False, "add noise to training spectrograms")
    weights_file: Optional[str] = option(
        None, "balanced sampling: weights of the training clips, one per line"
    )
    num_samples: int = option(200000, "clips per epoch of balanced sampling")
    replacement: bool = option(False, "balanced sampling may repeat a clip in an epoch")
    label_descriptors: str = option("label_descriptors.csv", "file of the classes, in data")
    labels: str = option("lbl", "ending of the label files")
    events: bool = option(
        False,
        "labels of frames, for sound event detection: {split}.events has onset, offset and "
        "label of each event, train.events the classes",
    )


@register_task("eat_classification", dataclass=ClassificationConfig)
class EatClassificationTask(AudioTask):
    """Classification of the clips of ``{data}/{split}.tsv`` by the labels in ``{split}.lbl``.

    With ``events`` each time step is classified, by the strong labels in ``{split}.events``, and
    the metrics are those of time steps.

    Validation reports mAP, mAUC and d-prime, and accuracy with one label per clip, over all clips
    of the split, each counted once, whatever the batches and processes.
    """

    recipe = FINETUNING

    def __init__(self, cfg: ClassificationConfig, **kwargs: Any) -> None:
        self._start_classes: Optional[int] = None
        super().__init__(cfg, **kwargs)
        # Kept in checkpoints: a fine-tuned model knows its labels.
        self.state.add_factory("labels", self._read_label_indices)
        self.state.add_factory("label_names", self._read_label_names)
        self._scores = ClipScores()
        self._summary: Tuple[Optional[ClipScores], int, Dict[str, float]] = (None, 0, {})

    def check_own_options(self, run: RunConfig) -> None:
        """Refuse a metric that is not computed; resolve the checkpoint to start from.

        Raises:
            ValueError: names the option, its value and the choices.
        """
        names = metric_names(self.cfg.single_label)
        check_metric(run, "eat_classification", names, METRICS)
        if self.cfg.events:
            event_labels.check_options(self.cfg)
        self._start_classes = resolve_start(run)

    def check_start(self) -> str:
        """Do as the base class does; also read strong labels, which no command has checked.

        Raises:
            ValueError: as there; or a table of events cannot be used.
        """
        reason = super().check_start()
        if self.cfg.events and not reason:
            event_labels.check_tables(self.run, Path(self.cfg.data), self._read_label_set())
        return reason

    @property
    def _classes_file(self) -> str:
        """Name of the file of the classes."""
        return f"{self.train_split}.{ENDING}" if self.cfg.events else self.cfg.label_descriptors

    def _read_label_set(self) -> LabelSet:
        path = Path(self.cfg.data) / self._classes_file
        return read_event_labels(path) if self.cfg.events else read_label_set(path)

    def _read_label_indices(self) -> Dict[str, str]:
        label_set = self._read_label_set()
        return {label: str(index) for index, label in enumerate(label_set.ids)}

    def _check_classes(self) -> None:
        """Refuse other classes than those of the checkpoint being resumed."""
        if self.resumed is None or not self.resumed.state.get("labels"):
            return
        if dict(self.resumed.state["labels"]) != self._read_label_indices():
            path = os.path.abspath(self.resumed.path)
            raise ValueError(
                f"the classes in {self._classes_file} differ from those of {path}, which "
                "this run would resume: choose another run folder (hydra.run.dir) or the same "
                "classes"
            )

    def _read_label_names(self) -> List[str]:
        return list(self._read_label_set().names)

    @property
    def label_set(self) -> LabelSet:
        """The classes, from a checkpoint or from the data."""
        return LabelSet.from_indices(self.state.labels)

    def make_dataset(
        self, reader: ClipReader, cfg: ClassificationConfig, split: str
    ) -> LabelledDataset:
        """Make the data set of a split, with its labels.

        Raises:
            ValueError: manifest, labels, classes and weights do not agree; the message says where.
        """
        train = split == self.train_split
        labels = None
        if not cfg.events:
            path = Path(cfg.data) / f"{split}.{cfg.labels}"
            labels = read_labels(path, self.label_set, reader.manifest, cfg.single_label)
            if not labels.names_match:
                logger.warning("%s has other names than the manifest; their order decides", path)
        self.state.label_names  # noqa: B018, read now so that checkpoints have them
        weights = None
        if train and cfg.weights_file:
            if not cfg.rebuild_batches:
                raise ValueError(
                    "task.rebuild_batches is false, so that task.weights_file would draw clips "
                    "once for all epochs; set it to true"
                )
            weights = read_weights(Path(cfg.data) / cfg.weights_file, len(reader.manifest))
        return LabelledDataset(
            reader,
            labels,
            seed=cfg.seed,
            shuffle=train,
            weights=weights,
            num_samples=cfg.num_samples,
            replacement=cfg.replacement,
        )

    def make_reader(self, manifest: Manifest, path: Path, cfg: Any, train: bool) -> ClipReader:
        """Make the reader of the clips of a manifest, with the labels of frames if asked for."""
        if not cfg.events:
            return super().make_reader(manifest, path, cfg, train)
        check_kind(manifest, path, self.images)
        return event_labels.make_reader(cfg, manifest, path, self._front_end, self.label_set, train)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> nn.Module:
        """Build the model for the classes of the data.

        Raises:
            ValueError: the model is configured for another number of classes, or takes other input
                than the task makes; the checkpoint being resumed has other classes.
        """
        if not from_checkpoint:
            check_manifest(self.run)  # before the classes, which are in the same folder
        self._check_classes()
        num_classes = len(self.label_set)
        with open_dict(cfg):
            if cfg.num_classes is None:
                cfg.num_classes = num_classes
        if cfg.num_classes != num_classes:
            raise ValueError(
                f"model.num_classes is {cfg.num_classes}, but {self._classes_file} has "
                f"{num_classes} classes"
            )
        if self._start_classes not in (None, num_classes):
            raise ValueError(
                f"checkpoint.finetune_from_model is a classifier of {self._start_classes} classes, "
                f"but {self._classes_file} has {num_classes}; with model.model_path it "
                "gives its encoder alone"
            )
        model: Any = super().build_model(cfg, from_checkpoint)
        event_labels.check_model(model, self.cfg.events)
        if not from_checkpoint:
            _compare_norm(self.cfg.norm, (Known(self.run).start or {}).get("task"))
        with open_dict(cfg):
            cfg.pretrained_model_args = model.pretrained_model_args
        return model

    def build_criterion(self, cfg: FairseqDataclass, **kwargs: Any) -> FairseqCriterion:
        """Build the criterion; fairseq's ``model`` is set to return the scores."""
        criterion = super().build_criterion(cfg, **kwargs)
        if hasattr(criterion, "log_keys"):
            criterion.log_keys = [*dict.fromkeys([*criterion.log_keys, *SCORES])]
        return criterion

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an iterator over batches; evaluation leaves out no clip."""
        if not dataset.shuffle:
            kwargs["required_batch_size_multiple"] = 1
            self._scores = ClipScores()
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def valid_step(
        self, sample: Dict[str, Any], model: nn.Module, criterion: FairseqCriterion
    ) -> Tuple[Any, Any, Dict[str, Any]]:
        """Run forward, and keep the scores of all processes."""
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        predictions, targets = (log.pop(name) for name in SCORES)
        usable = ~sample["replaced"]
        rows: Any = [t[usable].float().cpu().numpy() for t in (predictions, targets)]
        rows = (sample["id"][usable].cpu().numpy(), *rows)
        if self.cfg.events:
            rows = event_labels.flatten_steps(*rows)
        for scores in _gather(rows):
            self._scores.add(*scores)
        return loss, sample_size, log

    def reduce_metrics(
        self, logging_outputs: List[Dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Reduce the criterion's log; in validation log the metrics of the split."""
        super().reduce_metrics(logging_outputs, criterion)
        if criterion.training:
            return
        for name in metric_names(self.cfg.single_label):
            metrics.log_derived(name, partial(self._metric, self._scores, name))

    def _metric(self, scores: ClipScores, name: str, meters: Any) -> float:
        """Return a metric; all are computed at the first call for these scores."""
        summarized, number, summary = self._summary
        if summarized is not scores or number != len(scores):
            _, predictions, targets = scores.arrays()
            summary = summarize(RankedScores(predictions, targets), self.cfg.single_label)
            self._summary = (scores, len(scores), summary)
        return summary[name]


def _compare_norm(norm: str, trained: Any) -> None:
    """Warn if the encoder was trained on inputs that were normalised in another way."""
    before = (trained or {}).get("norm", WHOLE)
    if trained is not None and norm != before:
        logger.warning(
            "task.norm is %s, but the encoder was trained with %s; set task.norm=%s "
            "task.norm_mean=null task.norm_std=null",
            norm, before, before,
        )  # fmt: skip


def _gather(scores: Tuple[Any, ...]) -> List[Tuple[Any, ...]]:
    """Collect the scores of a batch from all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return [scores]
    gathered: List[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, scores)
    return gathered
