"""Published options of tasks, and the input that they mean."""

from dataclasses import dataclass
from typing import Any, List, Optional

from ..options import MISSING, follow, option
from .sound import AUDIOSET, Pair

# Published flag -> mean and standard deviation of log-mel values.
STATISTICS = {"esc50_eval": (-6.627, 5.359), "spcv2_eval": (-6.846, 5.565)}


@dataclass
class PublishedPretraining:
    """The published options of pre-training."""

    data: str = option(MISSING, "folder of the manifests")
    multi_data: Optional[List[str]] = option(None, "several folders (only null)")
    input_size: int = option(224, "side of an image (unused for audio)")
    local_cache_path: Optional[str] = option(None, "cache of the published code (only null)")
    key: str = option("imgs", "name of the model's input")
    beit_transforms: bool = option(False, "image transform (unused for audio)")
    target_transform: bool = option(False, "image transform (unused for audio)")
    no_transform: bool = option(False, "image transform (unused for audio)")
    rebuild_batches: bool = option(True, "form new batches in each epoch")
    precompute_mask_config: Any = option(None, "draw masks in the data workers")
    subsample: float = option(1.0, "share of the data that is used (only 1)")
    seed: int = follow("common.seed")
    dataset_type: str = option("imagefolder", "layout of images (only imagefolder)")
    audio_mae: bool = option(False, "the input is audio (only true)")
    h5_format: bool = option(False, "clips are in HDF5 files; the entries of a manifest say so")
    downsr_16hz: bool = option(False, "resample to 16 kHz; ours always does")
    target_length: int = option(1024, "window of a clip, in frames of 10 ms")
    flexible_mask: bool = option(False, "keep blocks of 6x4, 5x5 or 8x3 patches")
    esc50_eval: bool = option(False, "statistics and labels of ESC-50")
    spcv2_eval: bool = option(False, "statistics and labels of Speech Commands v2")
    AS2M_finetune: bool = option(False, "weighted sampling of AudioSet (fine-tuning)")
    spcv1_finetune: bool = option(False, "weighted sampling of Speech Commands v1 (fine-tuning)")
    roll_aug: bool = option(False, "roll the waveform (fine-tuning)")
    noise: bool = option(False, "add noise (fine-tuning)")
    weights_file: str = option("", "weights of a weighted sampler (fine-tuning)")
    num_samples: int = option(200000, "clips of an epoch of a weighted sampler (fine-tuning)")
    is_finetuning: bool = option(False, "deprecated by publication (only false)")


@dataclass
class PublishedLabels:
    """The published options of fine-tuning that pre-training does not have."""

    label_descriptors: str = option("label_descriptors.csv", "file of the classes, in data")
    labels: str = option("lbl", "ending of the label files")


@dataclass
class PublishedClassification(PublishedPretraining, PublishedLabels):
    """The published options of fine-tuning."""


def check_key(cfg: PublishedPretraining, what: str, expected: str) -> None:
    """Raise ValueError if the input of a model has another name than ``expected``."""
    if cfg.key != expected:
        raise ValueError(f"task.key is {cfg.key!r}; {what} takes its input as {expected!r}")


def published_norm(cfg: PublishedPretraining) -> Pair:
    """Return the mean and standard deviation for the flags."""
    for flag, statistics in STATISTICS.items():
        if getattr(cfg, flag):
            return statistics
    return AUDIOSET
