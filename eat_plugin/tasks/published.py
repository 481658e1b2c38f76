"""Published task names and flags, translated into ours.

Only this file and ``inputs/published.py`` know these flags.
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task

from ..inputs.published import PublishedLabels, PublishedPretraining, check_key, published_norm
from ..options import option
from .classification import ClassificationConfig, EatClassificationTask
from .pretraining import EatPretrainingTask, MaskConfig, PretrainingConfig

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
class MaeImagePretrainingConfig(PublishedPretraining, FairseqDataclass):
    """The published options of pre-training."""

    precompute_mask_config: Optional[MaskConfig] = option(None, "draw masks in the data workers")


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
    check_key(cfg, "pre-training", "source")
    mean, std = published_norm(cfg)
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


@register_task("mae_image_pretraining", dataclass=MaeImagePretrainingConfig)
class MaeImagePretrainingTask(EatPretrainingTask):
    """Pre-training by its published name and with its published options."""

    def __init__(
        self, cfg: MaeImagePretrainingConfig, from_checkpoint: bool = False, **kwargs: Any
    ) -> None:
        translated = translate_pretraining(cfg, from_checkpoint)
        super().__init__(translated, from_checkpoint=from_checkpoint, given=cfg, **kwargs)


@dataclass
class MaeImageClassificationConfig(MaeImagePretrainingConfig, PublishedLabels):
    """The published options of fine-tuning."""


def translate_classification(
    cfg: MaeImageClassificationConfig, from_checkpoint: bool = False
) -> ClassificationConfig:
    """Translate published options of fine-tuning into ours; see ``translate_pretraining``."""
    if not from_checkpoint:
        _refuse_unimplemented(cfg, UNIMPLEMENTED, "fine-tuning")
    check_key(cfg, "fine-tuning", "imgs")
    mean, std = published_norm(cfg)
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
