"""Options that all tasks share."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II, MISSING

from ..flags import NUMBERS
from ..options import option, read_patch_size
from . import normalisation, sound
from .image_options import ImagesConfig


@dataclass
class AudioConfig(FairseqDataclass):
    """Options that all tasks share."""

    data: str = option(MISSING, "folder with train.tsv and the other manifests")
    target_length: int = option(1024, "window of a clip, in frames of 10 ms")
    norm: str = option("whole", normalisation.NORM_HELP)
    norm_mean: Any = option(None, normalisation.HELP.format("mean"), flag=NUMBERS)
    norm_std: Any = option(None, normalisation.HELP.format("standard deviation"), flag=NUMBERS)
    channels: str = option("mean", sound.CHANNELS_HELP)
    pad_value: str = option("zero", "padding of short clips: zero (as published) or silence")
    crop: str = option("start", "window of a longer training clip: start or random")
    length: str = option("pad", sound.LENGTH_HELP)
    patch_size: Any = option(
        II("model.modalities.image.patch_size"), "length=mask: the sides of the model's patches",
        flag=read_patch_size,
    )  # fmt: skip
    fbank: sound.FbankConfig = field(
        default_factory=sound.FbankConfig, metadata={"help": "computation of spectrograms"}
    )
    images: Optional[ImagesConfig] = option(None, "the data are images; crop, size and so on")
    rebuild_batches: bool = option(True, "form new batches in each epoch")
    max_skipped_share: float = option(0.01, "largest share of an epoch's clips that may fail")
    wait_for_data: float = option(
        0.0, "minutes to wait if no clip can be read, until the run saves and ends"
    )
    seed: int = II("common.seed")
