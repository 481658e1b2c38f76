"""Options that are chosen at start, from what is known then.

A recipe asks for a choice by -1, or null for an option that is no number. The choice depends on the
length of the run, the clips, the classes and the checkpoint to start from; not on the machine, so
that a run can be repeated elsewhere. It is logged as overrides, and kept in checkpoints: a resumed
run keeps it.

The rules themselves are in ``recipe``.
"""

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from omegaconf import DictConfig, ListConfig, open_dict

from ..checkpoint_files import read_data
from ..data.entries import Storage
from ..data.frames import KALDI
from ..data.frontend import find_spectra
from ..data.lengths import sample_lengths
from ..data.manifest import Manifest
from ..options import clips_of_batch, patch_sides
from .data_checks import check_manifest, read_split
from .resumed import UNREADABLE, ResumedRun
from .run_config import RunConfig

logger = logging.getLogger(__name__)

OUTLIER = 1.5  # times the 95 % quantile


@dataclass
class Known:
    """What is known of a run at its start.

    Attributes:
        run: the configuration; choices made before are in it.
    """

    run: RunConfig

    @property
    def updates(self) -> int:
        """Length of the run."""
        return int(self.run.get("optimization.max_update") or 0)

    @cached_property
    def manifest(self) -> Manifest:
        """The training clips.

        Raises:
            ValueError: there is no manifest.
        """
        check_manifest(self.run)
        return read_split(self._path)

    @cached_property
    def samples(self) -> np.ndarray:
        """Lengths of some training clips, in samples at 16 kHz, int64 [n].

        Raises:
            ValueError: there is no manifest, or no clip can be read.
        """
        return sample_lengths(self.manifest)

    @property
    def front_end(self) -> str:
        """The value of ``task.frontend``: as given, of the checkpoint to start from, or kaldi."""
        return str(self.run.get("task.frontend") or front_end_of(self.start))

    @property
    def is_cached(self) -> bool:
        """Whether the training clips are in a feature cache, without waveforms.

        Raises:
            ValueError: there is no manifest.
        """
        return self.manifest.entry(0).storage is Storage.CACHE

    @cached_property
    def clips(self) -> int:
        """Clips of an epoch.

        Raises:
            ValueError: there is no manifest.
        """
        if self.run.get("task.weights_file"):
            return int(self.run.get("task.num_samples"))
        check_manifest(self.run)
        with self._path.open("rb") as lines:
            return max(1, sum(1 for _ in lines) - 1)

    @property
    def _path(self) -> Path:
        return Path(self.run.get("task.data"), f"{self.run.get('dataset.train_subset')}.tsv")

    @property
    def typical_samples(self) -> int:
        """The largest of them; if that is an outlier, one that 95 % do not exceed."""
        most = int(np.quantile(self.samples, 0.95, method="higher"))
        longest = int(self.samples.max())
        return longest if longest <= OUTLIER * most else most

    @property
    def typical_frames(self) -> int:
        """The same in frames of the front end."""
        return max(1, find_spectra(self.front_end).count_frames(self.typical_samples))

    @property
    def updates_per_epoch(self) -> int:
        """Updates in which each clip is used once."""
        processes = self.run.get("distributed_training.distributed_world_size") or 1
        steps = (self.run.get("optimization.update_freq") or [1])[0]
        most = self.run.get("dataset.max_tokens")
        frames = self._mean_frames if most else 1
        size = clips_of_batch(self.run.get("dataset.batch_size"), most, frames)
        return max(1, math.ceil(self.clips / (size * processes * steps)))

    @property
    def _mean_frames(self) -> float:
        """Frames of a clip in a batch, on average; rows of an image."""
        images = self.run.get("task.images")
        window = int(self.run.get("task.target_length") if images is None else images.size[0])
        if self.run.get("task.length") != "mask":
            return window
        frames = find_spectra(self.front_end).count_frames(self.samples)
        whole = -(-frames // self.patch[0]) * self.patch[0]
        return float(np.minimum(whole, window).mean())

    @cached_property
    def start(self) -> Optional[Mapping[str, Any]]:
        """Configuration of the run that made the encoder; None for random weights.

        Of a classifier, ``model`` is that of its encoder, and ``task`` its own: the inputs that the
        weights were trained on last.
        """
        if self._checkpoint is None:
            return None
        encoder = self._checkpoint["model"].get("pretrained_model_args")
        return {**(encoder or self._checkpoint), "task": self._checkpoint.get("task")}

    @property
    def classifier(self) -> Optional[Mapping[str, Any]]:
        """Options of the classifier of which all weights are taken; None for another start."""
        if self._checkpoint is None or not self.run.get("checkpoint.finetune_from_model"):
            return None
        options = self._checkpoint["model"]
        return dict(options) if options.get("pretrained_model_args") else None

    @cached_property
    def _checkpoint(self) -> Optional[Mapping[str, Any]]:
        """Configuration of the checkpoint to start from."""
        path = self.run.get("model.model_path") or self.run.get("checkpoint.finetune_from_model")
        if not path:
            return None
        try:
            cfg = dict(read_data(path, check=False, only_data=True)["cfg"])
            return {**cfg, "model": dict(cfg["model"])}
        except UNREADABLE:
            return None  # the model says why

    def encoder(self, option: str) -> Any:
        """Return an option of the encoder, from its checkpoint or from the configuration."""
        if self.start is None:
            return self.run.get(f"model.{option}")
        return _find(self.start, f"model.{option}")

    @property
    def patch(self) -> Tuple[int, int]:
        """Frames and mel bins of a patch."""
        return patch_sides(self.encoder("modalities.image.patch_size"))


def front_end_of(cfg: Optional[Mapping[str, Any]]) -> str:
    """Return the front end of a configuration; earlier versions and published code have one."""
    return str(((cfg or {}).get("task") or {}).get("frontend") or KALDI)


class Rule(NamedTuple):
    """How an option is chosen.

    Attributes:
        choose: from what is known.
        copies: options that follow it, if they ask for a choice too.
        asks: the value that asks for a choice.
        shapes: it decides the shape of weights or the meaning of inputs: a run that takes weights
            from a checkpoint of its kind has that checkpoint's choice.
    """

    choose: Callable[[Known], Any]
    copies: Tuple[str, ...] = ()
    asks: Any = -1
    shapes: bool = False


def choose_options(
    run: RunConfig, rules: Mapping[str, Rule], resumed: Optional[ResumedRun], task: Any = None
) -> None:
    """Make the choices that a configuration asks for, in the order of the rules, and log them.

    Args:
        run: the configuration, in which choices are set.
        rules: of the options.
        resumed: the checkpoint being resumed, or None.
        task: a copy of the task's options, in which choices are set too.

    Raises:
        ValueError: the data that a choice depends on cannot be read.
    """
    known, chosen = Known(run), {}
    for name, rule in rules.items():
        if not _asks(run, name, rule):
            continue
        value = None
        if resumed is not None and (rule.shapes or resumed.optimizer):
            value = _find(resumed.cfg, name)
        if value is None or _is(value, rule.asks):
            value = rule.choose(known)
        chosen[name] = value
        for option in (name, *(copy for copy in rule.copies if _asks(run, copy, rule))):
            section, _, last = option.rpartition(".")
            _set(run.get(section), last, value)
            if task is not None and section == "task":
                _set(task, last, value)
            elif task is not None and section.startswith("task."):
                _set(getattr(task, section.partition(".")[2]), last, value)
    if chosen:
        run.choices = [f"{name}={_show(value)}" for name, value in chosen.items()]
        source = "chosen for this run" if resumed is None else f"chosen earlier ({resumed.path})"
        logger.info("%s; set an option to fix it: %s", source, " ".join(run.choices))


def _asks(run: RunConfig, name: str, rule: Rule) -> bool:
    section, _, last = name.rpartition(".")
    node = run.get(section)
    return isinstance(node, DictConfig) and last in node and _is(node[last], rule.asks)


def _is(value: Any, asks: Any) -> bool:
    values = list(value) if isinstance(value, (list, ListConfig)) else [value]
    return values == [asks]


def _find(cfg: Any, name: str) -> Any:
    """Return an option of a configuration; None if it has none of this name."""
    for part in name.split("."):
        cfg = cfg.get(part) if isinstance(cfg, (Mapping, DictConfig)) else None
    return cfg


def _set(section: Any, name: str, value: Any) -> None:
    if isinstance(section, DictConfig):
        with open_dict(section):
            section[name] = value
    elif section is not None:
        setattr(section, name, value)


def _show(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace(" ", "")
