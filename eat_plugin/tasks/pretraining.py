"""Task ``eat_pretraining``: windows of unlabelled clips, with masks drawn by the data workers."""

import logging
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import register_task
from torch import nn

from ..data.frames import MEL_BINS
from ..data.reader import ClipReader
from ..masking import MaskSpec
from ..options import follow, option, patch_sides, read_patch_size, require
from .base import AudioConfig, AudioTask
from .dataset import ClipDataset
from .loss_scale import fit_loss_scale
from .monitor import Monitor, MonitorConfig
from .option_checks import check_metric
from .recipe import PRETRAINING
from .run_config import RunConfig
from .start_from import check_first_stage

logger = logging.getLogger(__name__)

# In the task's state: how the decoder's convolutions are computed, what was measured.
CONVOLUTION, MONITOR = "convolution", "monitor"
METRICS = (
    "loss_regression", "loss_cls", "loss_recon", "loss_dino", "loss_retention", "pred_var",
    "target_var",
)  # fmt: skip


@dataclass
class MaskConfig:
    """Masks that the data workers draw; all options follow the model's unless set."""

    patch_size: Any = option(
        follow("model.modalities.image.patch_size"),
        "sides of a patch: frames and mel bins, or rows and columns",
        flag=read_patch_size,
    )
    mask_prob: float = option(
        follow("model.modalities.image.mask_prob"), "share of patches that is hidden"
    )
    mask_prob_adjust: float = option(
        follow("model.modalities.image.mask_prob_adjust"),
        "added to the share when blocks are counted",
    )
    mask_length: int = option(
        follow("model.modalities.image.mask_length"),
        "side of a block in patches; 1 hides single patches at random",
    )
    inverse_mask: bool = option(
        follow("model.modalities.image.inverse_mask"), "keep blocks rather than hide blocks"
    )
    mask_strategy: Optional[str] = option(
        follow("model.modalities.image.mask_strategy"),
        "name of a mask strategy; null: by the others",
    )
    mask_dropout: float = option(
        follow("model.modalities.image.mask_dropout"), "share of blocks drawn in excess (only 0)"
    )
    clone_batch: int = option(follow("model.clone_batch"), "masks of each clip in a batch")
    expand_adjacent: bool = option(False, "published mask variant (only false)")
    non_overlapping: bool = option(False, "published mask variant (only false)")


@dataclass
class PretrainingConfig(AudioConfig):
    """Options of ``eat_pretraining``."""

    precompute_mask_config: Optional[MaskConfig] = option(
        None, "draw masks in the data workers; {} follows the model"
    )
    flexible_mask: bool = option(False, "keep blocks of 6x4, 5x5 or 8x3 patches")
    roll: bool = option(False, "rotate each training waveform by any number of samples")
    monitor: MonitorConfig = field(
        default_factory=MonitorConfig, metadata={"help": "measurements during the run"}
    )


