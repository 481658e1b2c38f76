"""Published task names and flags, translated into ours. No other file knows these flags."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task
from omegaconf import II, MISSING

from ..options import option
from .classification import ClassificationConfig, EatClassificationTask
from .normalisation import AUDIOSET
from .pretraining import EatPretrainingTask, MaskConfig, PretrainingConfig

# Published flag -> mean and standard deviation of log-mel values.
STATISTICS = {"esc50_eval": (-6.627, 5.359), "spcv2_eval": (-6.846, 5.565)}

# Published options without an implementation: field -> the only accepted value.
UNIMPLEMENTED = {
    "multi_data": None,
    "local_cache_path": None,
    "dataset_type": "imagefolder",
    "subsample": 1.0,
    "audio_mae": True,
    "is_finetuning": False,
}
# Options of fine-tuning that pre-training refuses.
FINETUNING_ONLY = {
    "spcv1_finetune": False,
    "noise": False,
    "roll_aug": False,
    "AS2M_finetune": False,
}


@dataclass
class MaeImagePretrainingConfig(FairseqDataclass):
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
    precompute_mask_config: Optional[MaskConfig] = option(None, "draw masks in the data workers")
    subsample: float = option(1.0, "share of the data that is used (only 1)")
    seed: int = II("common.seed")
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


def translate_pretraining(
    cfg: MaeImagePretrainingConfig, from_checkpoint: bool = False
) -> PretrainingConfig:
    """Translate published options of pre-training into ours.

    Args:
        cfg: the published options.
        from_checkpoint: a checkpoint is loaded; the storage of its data does not matter.

    Raises:
        ValueError: an option without an implementation is set.
    """
    if not from_checkpoint:
        _refuse_unimplemented(cfg, {**UNIMPLEMENTED, **FINETUNING_ONLY}, "pre-training")
    if cfg.key != "source":
        raise ValueError(f"task.key is {cfg.key!r}; pre-training takes its input as 'source'")
    mean, std = _statistics(cfg)
    return PretrainingConfig(
        data=cfg.data,
        target_length=cfg.target_length,
        norm_mean=mean,
        norm_std=std,
        precompute_mask_config=cfg.precompute_mask_config,
        flexible_mask=cfg.flexible_mask,
        rebuild_batches=cfg.rebuild_batches,
        seed=cfg.seed,
    )


def _refuse_unimplemented(cfg: Any, only: Dict[str, Any], what: str) -> None:
    for name, accepted in only.items():
        value = getattr(cfg, name)
        if value != accepted:
            shown = "null" if accepted is None else accepted
            raise ValueError(
                f"task.{name} is {value}; this published option is not implemented in {what}, "
                f"the only choice is {shown}"
            )


def _statistics(cfg: Any) -> Tuple[float, float]:
    """Return the mean and standard deviation for the flags."""
    for flag, statistics in STATISTICS.items():
        if getattr(cfg, flag):
            return statistics
    return AUDIOSET


@register_task("mae_image_pretraining", dataclass=MaeImagePretrainingConfig)
class MaeImagePretrainingTask(EatPretrainingTask):
    """Pre-training by its published name and with its published options."""

    def __init__(
        self, cfg: MaeImagePretrainingConfig, from_checkpoint: bool = False, **kwargs: Any
    ) -> None:
        translated = translate_pretraining(cfg, from_checkpoint)
        super().__init__(translated, from_checkpoint=from_checkpoint, given=cfg, **kwargs)


@dataclass
class MaeImageClassificationConfig(MaeImagePretrainingConfig):
    """The published options of fine-tuning."""

    label_descriptors: str = option("label_descriptors.csv", "file of the classes, in data")
    labels: str = option("lbl", "ending of the label files")


def translate_classification(
    cfg: MaeImageClassificationConfig, from_checkpoint: bool = False
) -> ClassificationConfig:
    """Translate published options of fine-tuning into ours; see ``translate_pretraining``."""
    if not from_checkpoint:
        _refuse_unimplemented(cfg, UNIMPLEMENTED, "fine-tuning")
    if cfg.key != "imgs":
        raise ValueError(f"task.key is {cfg.key!r}; fine-tuning takes its input as 'imgs'")
    mean, std = _statistics(cfg)
    weighted = cfg.AS2M_finetune or cfg.spcv1_finetune
    return ClassificationConfig(
        data=cfg.data,
        single_label=cfg.esc50_eval or cfg.spcv2_eval,
        target_length=cfg.target_length,
        norm_mean=mean,
        norm_std=std,
        roll_gain=cfg.roll_aug,
        noise=cfg.noise,
        weights_file=cfg.weights_file if weighted else None,
        num_samples=cfg.num_samples,
        label_descriptors=cfg.label_descriptors,
        labels=cfg.labels,
        rebuild_batches=cfg.rebuild_batches,
        seed=cfg.seed,
    )


@register_task("mae_image_classification", dataclass=MaeImageClassificationConfig)
class MaeImageClassificationTask(EatClassificationTask):
    """Fine-tuning by its published name and with its published options."""

    def __init__(
        self, cfg: MaeImageClassificationConfig, from_checkpoint: bool = False, **kwargs: Any
    ) -> None:
        translated = translate_classification(cfg, from_checkpoint)
        super().__init__(translated, from_checkpoint=from_checkpoint, given=cfg, **kwargs)
