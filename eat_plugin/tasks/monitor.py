"""Monitoring of a pre-training: a few clips, always the same, are measured now and then.

The first process measures, in evaluation mode and without gradients. Nothing that training reads
changes: weights, random generators and the order of the data are the same bit for bit without it.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.logging import metrics
from torch import Tensor, nn

from ..data.label_set import read_label_set
from ..data.labels import ClipLabels, read_labels
from ..monitoring.alarms import Watch
from ..monitoring.values import TIME, measure, pool_clips
from ..options import option, require
from . import sound
from .data_checks import read_split
from .dataset import read_some

if TYPE_CHECKING:
    from .base import AudioTask

logger = logging.getLogger(__name__)

CLIPS = 16  # that are measured; and in a batch of the probe
PROBE_CLIPS = 256  # at most
PROBE_FILES = ("train.tsv", "train.lbl", "label_descriptors.csv")


@dataclass
class MonitorConfig:
    """Measurements during pre-training, see ``eat_plugin.monitoring``."""

    interval: int = option(0, "updates between measurements; 0: none")
    data: Optional[str] = option(
        None, f"folder of labelled clips for a probe, with {', '.join(PROBE_FILES)}; null: none"
    )
    stop: bool = option(False, "end a run that has collapsed; it saves first")


class _Probe:
    """Nearest neighbours among the clips of ``task.monitor.data``.

    Raises:
        ValueError: clips or labels cannot be read, are too few, or have one class.
    """

    def __init__(self, folder: str) -> None:
        manifest, labels, classes = (Path(folder, name) for name in PROBE_FILES)
        for path in (manifest, labels, classes):
            require(path.is_file(), "task.monitor.data", repr(folder), f"there is no {path.name}")
        self.path, self._manifest = manifest, read_split(manifest)
        self._labels = read_labels(labels, read_label_set(classes), self._manifest, False)
        _judge(self._labels, np.arange(len(self._manifest)))  # there are enough of them
        self._clips: List[int] = []
        self._batches: List[Dict[str, Any]] = []

    def measure(self, task: "AudioTask", model: Any) -> Dict[str, float]:
        """Score the features of the model; the first call reads the clips."""
        if not self._batches:
            reader: Any = task.make_reader(self._manifest, self.path, task.cfg, train=False)
            self._clips, samples = read_some(reader, PROBE_CLIPS)
            folder = repr(str(self.path.parent))
            require(bool(samples), "task.monitor.data", folder, "no clip can be read")
            starts = range(0, len(samples), CLIPS)
            self._batches = [reader.collate(samples[start : start + CLIPS]) for start in starts]
        found = [
            pool_clips(model.examine(**_prepare(batch, task, model), with_targets=False)).cpu()
            for batch in self._batches
        ]
        return _judge(self._labels, np.array(self._clips)).score(torch.cat(found).numpy())


def _judge(labels: ClipLabels, clips: np.ndarray) -> Any:
    from ..monitoring.probe import Neighbours

    return Neighbours(labels.multi_hot(clips))


class Monitor:
    """Measures the model of a task after some of its updates, and logs the values.

    Args:
        cfg: the options.
        state: of a run that is resumed, from ``state``.

    Raises:
        ValueError: an option is invalid, or the clips of the probe cannot be used.
    """

    def __init__(self, cfg: MonitorConfig, state: Optional[Mapping[str, Any]] = None) -> None:
        rule = "it must be 0 (no monitoring) or more updates"
        require(cfg.interval >= 0, "task.monitor.interval", cfg.interval, rule)
        if cfg.data and not cfg.interval:
            raise ValueError(
                f"task.monitor.data is {cfg.data!r}, but task.monitor.interval=0 measures nothing; "
                "set an interval in updates, or -1 to have one chosen"
            )
        state = state or {}
        self._interval, self._stops = cfg.interval, cfg.stop
        self._probe = _Probe(cfg.data) if cfg.data else None
        self._watch = Watch(state.get("watch"))
        self._values: Dict[str, float] = dict(state.get("values", {})) if cfg.interval else {}
        self._batch: Optional[Dict[str, Any]] = None
        self._since, self._spent = 0.0, 0.0  # seconds

    def state(self) -> Dict[str, Any]:
        """Return what a checkpoint keeps: the same in each repetition of a run."""
        values = {name: value for name, value in self._values.items() if name != TIME}
        return {"watch": self._watch.state(), "values": values}

    def look(self, task: "AudioTask", model: nn.Module, updates: int) -> None:
        """Measure after an update if one is due: the first, and each ``interval``.

        A run that has collapsed is asked to end, if the options say so.
        """
        if not self._interval or (updates > 1 and updates % self._interval) or not _is_first():
            return
        if self._batch is None and not self._read(task, _unwrap(model)):
            logger.warning("task.monitor: not two training clips can be read; none are measured")
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # or the time would be that of the update
        start = time.monotonic()
        try:
            values = self._measure(task, _unwrap(model))
        except torch.cuda.OutOfMemoryError:
            self._interval = 0
            logger.warning("task.monitor: no memory is left on the GPU; no more measurements")
            return
        now = time.monotonic()
        self._spent += now - start if self._since else 0.0
        self._since = self._since or now  # the first measurement reads the clips of the probe
        values[TIME] = 100 * self._spent / max(now - self._since, 1e-9)
        self._values = values
        warnings, collapse = self._watch.judge(values)
        for text in warnings:
            logger.warning("update %d: %s", updates, text)
        if collapse and self._stops:
            task.saver.stopping.fail(f"update {updates}: {collapse}")

    def log(self) -> None:
        """Log the last values, in each update: fairseq forgets them when it has printed them."""
        for name, value in self._values.items():
            metrics.log_scalar(name, value, weight=0)

    def _read(self, task: "AudioTask", model: Any) -> bool:
        """Read the clips that are measured; return whether two at least can be read."""
        reader = task.dataset(task.train_split).reader
        _, clips = read_some(reader, CLIPS)
        if len(clips) < 2:
            return False
        self._batch = _prepare(reader.collate(clips), task, model)
        return True

    def _measure(self, task: "AudioTask", model: Any) -> Dict[str, float]:
        values = measure(model.examine(**(self._batch or {})))
        if self._probe is not None:
            try:
                values.update(self._probe.measure(task, model))
            except ValueError as error:  # as of clips that cannot be read
                self._probe = None
                logger.warning("task.monitor.data: no more probes: %s", error)
        return values


def _prepare(batch: Dict[str, Any], task: "AudioTask", model: nn.Module) -> Dict[str, Any]:
    """Return clips as the model takes them: on its device, in its precision."""
    weight = next(each for each in model.parameters() if each.is_floating_point())
    moved = utils.apply_to_sample(lambda x: x.to(weight.device), {"net_input": batch})
    inputs: Dict[str, Tensor] = sound.compute_on_device(moved, task.front_end, model)["net_input"]
    return {name: x.to(weight.dtype) if x.is_floating_point() else x for name, x in inputs.items()}


def _unwrap(model: Any) -> Any:
    """Return the model within the wrappers of several processes."""
    while hasattr(model, "module"):
        model = model.module
    return model


def _is_first() -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0