@register_task("eat_pretraining", dataclass=PretrainingConfig)
class EatPretrainingTask(AudioTask):
    """Pre-training on the clips of ``{data}/{split}.tsv``."""

    _decoder: Any = None
    _monitor: Optional[Monitor] = None
    recipe = PRETRAINING

    def check_own_options(self, run: RunConfig) -> None:
        """Refuse options that do not suit pre-training.

        Raises:
            ValueError: a metric that is not computed, a checkpoint of another model to start from,
                batches of one clip that are to be mixed, ``store_ema``.
        """
        check_metric(run, "eat_pretraining", METRICS)
        if self.resumed is None:
            check_first_stage(run)
        _check_mixtures(run)
        _check_flexible(self.cfg)
        rule = "the teacher is an average already; only fine-tuning has fairseq's"
        require(not run.get("ema.store_ema"), "ema.store_ema", True, rule)
        fit_loss_scale(run)
        before = None if self.resumed is None else self.resumed.state.get(MONITOR)
        self._monitor = Monitor(self.cfg.monitor, before)
        _warn_of_uniform_targets(run)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> nn.Module:
        """Build the model; a resumed run computes its convolutions as before, so that it is exact.

        Raises:
            ValueError: see ``AudioTask.build_model``.
        """
        model: Any = super().build_model(cfg, from_checkpoint)
        # Without it the checkpoint does not match its configuration, which is found out later.
        self._decoder = getattr(getattr(model, "patch_encoder", None), "decoder", None)
        if not hasattr(self._decoder, "way"):  # it has no convolutions
            self._decoder = None
        way = None if self.resumed is None else self.resumed.state.get(CONVOLUTION)
        if way is not None and self._decoder is not None:
            self._decoder.continue_way(way)
        return model

    def state_dict(self) -> Dict[str, Any]:
        """Return the state that checkpoints keep."""
        way = {} if self._decoder is None else {CONVOLUTION: self._decoder.way}
        monitor = {} if self._monitor is None else {MONITOR: self._monitor.state()}
        return {**super().state_dict(), **way, **monitor}

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        """Take the step of an update; then measure the model if that is due."""
        super().optimizer_step(optimizer, model, update_num)
        if self._monitor is not None:
            self._monitor.look(self, model, update_num + 1)

    def reduce_metrics(
        self, logging_outputs: List[Dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Reduce the criterion's log; log what was measured last."""
        super().reduce_metrics(logging_outputs, criterion)
        if criterion.training and self._monitor is not None:
            self._monitor.log()

    def make_dataset(self, reader: ClipReader, cfg: PretrainingConfig, split: str) -> ClipDataset:
        """Make the data set of a split, with masks."""
        mask_cfg = cfg.precompute_mask_config
        return ClipDataset(
            reader,
            masks=None if mask_cfg is None else self._mask_spec(mask_cfg),
            num_masks=1 if mask_cfg is None else mask_cfg.clone_batch,
            seed=cfg.seed,
            shuffle=split == self.train_split,
        )

    def _mask_spec(self, cfg: MaskConfig) -> MaskSpec:
        for name, accepted in (
            ("mask_dropout", 0),
            ("expand_adjacent", False),
            ("non_overlapping", False),
        ):
            if getattr(cfg, name) != accepted:
                raise ValueError(
                    f"task.precompute_mask_config.{name} is {getattr(cfg, name)}; this published "
                    f"option is not implemented, the only choice is {accepted}"
                )
        name, sides = "target_length", (self.cfg.target_length, MEL_BINS)
        patch = patch_sides(cfg.patch_size, "task.precompute_mask_config.patch_size")
        if self.images is not None:
            name, sides = "images.size", self.images.size
        if any(side % of_patch for side, of_patch in zip(sides, patch)):
            value = self.cfg.target_length if self.images is None else list(sides)
            raise ValueError(
                f"task.{name} is {value}; it must be divisible by patch_size={cfg.patch_size}"
            )
        grid = (sides[0] // patch[0], sides[1] // patch[1])
        return MaskSpec.from_options(cfg, grid, self.cfg.flexible_mask)


def _check_flexible(cfg: PretrainingConfig) -> None:
    """Refuse ``flexible_mask`` where another option decides the masks."""
    masks = cfg.precompute_mask_config
    if not cfg.flexible_mask:
        return
    rule = "it needs task.precompute_mask_config={}, a null mask_strategy and a mask_length over 1"
    fits = masks is not None and masks.mask_strategy is None and masks.mask_length != 1
    require(fits, "task.flexible_mask", True, rule)


def _check_mixtures(run: RunConfig) -> None:
    """Refuse batches of one clip: it has no other to be mixed with."""
    weight = run.get("model.retention_loss")
    if not weight:
        return
    rule = f"model.retention_loss={weight} mixes the clips of a batch with each other: set "
    size, frames = run.get("dataset.batch_size"), run.get("dataset.max_tokens")
    require(size != 1, "dataset.batch_size", size, f"{rule}2 or more")
    if frames is None or run.get("task.length") == "mask":
        return
    two = 2 * (run.get("task.target_length") or 0)
    require(frames >= two, "dataset.max_tokens", frames, f"{rule}{two} (two windows) or more")


def _warn_of_uniform_targets(run: RunConfig) -> None:
    """Say that the published DINO learns little from targets after instance norm."""
    is_on = run.get("model.utterance_level") and (run.get("model.cls_loss") or 0) > 0
    is_uniform = run.get("model.cls_target") in ("targets", "last_targets")
    if is_on and is_uniform and run.get("model.instance_norm_target_layer"):
        logger.warning(
            "model.utterance_level=true: after instance norm the targets of all clips are nearly "
            "the same, and this loss stays where it begins; model.utterance_level=false "
            "model.cls_loss=0 model.dino_loss=1 model.cls_target=layers learns"
        )
