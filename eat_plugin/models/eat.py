"""EAT pre-training: a student that sees a fifth of the patches, 16 times over, and its teacher.

Contents: ``EatModel`` (registered as ``eat`` and, by its published name, ``data2vec_multi``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from fairseq.models import register_model
from torch import Tensor, nn

from ..losses import dino_loss, normalize_patches, regression_loss
from ..masking import MaskSpec, draw_masks, join_masks
from ..modules.masked import PatchSplit, split_patches
from ..modules.padding import mean_patches, own_columns
from ..modules.patches import patchify, pick_tokens
from ..outputs import FeatureOutput, PretrainingOutput
from .config import EatConfig, Modality, validate_config
from .encoder import MODALITY, EatEncoder
from .param_groups import set_param_groups
from .prediction import Seeds, predict_hidden
from .statistics import channel_deviation, sum_over_processes
from .teacher import Teacher, annealed_decay

if TYPE_CHECKING:
    from collections.abc import Mapping

UPDATES_BEFORE_VARIANCE_CHECK = 5000
UPDATES_BETWEEN_VARIANCE_CHECKS = 100  # reading a value makes a GPU wait for the host


@register_model("data2vec_multi", dataclass=EatConfig)
@register_model("eat", dataclass=EatConfig)
class EatModel(EatEncoder):
    """Student, decoder and teacher (EAT, Chen et al. 2024; letters as in its section 3).

    B clips, K clones, L patches of which V visible, width D.

    Args:
        cfg: the configuration; it is validated here.

    Raises:
        ValueError: if the configuration cannot work, naming field, value and choices.
    """

    teacher: Teacher | None

    def __init__(self, cfg: EatConfig) -> None:
        validate_config(cfg)
        predicts_patches = cfg.d2v_loss > 0 or cfg.recon_loss > 0
        super().__init__(cfg, with_decoder=predicts_patches and not cfg.skip_ema)
        image = cfg.modalities.image
        self.recon_proj = None
        self.cls_proj = None
        self.teacher = None
        self.num_updates = 0
        self._teacher_update: int | None = None
        if cfg.skip_ema:
            return
        if cfg.recon_loss > 0:
            self.recon_proj = nn.Linear(cfg.embed_dim, image.patch_size**2 * image.in_chans)
        if cfg.utterance_level and cfg.cls_loss > 0:
            self.cls_proj = nn.Linear(cfg.embed_dim, cfg.embed_dim)
            start = torch.zeros if cfg.init_center_token_zero else torch.randn
            self.register_buffer("center", start(1, cfg.embed_dim))
        for projection in (self.recon_proj, self.cls_proj):
            if projection is not None:
                nn.init.normal_(projection.weight, std=0.02)
                nn.init.zeros_(projection.bias)
        set_param_groups(self, cfg.decoder_group)
        self.teacher = Teacher(self, cfg)
        if cfg.compile:
            self.teacher.encoder.compile_evaluation()

    @classmethod
    def build_model(cls, cfg: EatConfig, task: Any = None) -> EatModel:
        """Build the model from fairseq's configuration."""
        return cls(cfg)

    # ---- The teacher's life: precision, steps, checkpoints ----------------------------------

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> EatModel:
        centre = getattr(self, "center", None)
        super()._apply(fn, *args, **kwargs)
        weight = next(self.blocks.parameters())
        if centre is not None and weight.dtype != torch.float64:
            # A running mean must not lose its small steps to half precision.
            self.center = centre.to(weight.device, torch.float32)
        if self.teacher is not None:
            self.teacher.follow(weight)
        return self

    def set_num_updates(self, num_updates: int) -> None:
        """Take the teacher's step of an update; fairseq calls this at the start of update i.

        Update 0 has none. However often update i is announced (gradient accumulation, a repeated
        batch), its step is taken once. A checkpoint of N updates holds N - 1 steps; after loading
        one, the N-th is taken when training goes on. (In float16, one that is written after an
        update that overflowed holds N; the N-th is then taken twice.)

        Args:
            num_updates: number of optimizer steps taken so far, i.
        """
        super().set_num_updates(num_updates)
        self.num_updates = num_updates
        pending = num_updates >= 1 and num_updates != self._teacher_update
        if self.teacher is not None and self.training and pending:
            self.teacher.step(self, annealed_decay(self.cfg, num_updates))
            self._teacher_update = num_updates

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return parameters and buffers, and the teacher's averages as a dictionary ``_ema``."""
        state = super().state_dict(*args, **kwargs)
        if self.teacher is not None:
            prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
            state[f"{prefix}_ema"] = self.teacher.state_dict()
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None,
        args: Any = None,
    ) -> Any:
        """Load a checkpoint of this or of the published code, the teacher included.

        Raises:
            ValueError: if the checkpoint has no teacher, or another one, and ``strict`` is set.
        """
        state = dict(state_dict)
        averages = state.pop("_ema", None)
        if "center" in state:
            state["center"] = state["center"].reshape(1, -1)
        result = super().load_state_dict(state, strict, model_cfg, args)
        if self.teacher is not None:
            if averages is not None:
                self.teacher.load_state_dict(averages)
            elif strict:
                raise ValueError("the checkpoint has no teacher (_ema); was it a fine-tuned one?")
        self._teacher_update = None
        return result

    # ---- Features ---------------------------------------------------------------------------

    def forward(
        self,
        source: Tensor,
        target: Tensor | None = None,
        id: Tensor | None = None,
        mode: Any = None,
        padding_mask: Tensor | None = None,
        mask: bool = True,
        features_only: bool = False,
        force_remove_masked: bool = False,
        remove_extra_tokens: bool = True,
        precomputed_mask: Tensor | None = None,
        num_visible: int | None = None,
        noise_seed: Seeds = None,
    ) -> FeatureOutput | PretrainingOutput:
        """Compute the losses of pre-training, or features.

        Args:
            source: [B, C, T, F], time before mel (see ``mel_by_time``).
            target: what the teacher sees instead of ``source``, of the same shape.
            id: [B] clip ids; unused, part of fairseq's batch.
            mode: kind of input; ``IMAGE`` or None.
            padding_mask: bool [B, L], True = padding of clips of different length, whole time steps
                at their end. Nothing depends on what it holds. None where all are alike.
            mask: hide patches.
            features_only: return features rather than losses.
            force_remove_masked: with ``features_only``, leave hidden patches out rather than blank
                them.
            remove_extra_tokens: with ``features_only``, leave out CLS.
            precomputed_mask: [B*K, L], row b*K + k, 1 = hidden ([B, L] with ``features_only``).
                Drawn here if None.
            num_visible: number of zeros in each row of ``precomputed_mask``; counted if None, and
                where there is a ``padding_mask``.
            noise_seed: seed of the noise that stands for hidden patches in the decoder, or a list
                of one for each clip; if None it comes from PyTorch's global generator.

        Returns:
            See ``eat_plugin.outputs``.

        Raises:
            ValueError: if the input does not fit the model or the mode.
        """
        if mode is not None and getattr(mode, "name", mode) != MODALITY:
            raise ValueError(f"mode is {mode!r}; the only choice is {Modality.IMAGE.name}")
        source = self.time_major(source)
        target = None if target is None else self.time_major(target)
        grid = self.patch_encoder.grid_of(source)
        source, padding = self.patch_encoder.prepare(source, padding_mask)
        if features_only:
            return self._encode(
                source, grid, padding, mask, force_remove_masked, remove_extra_tokens,
                precomputed_mask,
            )
        if not mask:
            raise ValueError("pre-training takes mask=True")
        if target is not None:
            target, _ = self.patch_encoder.prepare(target, padding)
        clones = self.cfg.clone_batch
        masks = self._masks(source, grid, clones, precomputed_mask, padding)
        split = split_patches(masks, num_visible, clones, padding)
        return self._pretrain(source, target, grid, split, padding, noise_seed)

    def extract_features(
        self,
        source: Tensor,
        mode: Any = None,
        padding_mask: Tensor | None = None,
        mask: bool = False,
        remove_extra_tokens: bool = True,
    ) -> FeatureOutput:
        """Compute the student's features of whole clips; arguments as in ``forward``."""
        return self(
            source,
            mode=mode,
            padding_mask=padding_mask,
            mask=mask,
            features_only=True,
            remove_extra_tokens=remove_extra_tokens,
        )

    def _encode(
        self,
        source: Tensor,
        grid: tuple[int, int],
        padding_mask: Tensor | None,
        mask: bool,
        remove_masked: bool,
        remove_extra_tokens: bool,
        precomputed_mask: Tensor | None,
    ) -> FeatureOutput:
        patches = self.patch_encoder
        x = patches.embed(source)  # [B, L, D]
        masks = self._masks(source, grid, 1, precomputed_mask, padding_mask) if mask else None
        if masks is not None and remove_masked:
            split = split_patches(masks, None, 1, padding_mask)
            x = pick_tokens(x, split.visible)
            padding_mask = None if split.ragged is None else split.ragged.unused
        elif masks is not None:
            hidden = masks.bool().unsqueeze(-1)
            zero = patches.cfg.encoder_zero_mask
            noise = 0.0 if zero else torch.randn_like(x) * patches.cfg.mask_noise_std
            x = torch.where(hidden, torch.as_tensor(noise, dtype=x.dtype, device=x.device), x)
        extra = self.num_extra_tokens
        padding = self.token_padding(padding_mask)
        x, layers = self.run_blocks(patches.contextualize(x), padding)  # [B, E + S, D]
        return {
            "x": x[:, extra:] if remove_extra_tokens else x,
            "padding_mask": padding_mask if remove_extra_tokens else padding,
            "layer_results": layers,
            "mask": masks,
        }

    def _masks(
        self,
        source: Tensor,
        grid: tuple[int, int],
        clones: int,
        precomputed: Tensor | None,
        padding: Tensor | None,
    ) -> Tensor:
        """Return checked masks [B * clones, L]; draw them where there are none."""
        image = self.cfg.modalities.image
        expected = (source.size(0) * clones, grid[0] * grid[1])
        if precomputed is None:
            spec = MaskSpec.from_options(image, grid)
            if padding is None:
                return draw_masks(spec, expected[0]).to(source.device)
            columns = own_columns(padding, grid[1]).tolist()
            masks = [draw_masks(spec.resized(number), clones) for number in columns]
            return join_masks(masks).to(source.device)
        if tuple(precomputed.shape) != expected:
            raise ValueError(
                f"precomputed_mask has shape {tuple(precomputed.shape)}; expected {expected}: "
                f"a row for each of {clones} clones of {source.size(0)} clips, and "
                f"{grid[0]}x{grid[1]} patches"
            )
        return precomputed

    # ---- Pre-training -----------------------------------------------------------------------

    def _pretrain(
        self,
        source: Tensor,
        target: Tensor | None,
        grid: tuple[int, int],
        split: PatchSplit,
        padding: Tensor | None,
        noise_seed: Seeds,
    ) -> PretrainingOutput:
        if self.teacher is None:
            raise ValueError("the model was built without a teacher (skip_ema); it cannot train")
        patches, clones, extra = self.patch_encoder, self.cfg.clone_batch, self.num_extra_tokens
        local = patches.local_features(source)  # [B, L, D]
        tokens = pick_tokens(patches.add_positions(local), split.visible, clones)  # [B*K, V, D]
        unused = None if split.ragged is None else self.token_padding(split.ragged.unused)
        x, _ = self.run_blocks(patches.contextualize(tokens), unused, keep_targets=False)
        seen = source if target is None else target
        y = self.teacher.make_targets(self, seen, local, padding)  # [B, L, D]
        expected = y.flatten(0, 1).index_select(0, split.hidden_sources)  # [N_hidden, D]
        num_hidden = len(split.hidden_rows)
        result: PretrainingOutput = {
            "losses": {},
            "loss_items": {},
            "sample_size": num_hidden,
            "masked_pct": num_hidden / (num_hidden + len(split.visible_rows)),
            "target_var": channel_deviation(expected),
            "ema_decay": self.teacher.decay * 1000,
            **self.teacher.norms,  # type: ignore[typeddict-item]
        }
        losses, items = result["losses"], result["loss_items"]
        if self.cfg.cls_loss > 0:
            utterance = self._utterance(x[:, extra - 1], mean_patches(y, padding), split)
            losses["cls"] = utterance * (self.cfg.cls_loss * num_hidden)
            items["cls"] = float(num_hidden * losses["cls"].shape[:1].numel())
        if patches.decoder is not None:
            predicted = predict_hidden(patches, x[:, extra:], split, grid, noise_seed)
            result["pred_var"] = channel_deviation(predicted)
            if self.cfg.d2v_loss > 0:
                losses["regression"] = self._regression(predicted, expected, self.cfg.d2v_loss)
                items["regression"] = float(num_hidden)
            if self.recon_proj is not None:
                values = normalize_patches(patchify(source, patches.cfg.patch_size))
                values = values.flatten(0, 1).index_select(0, split.hidden_sources)
                recon = self.recon_proj(predicted)
                losses["recon"] = self._regression(recon, values, self.cfg.recon_loss)
                items["recon"] = float(num_hidden)
        self._check_variance(result)
        return result

    def _regression(self, prediction: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
        scale = self.cfg.loss_scale
        scale = prediction.size(-1) ** -0.5 if scale is None else scale
        return regression_loss(prediction, target, self.cfg.loss_beta, scale * weight)

    def _utterance(self, cls: Tensor, target: Tensor, split: PatchSplit) -> Tensor:
        """Loss of CLS outputs [B*K, D] against clip targets [B, D], by regression or by DINO.

        A row counts in proportion to its own number of hidden patches. The ratio of a clip's
        utterance loss to its patch loss so does not depend on how long the others are.
        """
        repeated = target.repeat_interleave(self.cfg.clone_batch, dim=0)  # [B*K, D]
        share = None if split.ragged is None else split.ragged.hidden_share
        if self.cls_proj is None:
            loss = self._regression(cls, repeated)
            return loss if share is None else loss * share.to(loss.dtype).unsqueeze(1)
        loss = dino_loss(
            self.cls_proj(cls),
            repeated,
            self.center,
            self.cfg.softmax_temperature_student,
            self.cfg.softmax_temperature_teacher,
            share,
        )
        if self.training:
            mean = torch.cat([target.sum(dim=0), target.new_full((1,), target.size(0))])
            mean = sum_over_processes(mean)
            mean = (mean[:-1] / mean[-1]).to(self.center.dtype)
            self.center.lerp_(mean.unsqueeze(0), 1 - self.cfg.center_exp)
        return loss

    def _check_variance(self, result: PretrainingOutput) -> None:
        since = self.num_updates - UPDATES_BEFORE_VARIANCE_CHECK
        if since <= 0 or since % UPDATES_BETWEEN_VARIANCE_CHECKS:
            return
        for name, least in (
            ("target_var", self.cfg.min_target_var), ("pred_var", self.cfg.min_pred_var)
        ):
            if least > 0 and name in result and float(result[name]) < least:  # type: ignore[literal-required]
                raise RuntimeError(
                    f"{name} fell below model.min_{name}={least} at update {self.num_updates}: "
                    "the model has collapsed"
                )
