"""What the tasks share about ``task.fbank.device``: where spectrograms are computed.

``cpu``: by the data workers, which hand over normalised spectrograms.

``model``: where the model is, in the step itself; the workers only read, and hand over samples (see
``data.transport``), of clips in a cache their energies. It serves where a GPU waits for its
workers. On a GPU arithmetic is that of float64, so that inputs differ from those of ``cpu`` by what
float32 rounds there: less than 2e-4 of noise; up to 2e-3 in bins that hold next to nothing beside a
loud tone. Several windows of a clip that evaluation averages over (``length=crop``) come as
spectrograms from the workers all the same.
"""

from dataclasses import dataclass
from typing import Any, Dict

from torch import nn

from ..data.frontend import FrontEnd
from ..data.manifest import Manifest
from ..data.reader import AudioReader, ClipReader
from ..data.packed import SampleReader, compute_spectrograms
from ..options import option

DEVICES = ("cpu", "model")
# Options that need spectrograms in the workers -> the value that does not.
IN_WORKERS = {"noise": False, "images": None}


@dataclass
class FbankConfig:
    """How spectrograms are computed."""

    device: str = option(
        "cpu",
        "where: cpu (in the data workers) or model (where the model is; the workers only read)",
    )


def check_options(cfg: Any) -> None:
    """Refuse what cannot work, at start.

    Args:
        cfg: the task's options.

    Raises:
        ValueError: if the device is unknown, or another option needs spectrograms in the workers.
    """
    if cfg.fbank.device not in DEVICES:
        raise ValueError(
            f"task.fbank.device is {cfg.fbank.device!r}; choose one of {', '.join(DEVICES)}"
        )
    if cfg.fbank.device == "cpu":
        return
    refused = [name for name, value in IN_WORKERS.items() if getattr(cfg, name, value) != value]
    if cfg.length == "mask":
        refused.append("length")
    for name in refused:
        shown = "set" if name == "images" else str(getattr(cfg, name)).lower()
        raise ValueError(
            f"task.fbank.device is model, so that data workers have samples alone, but task.{name} "
            f"is {shown}, for which they need what the model takes; set task.fbank.device=cpu"
        )


def make_reader(
    cfg: Any,
    manifest: Manifest,
    front_end: FrontEnd,
    *,
    crop: str,
    roll_gain: bool = False,
    noise: bool = False,
    spread: int = 0,
) -> ClipReader:
    """Make the reader of a split of sound.

    Args:
        cfg: the task's options, checked.
        manifest: the split's clips.
        front_end: makes spectrograms.
        crop: this and the others are options of ``AudioReader``.
        roll_gain: see there.
        noise: see there; False where spectrograms are computed elsewhere.
        spread: see there.
    """
    if cfg.fbank.device == "cpu" or spread:
        return AudioReader(
            manifest, front_end, crop=crop, roll_gain=roll_gain, noise=noise, spread=spread
        )
    return SampleReader(manifest, front_end, crop=crop, roll_gain=roll_gain)


def complete(sample: Dict[str, Any], front_end: FrontEnd, model: nn.Module) -> Dict[str, Any]:
    """Compute the spectrograms of a batch of samples, in the precision of the model.

    Args:
        sample: a batch, on the model's device. It stays as it is: fairseq uses its first batch
            again and again.
        front_end: the task's.
        model: what the batch is for.

    Returns:
        The batch with spectrograms `[B, 1, T, 128]`; the same one if it had them.
    """
    inputs = sample.get("net_input", {})
    packed = [name for name, value in inputs.items() if isinstance(value, dict)]
    if not packed:
        return sample
    weight = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    computed = {
        name: compute_spectrograms(inputs[name], front_end).to(weight.dtype) for name in packed
    }
    return {**sample, "net_input": {**inputs, **computed}}
