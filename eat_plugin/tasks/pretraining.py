"""Task ``eat_pretraining``: unlabelled audio, cut into windows, with masks drawn by the workers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task
from omegaconf import II
from torch import nn

from ..data.dataset import ClipDataset
from ..data.features import MEL_BINS
from ..data.images import ImageReader
from ..data.manifest import Manifest
from ..data.readers import AudioReader, ClipReader
from ..masking import MaskSpec
from . import device_front_end, lengths
from .audio import AudioConfig, AudioTask
from .images import check_kind, check_model, make_front_end


@dataclass
class MaskConfig:
    """Masks that the data workers draw; all options follow the model's unless set."""

    patch_size: int = II("model.modalities.image.patch_size")
    mask_prob: float = II("model.modalities.image.mask_prob")
    mask_prob_adjust: float = II("model.modalities.image.mask_prob_adjust")
    mask_length: int = II("model.modalities.image.mask_length")
    inverse_mask: bool = II("model.modalities.image.inverse_mask")
    mask_dropout: float = II("model.modalities.image.mask_dropout")
    clone_batch: int = II("model.clone_batch")
    expand_adjacent: bool = field(
        default=False, metadata={"help": "published mask variant (only false)"}
    )
    non_overlapping: bool = field(
        default=False, metadata={"help": "published mask variant (only false)"}
    )


@dataclass
class PretrainingConfig(AudioConfig):
    """Options of ``eat_pretraining``."""

    precompute_mask_config: Optional[MaskConfig] = field(
        default=None, metadata={"help": "draw masks in the data workers; {} follows the model"}
    )
    flexible_mask: bool = field(
        default=False, metadata={"help": "keep blocks of 6x4, 5x5 or 8x3 patches"}
    )


@register_task("eat_pretraining", dataclass=PretrainingConfig)
class EatPretrainingTask(AudioTask):
    """Pre-training on the clips of ``{data}/{split}.tsv``.

    Args:
        cfg: the options.
        **kwargs: what fairseq passes on.

    Raises:
        ValueError: if an option cannot work, naming it, its value and the choices.
    """

    def __init__(self, cfg: PretrainingConfig, **kwargs: Any) -> None:
        super().__init__(cfg, **kwargs)
        self.front_end = lengths.make_front_end(cfg)
        self.images = make_front_end(cfg)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> nn.Module:
        """Build the model.

        Raises:
            ValueError: if it takes other input than the task makes.
        """
        model = super().build_model(cfg, from_checkpoint)
        check_model(model, self.images)
        lengths.check_patches(model, self.front_end)
        return model

    def load_dataset(
        self,
        split: str,
        combine: bool = False,
        task_cfg: Optional[FairseqDataclass] = None,
        **kwargs: Any,
    ) -> None:
        """Load a split.

        Args:
            split: name of the manifest, without ``.tsv``.
            combine: part of fairseq's interface; a split is one file.
            task_cfg: options to use instead of the task's own.
            **kwargs: part of fairseq's interface.
        """
        cfg = task_cfg or self.cfg
        mask_cfg = cfg.precompute_mask_config
        reader = self._make_reader(self.read_split(split), split, cfg)
        self.datasets[split] = ClipDataset(
            reader,
            masks=None if mask_cfg is None else self._mask_spec(mask_cfg),
            num_masks=1 if mask_cfg is None else mask_cfg.clone_batch,
            seed=cfg.seed,
            shuffle=split == "train",
            lengths=reader.measure_lengths() if isinstance(reader, AudioReader) else None,
        )

    def _make_reader(self, manifest: Manifest, split: str, cfg: Any) -> ClipReader:
        check_kind(manifest, Path(cfg.data) / f"{split}.tsv", self.images)
        if self.images is not None:
            return ImageReader(manifest, self.images, augment=split == "train")
        crop = lengths.choose_crop(cfg, split == "train")
        return device_front_end.make_reader(cfg, manifest, self.front_end, crop=crop)

    def _mask_spec(self, cfg: MaskConfig) -> MaskSpec:
        for name, accepted in (
            ("mask_dropout", 0), ("expand_adjacent", False), ("non_overlapping", False)
        ):
            if getattr(cfg, name) != accepted:
                raise ValueError(
                    f"task.precompute_mask_config.{name} is {getattr(cfg, name)}; this published "
                    f"option is not implemented, the only choice is {accepted}"
                )
        name, sides, patch = "target_length", (self.cfg.target_length, MEL_BINS), cfg.patch_size
        if self.images is not None:
            name, sides = "images.size", self.images.size
        if any(side % patch for side in sides):
            value = self.cfg.target_length if self.images is None else list(sides)
            raise ValueError(
                f"task.{name} is {value}; it must be divisible by patch_size={patch}"
            )
        grid = (sides[0] // patch, sides[1] // patch)
        return MaskSpec.from_options(cfg, grid, self.cfg.flexible_mask)
