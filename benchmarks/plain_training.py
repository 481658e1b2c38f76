"""The plain form of a pre-training update, with the weights of a given model.

Tokens and targets are repeated per clone before selection. Attention computes its table of weights.
The decoder works channels first and transposes for each norm. The teacher average, clipping and
optimizer are fairseq's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from fairseq.modules import EMAModule, EMAModuleConfig
from fairseq.optim import FairseqOptimizer, FP16Optimizer
from fairseq.optim.adam import FairseqAdam
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from eat_plugin.models.bat_options import ELEMENTS
from eat_plugin.models.eat import EatModel
from eat_plugin.models.encoder import EatEncoder
from eat_plugin.modules.vit_decoder import VitDecoder

# fairseq's half precision wrappers demand a window for the loss scale; bfloat16 does not use it.
HALF_OPTIONS = {"bf16": True, "fp16_scale_window": 1}


def compute_losses(
    student: EatModel, teacher: EatEncoder, source: Tensor, mask: Tensor
) -> tuple[dict[str, Tensor], int]:
    """Compute the losses of a batch (EAT, Chen et al. 2024, section 3; or BAT).

    The model has post-norm blocks, the published targets and utterance loss by regression.

    Args:
        student: the model.
        teacher: the teacher's encoder.
        source: [B, C, T, F].
        mask: [B*K, L], 1 = hidden.

    Returns:
        The weighted losses, and the number of hidden patches.
    """
    cfg = student.cfg
    clones = cfg.clone_batch
    encoder, rows = student.patch_encoder, mask.size(0)
    grid = encoder.grid_of(source)
    tokens = encoder.embed(source).repeat_interleave(clones, dim=0)  # [B*K, L, D]
    num_visible = int((mask[0] == 0).sum())
    order = mask.argsort(dim=1, stable=True)
    places = order.argsort(dim=1)
    width = tokens.size(-1)
    kept = order[:, :num_visible, None].expand(-1, -1, width)
    x = encoder.contextualize(tokens.gather(1, kept))
    for block in student.blocks:
        x, _ = transform(block, x)
    y = make_targets(teacher, source, cfg.average_top_k_layers, cfg.target_norm_eps)
    y = y.repeat_interleave(clones, dim=0)
    hidden = mask.bool()
    num_hidden = int(hidden.sum())
    losses = {}
    is_mean = cfg.loss_average == ELEMENTS
    scale = width ** (-1.0 if is_mean else -0.5)
    if cfg.cls_loss > 0:
        error = F.mse_loss(x[:, 0].to(y.dtype), y.mean(dim=1), reduction="none")
        losses["cls"] = error * scale * (cfg.cls_loss * num_hidden / (rows if is_mean else 1))
    decoder: Any = encoder.decoder
    if isinstance(decoder, VitDecoder):
        predicted = decode_by_transformer(decoder, x[:, 1:], places)[hidden]
    else:
        noise = torch.randn_like(tokens[:, num_visible:]) * encoder.cfg.mask_noise_std
        canvas = torch.cat([x[:, 1:], noise], dim=1)
        canvas = canvas.gather(1, places[..., None].expand(-1, -1, width))
        predicted = decode(decoder, canvas.transpose(1, 2).reshape(rows, width, *grid))[hidden]
    error = F.mse_loss(predicted.to(y.dtype), y[hidden], reduction="none")
    losses["regression"] = error * scale * cfg.d2v_loss
    return losses, num_hidden


def transform(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a post-norm block to x [N, S, D]; return its output and its target output."""
    attention = block.attn
    batch, length, width = x.shape
    qkv = multiply(attention.qkv, x).reshape(batch, length, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (q * (width // attention.num_heads) ** -0.5) @ k.transpose(-2, -1)  # [N, heads, S, S]
    weights = weights.softmax(dim=-1, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
    heads = (weights @ v).transpose(1, 2).reshape(batch, length, width)
    if attention.gate is not None:
        heads = heads * multiply(attention.gate, x).sigmoid()
    x = x + multiply(attention.proj, heads)
    residual = block.norm1(x)
    target = multiply(block.mlp.fc2, F.gelu(multiply(block.mlp.fc1, residual)))
    x = block.norm2(residual + target)
    return x, x if block.end_of_block_target else target


@torch.no_grad()
def make_targets(teacher: EatEncoder, source: Tensor, top: int, eps: float) -> Tensor:
    """Average the normalised outputs of the teacher's last blocks: [B, L, D]."""
    x = teacher.patch_encoder.contextualize(teacher.patch_encoder.embed(source))
    layers = []
    for block in teacher.blocks:
        x, target = transform(block, x)
        layers.append(target[:, 1:])
    normalised = [
        F.instance_norm(
            layer.to(torch.promote_types(x.dtype, torch.float32)).transpose(1, 2), eps=eps
        )
        for layer in layers[-top:]
    ]
    y = torch.stack(normalised).mean(dim=0).transpose(1, 2)
    return F.layer_norm(y, y.shape[-1:], eps=eps)


def decode(decoder: Any, x: Tensor) -> Tensor:
    """Decode a grid [N, D, rows, columns] to [N, L, D]."""
    for layer in decoder.blocks:
        y = layer[0](x).transpose(1, -1)
        y = F.gelu(F.layer_norm(y, y.shape[-1:], eps=1e-5).transpose(1, -1))
        x = y + x if y.shape == x.shape else y
    return multiply(decoder.proj, x.flatten(2).transpose(1, 2))


def decode_by_transformer(decoder: VitDecoder, visible: Tensor, places: Tensor) -> Tensor:
    """Decode all patches, [N, L, D], through whole blocks.

    Args:
        decoder: of the model.
        visible: [N, V, D], output of the student at visible patches.
        places: [N, L], the place of each patch among the visible, then the hidden ones.
    """
    x = visible if decoder.in_proj is None else multiply(decoder.in_proj, visible)
    masked = decoder.mask_token.expand(len(x), places.size(1) - x.size(1), -1)
    canvas = torch.cat([x, masked], dim=1)
    canvas = canvas.gather(1, places[..., None].expand(-1, -1, canvas.size(2)))
    canvas = canvas + decoder.positions[:, : places.size(1)]
    for block in decoder.blocks:
        canvas, _ = transform(block, canvas)
    return multiply(decoder.proj, canvas)


def multiply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer to x [..., in] with PyTorch's own function."""
    return F.linear(x, layer.weight, layer.bias)


class PlainUpdate:
    """Updates a copy of a model in the plain form.

    In half precision the optimizer keeps float32 copies of the parameters, as fairseq's fp16 and
    bf16 modes do.
    """

    def __init__(
        self,
        model: EatModel,
        lr: float,
        decay: float,
        clip_norm: float | None,
        eps: float = 1e-8,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = copy.deepcopy(model)
        self.model.teacher = None
        self.model.to(device=device, dtype=dtype).train()
        average = nn.ModuleDict(
            {"modality_encoders": self.model.modality_encoders, "blocks": self.model.blocks}
        )
        precise = next(average.parameters()).dtype == torch.float64
        self.average = EMAModule(average, EMAModuleConfig(ema_decay=decay, ema_fp32=not precise))
        self.source = average
        self.optimizer = make_adam(self.model, lr, eps)
        self.clip_norm = clip_norm
        self.updates = 0

    @property
    def teacher(self) -> EatEncoder:
        """The model with the averaged weights."""
        shell = copy.copy(self.model)
        shell._modules = dict(shell._modules)
        shell._modules.update(self.average.model._modules)
        return shell

    def step(self, source: Tensor, mask: Tensor) -> float:
        """Do one update; return the loss per hidden patch."""
        weight = next(self.model.parameters())
        source, mask = source.to(weight), mask.to(weight.device)
        if self.updates:
            self.average.step(self.source)
        losses, size = compute_losses(self.model, self.teacher, source, mask)
        loss = torch.stack([value.sum() for value in losses.values()]).sum() / size
        self.updates += 1
        return descend(self.optimizer, loss, self.clip_norm)


def make_adam(model: nn.Module, lr: float, eps: float = 1e-8) -> FairseqOptimizer:
    """Make fairseq's Adam for a model; half precision parameters have float32 copies.

    Learning rate scales of parameters count (see ``models.param_groups``).
    """
    options = {
        "adam_betas": [0.9, 0.95], "adam_eps": eps, "weight_decay": 0.05, "lr": [lr],
        "use_old_adam": True, "fp16_adam_stats": False,
    }  # fmt: skip
    cfg = OmegaConf.create({"optimizer": options, "common": HALF_OPTIONS})
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters[0].dtype != torch.bfloat16:
        return FairseqAdam(cfg.optimizer, _group(parameters, lr))
    copies = FP16Optimizer.build_fp32_params(None, parameters, flatten=False)
    adam = FairseqAdam(cfg.optimizer, _group(copies, lr))
    return FP16Optimizer(cfg, parameters, adam, copies)


def _group(parameters: Iterable[Any], lr: float) -> list[dict[str, Any]]:
    """Group parameters by learning rate."""
    groups: dict[float, list[Any]] = {}
    for parameter in parameters:
        overrides = getattr(parameter, "optim_overrides", {}).get("optimizer", {})
        groups.setdefault(overrides.get("lr_scale", 1.0), []).append(parameter)
    return [{"params": group, "lr": lr * scale} for scale, group in groups.items()]


def descend(optimizer: FairseqOptimizer, loss: Tensor, clip_norm: float | None) -> float:
    """Take an optimizer step on a loss, as fairseq's trainer does; return the loss."""
    optimizer.zero_grad()
    optimizer.backward(loss)
    if clip_norm is not None:
        optimizer.clip_grad_norm(clip_norm)
    optimizer.step()
    return float(loss.detach())
