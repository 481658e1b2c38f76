"""EAT pre-training: model ``eat``, by its published name ``data2vec_multi``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..modules.decoders import ConvDecoder, Seeds
from ..modules.patch_split import pick_tokens, split_patches
from ..modules.replay import Replayed
from ..outputs import FeatureOutput, PretrainingOutput
from .config import EatConfig, validate_config
from .encoder import MODALITY, EatEncoder, init_normal
from .examination import Examined, examine
from .objectives import channel_deviation, choose_objectives
from .param_groups import set_param_groups
from .passes import run_passes
from .step import Inputs, Step
from .student_patches import StudentPatches
from .teacher import Teacher, annealed_decay

if TYPE_CHECKING:
    from collections.abc import Mapping

UPDATES_BEFORE_VARIANCE_CHECK = 5000
UPDATES_BETWEEN_VARIANCE_CHECKS = 100  # a GPU waits for the host then


class EatModel(EatEncoder):
    """Student, decoder, teacher and objectives (EAT, Chen et al. 2024, section 3).

    B clips, K clones, L patches of which V visible, width D.

    Raises:
        ValueError: if the configuration is invalid, naming option, value and choices.
    """

    teacher: Teacher | None

    def __init__(self, cfg: EatConfig) -> None:
        validate_config(cfg)
        objectives = [] if cfg.skip_ema else choose_objectives(cfg)
        has_decoder = any(one.needs_decoder for one in objectives)
        super().__init__(cfg, StudentPatches(cfg, has_decoder))
        if isinstance(self.patch_encoder.decoder, ConvDecoder):
            self.patch_encoder.decoder.proj.reset_parameters()
        self.objectives = objectives
        self.teacher = None
        self.num_updates = 0
        self.collapse = ""  # how, if it has; the task then ends the run
        self._teacher_update: int | None = None
        self.replayed = Replayed() if cfg.cuda_graph else None
        if cfg.skip_ema:
            return
        encoder = set(self.children())
        for objective in reversed(objectives):  # the published order of random initial values
            objective.add_parameters(self)
        for part in self.children():
            if part not in encoder:
                part.apply(init_normal)
        set_param_groups(self, cfg.decoder_group)
        self.teacher = Teacher(self, cfg, objectives)
        if cfg.compile:
            self.teacher.encoder.compile_evaluation()

    @property
    def patch_encoder(self) -> StudentPatches:
        """The patch encoder, with the decoder."""
        return self.modality_encoders[MODALITY]  # type: ignore[return-value]

    # ---- Precision, teacher steps, checkpoints ----------------------------------------------

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> EatModel:
        buffers = dict(self.named_buffers(recurse=False))
        super()._apply(fn, *args, **kwargs)
        weight = next(self.blocks.parameters())
        if weight.dtype != torch.float64:
            # A running mean would lose its small steps in half precision.
            for name, buffer in buffers.items():
                setattr(self, name, buffer.to(weight.device, torch.float32))
        if self.teacher is not None:
            self.teacher.match_precision(weight)
        return self

    def set_num_updates(self, num_updates: int) -> None:
        """Take the teacher's step of an update, once; fairseq calls this at the start of update i.

        Update 0 has none. A checkpoint of N updates holds N - 1 steps; the N-th is taken after
        loading. (In float16, a checkpoint written after an update that overflowed holds N steps;
        the N-th is then taken twice.)

        Args:
            num_updates: number of optimizer steps so far, i.
        """
        self.num_updates = num_updates
        pending = num_updates >= 1 and num_updates != self._teacher_update
        if self.teacher is not None and self.training and pending:
            self.teacher.step(self, annealed_decay(self.cfg, num_updates))
            self._teacher_update = num_updates

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return parameters and buffers, and the teacher's averages as dictionary ``_ema``."""
        state = super().state_dict(*args, **kwargs)
        if self.teacher is not None:
            prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
            state[f"{prefix}_ema"] = dict(self.teacher.averages)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None,
        args: Any = None,
    ) -> Any:  # fmt: skip
        """Load a checkpoint of this or the published code, with its teacher.

        Raises:
            ValueError: if ``strict``, and the checkpoint has no teacher or a different one.
        """
        state = dict(state_dict)
        averages = state.pop("_ema", None)
        for name, buffer in self.named_buffers(recurse=False):
            if name in state and state[name].numel() == buffer.numel():
                state[name] = state[name].reshape(buffer.shape)  # published: [1, 1, D]
        result = super().load_state_dict(state, strict)
        if self.teacher is not None:
            if averages is not None:
                self.teacher.load_state_dict(averages)
            elif strict:
                raise ValueError("the checkpoint has no teacher (_ema); was it a fine-tuned one?")
        self._teacher_update = None
        return result

    # ---- Pre-training and features ----------------------------------------------------------

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
        """Compute the losses of pre-training, or features; see ``eat_plugin.outputs``.

        Args:
            source: [B, C, T, F], time before mel (see ``mel_by_time``).
            target: input of the teacher, of the same shape; ``source`` if None.
            id: [B] clip ids; unused, part of fairseq's batch.
            mode: kind of input; ``IMAGE`` or None.
            padding_mask: bool [B, L], True = padding, whole time steps at the end; the result does
                not depend on its content. None if all clips have the same length.
            mask: hide patches.
            features_only: return features, not losses.
            force_remove_masked: with ``features_only``, leave out hidden patches, not blank them.
            remove_extra_tokens: with ``features_only``, leave out CLS.
            precomputed_mask: [B*K, L], row b*K + k, 1 = hidden ([B, L] with ``features_only``);
                drawn here if None.
            num_visible: number of zeros per row of ``precomputed_mask``; counted if None, and with
                ``padding_mask``.
            noise_seed: see ``modules.decoders.draw_noise``.

        Raises:
            ValueError: if the input does not fit the model or the mode.
        """
        if mode is not None and getattr(mode, "name", mode) != MODALITY:
            raise ValueError(f"mode is {mode!r}; the only choice is {MODALITY}")
        patches = self.patch_encoder
        source, padding = patches.prepare(self.time_major(source), padding_mask)
        clones = 1 if features_only else self.cfg.clone_batch
        masks = patches.make_masks(source, clones, precomputed_mask, padding) if mask else None
        if features_only:
            return self._encode(source, padding, masks, force_remove_masked, remove_extra_tokens)
        if masks is None or self.teacher is None:
            raise ValueError("pre-training takes mask=True and a teacher (model.skip_ema=false)")
        given = source if target is None else patches.prepare(self.time_major(target), padding)[0]
        inputs = Inputs(source, given, masks, padding, num_visible, noise_seed)
        for objective in self.objectives:
            inputs = objective.change_inputs(self, inputs)
        step = self.make_step(**vars(inputs))
        result = self._collect_statistics(step)
        for objective in self.objectives:
            loss, items = objective.compute(step)
            result["losses"][objective.name] = loss
            result["loss_items"][objective.name] = float(items)
        result.update(step.statistics)  # type: ignore[typeddict-item]
        self._check_variance(result)
        return result

    def make_step(
        self,
        source: Tensor,
        target: Tensor,
        masks: Tensor,
        padding: Tensor | None = None,
        num_visible: int | None = None,
        noise_seed: Seeds = None,
        notes: dict[str, Any] | None = None,
    ) -> Step:
        """Predict the hidden patches of clips, and make their targets; arguments as ``Inputs``."""
        assert self.teacher is not None
        patches, clones = self.patch_encoder, self.cfg.clone_batch
        grid, split = patches.grid_of(source), split_patches(masks, num_visible, clones, padding)
        split = patches.choose_hidden(split, masks.size(1), noise_seed, clones)
        weight = next(self.blocks.parameters())
        sizes = (*masks.shape, self.cfg.embed_dim)
        canvas = patches.draw_canvas(weight, sizes, split, noise_seed)
        passes = run_passes(self, source, target, split, canvas, padding)
        return Step(
            self, source, target, grid, split, padding, noise_seed, *passes, notes or {},
        )  # fmt: skip

    def extract_features(
        self, source: Tensor, mode: Any = None, padding_mask: Tensor | None = None,
        mask: bool = False, remove_extra_tokens: bool = True,
    ) -> FeatureOutput:  # fmt: skip
        """Compute features of whole clips; arguments as in ``forward``."""
        return self(
            source, mode=mode, padding_mask=padding_mask, mask=mask, features_only=True,
            remove_extra_tokens=remove_extra_tokens,
        )  # fmt: skip

    def examine(
        self, source: Tensor, padding_mask: Tensor | None = None, with_targets: bool = True
    ) -> Examined:
        """Return the vectors that a monitor of training measures; see ``examination``."""
        return examine(self, source, padding_mask, with_targets)

    def _encode(
        self, source: Tensor, padding_mask: Tensor | None, masks: Tensor | None,
        remove_masked: bool, remove_extra_tokens: bool,
    ) -> FeatureOutput:  # fmt: skip
        patches = self.patch_encoder
        x = patches.embed(source)  # [B, L, D]
        if masks is not None and remove_masked:
            split = split_patches(masks, None, 1, padding_mask)
            x = pick_tokens(x, split.visible)
            padding_mask = None if split.lengths is None else split.lengths.unused
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

    def _collect_statistics(self, step: Step) -> PretrainingOutput:
        """Return the output without its losses."""
        assert self.teacher is not None
        num_hidden, num_masked = len(step.split.hidden_rows), step.split.num_masked
        result: PretrainingOutput = {
            "losses": {},
            "loss_items": {},
            "sample_size": num_hidden,
            "masked_pct": num_masked / (num_masked + len(step.split.visible_rows)),
            "target_var": channel_deviation(step.hidden_targets),
            "ema_decay": self.teacher.decay * 1000,
            **self.teacher.norms,  # type: ignore[typeddict-item]
        }
        if step.prediction is not None:
            result["pred_var"] = channel_deviation(step.prediction)
        return result

    def _check_variance(self, result: PretrainingOutput) -> None:
        since = self.num_updates - UPDATES_BEFORE_VARIANCE_CHECK
        if since <= 0 or since % UPDATES_BETWEEN_VARIANCE_CHECKS:
            return
        for name in ("target_var", "pred_var"):
            least = getattr(self.cfg, f"min_{name}")
            if least > 0 and name in result and float(result[name]) < least:  # type: ignore[literal-required]
                self.collapse = (
                    f"{name} fell below model.min_{name}={least} at update {self.num_updates}: "
                    "the model has collapsed"
                )
