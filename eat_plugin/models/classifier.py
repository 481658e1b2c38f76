"""The classifier: encoder, pooling, LayerNorm and a linear layer (EAT, section 3.4)."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import asymmetric_loss
from ..modules.mixing import mask_spectrogram, mix_batch, smooth_targets
from ..modules.patches import column_padding, own_columns
from ..options import explain_path
from ..outputs import ClassificationOutput
from ..sections import is_missing, plain
from .classifier_config import (
    ASYMMETRIC,
    REPLACED_OPTIONS,
    EatClassifierConfig,
    Objective,
    validate_classifier,
)
from .config import EatConfig
from .encoder import EatEncoder
from .frame_labels import frame_losses, label_steps
from .interop import PretrainedEncoder, encoder_config, load_encoder, read_encoder
from .param_groups import set_finetuning_groups, set_param_groups
from .pooling import PredictionMode, mean_windows, pool, pooled_width

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)


class EatClassifier(nn.Module):
    """An encoder with a linear classifier on its pooled output.

    Raises:
        ValueError: if an option is invalid, or the checkpoint cannot be read or does not fit.

    Attributes:
        by_frame: it classifies each time step of a clip, not the clip.
        pretrained_model_args: options of the encoder; a checkpoint needs them.
    """

    def __init__(self, cfg: EatClassifierConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.objective = self.choose_objective(cfg)
        self.frozen = self.is_frozen(cfg)
        self.by_frame = cfg.prediction_mode == PredictionMode.FRAMES
        validate_classifier(cfg, self.objective)
        self.model = self._build_encoder(cfg)
        assert cfg.num_classes is not None
        width = pooled_width(self.model.cfg.embed_dim, cfg.prediction_mode, cfg.segments)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6) if cfg.use_fc_norm else None
        self.head = nn.Linear(width, cfg.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if self.frozen:
            self.model.requires_grad_(False)
        set_param_groups(self)
        set_finetuning_groups(self.model, cfg)

    @staticmethod
    def choose_objective(cfg: EatClassifierConfig) -> Objective:
        """Return the objective that the options ask for."""
        mixes = max(cfg.mixup, cfg.cutmix) > 0
        smoothing = cfg.label_smoothing if cfg.smooth_mixed or not mixes else 0.0
        return Objective(cfg.loss, cfg.single_label, smoothing)

    @staticmethod
    def is_frozen(cfg: EatClassifierConfig) -> bool:
        """Whether the encoder is not trained."""
        return cfg.linear_probe

    def _build_encoder(self, cfg: EatClassifierConfig) -> EatEncoder:
        pretrained = None
        if cfg.pretrained_model_args:
            args = plain(cfg.pretrained_model_args)
            options, task = args["model"], args.get("task")
        elif is_missing(cfg, "model_path"):
            raise ValueError(
                "model.model_path is not set; give a checkpoint, or null to train from random "
                "weights"
            )
        elif cfg.model_path:
            pretrained = _read_pretrained(cfg.model_path)
            options, task = pretrained.model, pretrained.task
        else:
            logger.info("the encoder starts from random weights")
            names = {field.name for field in fields(EatConfig)} - {"norm_eps"}
            options = {name: plain(getattr(cfg, name)) for name in names}
            task = None
        changes: dict[str, Any] = {name: getattr(cfg, name) for name in REPLACED_OPTIONS}
        if cfg.norm_eps is not None:
            changes["norm_eps"] = cfg.norm_eps
        image: dict[str, Any] = {"target_length": cfg.target_length}
        if cfg.image_size is not None:
            image["image_size"] = list(cfg.image_size)
        changes.update(start_drop_path_rate=0.0, end_drop_path_rate=cfg.drop_path_rate)
        encoder_cfg = encoder_config(options, modalities={"image": image}, **changes)
        encoder = EatEncoder(encoder_cfg)
        if cfg.prediction_mode == PredictionMode.CLS_TOKEN and encoder.num_extra_tokens < 1:
            raise ValueError(
                "model.prediction_mode is CLS_TOKEN, but the encoder has no extra token; choose "
                "MEAN_POOLING or another one"
            )
        if pretrained is not None and not cfg.no_pretrained_weights:
            load_encoder(encoder, pretrained)
            logger.info("the encoder comes from %s", pretrained.path)
        self.pretrained_model_args = {"model": plain(encoder_cfg), "task": task}
        return encoder

    def train(self, mode: bool = True) -> EatClassifier:
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(
        self,
        imgs: Tensor,
        label: Tensor | None = None,
        padding_mask: Tensor | None = None,
        num_windows: Sequence[int] | None = None,
    ) -> Tensor | ClassificationOutput:
        """Classify clips.

        Args:
            imgs: spectrograms [B, 1, T, F], time before mel (see ``mel_by_time``).
            label: targets [B, classes], 1 for each label of a clip; of a model ``by_frame`` those
                of frames, see ``frame_labels.label_steps``.
            padding_mask: bool [B, L], True = padding, whole time steps at the end; the result does
                not depend on its content. None if all clips have the same length.
            num_windows: with ``label``, number of consecutive rows of ``imgs`` per clip; loss and
                probabilities are averaged over them. None for one.

        Returns:
            Logits [B, classes], of a model ``by_frame`` [B, steps, classes]; with ``label`` an
            ``outputs.ClassificationOutput``.

        Raises:
            ValueError: if the input does not fit the model.
        """
        imgs = self.model.time_major(imgs)
        imgs, padding = self.model.patch_encoder.prepare(imgs, padding_mask)
        if self.by_frame and label is not None:
            label = label_steps(label, self.model.patch_encoder.patch_sides[0])
        if self.training:
            imgs, label, padding = self._augment(imgs, label, padding)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x, _ = self.model.encode(imgs, keep_targets=False, padding_mask=padding)
        logits = self.classify(x, self.model.patch_encoder.grid_of(imgs), padding)
        if label is None:
            return logits
        if self.by_frame:
            return frame_losses(logits, label, self.training)
        return self._losses(logits, label, num_windows)

    def classify(self, x: Tensor, grid: tuple[int, int], padding: Tensor | None = None) -> Tensor:
        """Return the logits of tokens [B, E + L, D] of a (time, mel) grid, see ``forward``."""
        assert self.cfg.prediction_mode is not None
        extra = self.model.num_extra_tokens
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = pool(x, self.cfg.prediction_mode, extra, grid, padding, self.cfg.segments)
        x = x if self.fc_norm is None else self.fc_norm(x)
        return self.head(F.dropout(x, self.cfg.head_dropout, self.training))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits [B, classes], by the loss that the model learnt."""
        return logits.softmax(-1) if self.objective.loss == "ce" else logits.sigmoid()

    def _augment(
        self, imgs: Tensor, label: Tensor | None, padding: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        patches = self.model.patch_encoder
        grid, lengths = patches.grid_of(imgs), None
        if padding is not None:
            lengths = own_columns(padding, grid[1]) * patches.patch_sides[0]
        if max(self.cfg.mixup, self.cfg.cutmix) > 0 and label is not None:
            imgs, mixed, lengths = mix_batch(
                imgs, label.flatten(1), lengths=lengths,
                mixup=self.cfg.mixup, cutmix=self.cfg.cutmix,
                prob=self.cfg.mixup_prob, switch_prob=self.cfg.mixup_switch_prob,
                mode=self.cfg.mixup_mode,
            )  # fmt: skip
            label = mixed.view(label.shape)
        if self.cfg.specaug:
            imgs = self._mask(imgs, lengths)
        if lengths is not None:
            padding = column_padding(lengths // patches.patch_sides[0], grid)
        return imgs, label, padding

    def _mask(self, imgs: Tensor, lengths: Tensor | None) -> Tensor:
        ratio, (frames, bins) = self.cfg.mask_ratio, imgs.shape[2:]
        time, mel = min(self.cfg.timem, frames), min(self.cfg.freqm, bins)
        if ratio > 0:
            time, mel = ratio * frames, ratio * bins
        if lengths is None:
            return mask_spectrogram(imgs, time, mel)
        width = ratio * lengths if ratio > 0 else lengths.clamp(max=int(time))
        return mask_spectrogram(imgs, width, mel, lengths)

    def _losses(
        self, logits: Tensor, label: Tensor, num_windows: Sequence[int] | None
    ) -> ClassificationOutput:
        logits, targets = logits.float(), label.float()
        if num_windows is not None:
            rows = torch.arange(len(label)).repeat_interleave(torch.tensor(num_windows))
            targets = targets[rows.to(label.device)]
        if self.training and self.objective.smoothing > 0:
            targets = smooth_targets(targets, self.objective.smoothing)
        if self.objective.loss == "ce":
            loss = F.cross_entropy(logits, targets, reduction="none")  # [B]
        elif self.objective.loss == ASYMMETRIC:
            cfg = self.cfg
            loss = asymmetric_loss(
                logits, targets, cfg.gamma_negative, cfg.gamma_positive, cfg.asymmetric_shift
            ).mean(dim=1)  # [B]
        else:
            loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        per_clip = self.objective.single_label or self.objective.loss == ASYMMETRIC
        result: ClassificationOutput = {
            "losses": {"main": mean_windows(loss, num_windows)},
            "sample_size": label.size(0) if per_clip else label.sum(dtype=torch.float32),
        }
        if not self.training:
            scores = mean_windows(self.probabilities(logits), num_windows)
            result["_predictions"], result["_targets"] = scores, label
            if self.objective.single_label:
                ranked = logits if num_windows is None else scores
                result["correct"] = (ranked.argmax(-1) == label.argmax(-1)).sum()
        return result


def _read_pretrained(path: str) -> PretrainedEncoder:
    try:
        return read_encoder(path)
    except FileNotFoundError as error:
        problem = explain_path(path, "give a checkpoint, or null to start from random weights")
        raise ValueError(f"model.model_path is {path!r}, which {problem}") from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise ValueError(f"model.model_path is {path!r}, which {problem}") from error
