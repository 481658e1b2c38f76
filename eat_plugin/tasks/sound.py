"""From the options of a task to its front end and readers of sound.

``task.length`` says what happens to clips shorter or longer than ``task.target_length``:

``pad``, as published: cut and padded.

``mask``: each clip keeps its own length, up to ``target_length``. Losses, features and logits of a
clip do not depend on padding or on other clips.

- A clip of n frames has ceil(n / patch) time steps; the last one is filled with ``pad_value``.
- Clips of similar length are batched; ``dataset.max_tokens`` limits their frames with padding,
  ``dataset.batch_size`` their number. Lengths are estimated from the manifest and the lowest
  sampling rate of a few clips.
- A mask hides its share of the clip's own patches. Loss and gradient are divided by the number of
  hidden patches of all clips. The utterance loss of a clip is weighted by its number of hidden
  patches over the mean of the batch, so that its ratio to the clip's patch loss does not depend on
  other clips; for clips of one length this is the published loss.
- The noise at hidden patches is drawn per clip from (seed, epoch, clip).
- A mixup of two clips is as long as the longer one; where only one has sound, it counts in full.
  SpecAugment masks lie within the clip, their width relative to its length.
- A replacement of a damaged clip is cut to that clip's length.

``crop``: padded; a random window of a longer clip in training; evaluation averages the
probabilities of ``eval_windows`` windows, spread evenly from the start to the end of a clip.

``task.fbank.device`` says where spectrograms are computed: ``cpu``, by the data workers; or
``model``, on the model's device in each step, while the workers only read (see ``data.packed``),
for a GPU that waits for its workers. A GPU computes in float64: inputs differ from those of ``cpu``
by the rounding of float32, less than 2e-4 for noise, up to 2e-3 in bins with almost no energy
next to a loud tone. Several windows per clip are always computed by the workers.
"""

import os
from dataclasses import dataclass
from typing import Any, Dict, Optional

from torch import nn

from ..data.channels import MEAN
from ..data.frames import KALDI
from ..data.frontend import FrontEnd
from ..data.manifest import Manifest
from ..data.reader import ClipReader, SpectrogramReader, WindowsReader
from ..inputs import sound
from ..options import option
from .resumed import ResumedRun

DEVICES = ("cpu", "model")
# Options that a resumed run keeps -> their value in earlier versions.
HEARD = {"frontend": KALDI, "channels": MEAN, "pad_value": "zero", "length": "pad"}
KEPT = ("frontend",)  # with checkpoint.reset_optimizer too: the weights know no other values
# Options that need spectrograms in the data workers -> their value that does not.
NEEDS_WORKERS = {"noise": False, "images": None}


@dataclass
class FbankConfig:
    """Computation of spectrograms."""

    device: str = option(
        "cpu", "where: cpu (the data workers) or model (the model's device; the workers only read)"
    )


def make_front_end(cfg: Any, resumed: Optional[ResumedRun] = None) -> FrontEnd:
    """Make the front end of a task, after checks that concern training alone.

    Args:
        cfg: the task's options.
        resumed: the checkpoint being resumed, or None.

    Raises:
        ValueError: an option is invalid, or a resumed run would hear other channels or
            spectrograms; the message names it, its value and the choices.
    """
    _check_device(cfg)
    _check_resumed(cfg, resumed)
    if getattr(cfg, "eval_windows", 1) < 1:
        raise ValueError(f"task.eval_windows is {cfg.eval_windows}; it must be 1 or more")
    return sound.make_front_end(cfg)


def _check_resumed(cfg: Any, resumed: Optional[ResumedRun]) -> None:
    if resumed is None:
        return
    for name, default in HEARD.items():
        if not resumed.optimizer and name not in KEPT:
            continue
        before, now = resumed.options.get(name, default), getattr(cfg, name)
        if before != now:
            raise ValueError(
                f"{os.path.abspath(resumed.path)} has task.{name}={before}, this run {now}: choose "
                "another run folder (hydra.run.dir) or the same setting"
            )


def _check_device(cfg: Any) -> None:
    if cfg.fbank.device not in DEVICES:
        raise ValueError(
            f"task.fbank.device is {cfg.fbank.device!r}; choose one of {', '.join(DEVICES)}"
        )
    if cfg.fbank.device == "cpu":
        return
    refused = [name for name, value in NEEDS_WORKERS.items() if getattr(cfg, name, value) != value]
    if cfg.length == "mask":
        refused.append("length")
    for name in refused:
        shown = "set" if name == "images" else str(getattr(cfg, name)).lower()
        raise ValueError(
            f"task.{name} is {shown}, which needs spectrograms in the data workers, but "
            "task.fbank.device is model; set task.fbank.device=cpu"
        )


def make_reader(cfg: Any, manifest: Manifest, front_end: FrontEnd, train: bool) -> ClipReader:
    """Make the reader of a split of sound.

    Args:
        cfg: the task's options; pre-training has neither augmentations nor evaluation windows.
        manifest: the clips.
        front_end: from ``make_front_end``.
        train: the split is augmented.

    Raises:
        ValueError: an option is unknown, or does not suit the clips.
    """
    windows = getattr(cfg, "eval_windows", 0)
    if windows and cfg.length == "crop" and not train:
        return WindowsReader(manifest, front_end, windows)
    # The first is of fine-tuning, the second of pre-training.
    roll_gain, roll = (train and getattr(cfg, name, False) for name in ("roll_gain", "roll"))
    crop = choose_crop(cfg, train)
    if cfg.fbank.device == "model":
        from ..data.packed import PackedReader

        return PackedReader(manifest, front_end, crop=crop, roll_gain=roll_gain, roll=roll)
    noise = train and getattr(cfg, "noise", False)
    return SpectrogramReader(
        manifest, front_end, crop=crop, roll_gain=roll_gain, roll=roll, noise=noise
    )


def choose_crop(cfg: Any, train: bool) -> str:
    """Return where the window of a longer clip is: ``start`` or ``random``."""
    if cfg.length != "pad":
        return "random" if train else "start"
    # Pre-training validates on windows like those that it trains on.
    return "start" if hasattr(cfg, "eval_windows") and not train else str(cfg.crop)


def compute_on_device(
    sample: Dict[str, Any], front_end: FrontEnd, model: nn.Module
) -> Dict[str, Any]:
    """Compute the spectrograms of a batch of samples, in the precision of the model.

    Args:
        sample: a batch on the model's device; it is not changed, since fairseq keeps its first one.
        front_end: the task's.
        model: the model.

    Returns:
        The batch with spectrograms `[B, 1, T, 128]`; ``sample`` itself if it has them.
    """
    inputs = sample.get("net_input", {})
    packed = [name for name, value in inputs.items() if isinstance(value, dict)]
    if not packed:
        return sample
    from ..data.packed import compute_spectrograms

    weight = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    computed = {
        name: compute_spectrograms(inputs[name], front_end).to(weight.dtype) for name in packed
    }
    return {**sample, "net_input": {**inputs, **computed}}
