"""Optimizer ``eat_adamw``: PyTorch's AdamW with fairseq's parameter options and precisions."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor
from torch.optim.adamw import adamw


@dataclass
class EatAdamWConfig(FairseqDataclass):
    """Options of ``eat_adamw``."""

    adam_betas: List[float] = field(
        default_factory=lambda: [0.9, 0.95],
        metadata={"help": "decay of the running means of gradients and of their squares"},
    )
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the root of the latter"})
    weight_decay: float = field(default=0.05, metadata={"help": "decoupled weight decay"})
    apply_weight_decay_scale: bool = field(
        default=False,
        metadata={
            "help": "honour the parameters' weight decay scale, which frees biases and norms from "
            "decay; the published runs decayed them too"
        },
    )
    lr: List[float] = II("optimization.lr")


class MixedPrecisionAdamW(torch.optim.Optimizer):
    """AdamW over parameters of any precision, with float32 arithmetic and state.

    The step is PyTorch's own, fused or multi-tensor where PyTorch offers it. Parameters in half
    precision are updated through a float32 copy, as fairseq's memory-efficient modes expect.

    Args:
        groups: PyTorch parameter groups.
        lr: learning rate.
        betas: decays of the running means.
        eps: numerical floor.
        weight_decay: decoupled weight decay.
    """

    supports_memory_efficient_fp16 = True

    def __init__(
        self,
        groups: Iterable[Dict[str, Any]],
        lr: float,
        betas: Tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: List[Tensor], group: Dict[str, Any]) -> None:
        precise = [p if p.dtype == torch.float64 else p.float() for p in parameters]
        grads = [p.grad.to(q.dtype) for p, q in zip(parameters, precise)]  # type: ignore[union-attr]
        states = [self._state_of(p, q) for p, q in zip(parameters, precise)]
        adamw(
            precise,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=_has_fused_step(precise[0].device.type),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for parameter, updated in zip(parameters, precise):
            if parameter.dtype != updated.dtype:
                parameter.copy_(updated)

    def _state_of(self, parameter: Tensor, precise: Tensor) -> Dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            device = precise.device if precise.is_cuda else None  # where the fused step wants it
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(precise)
            state["exp_avg_sq"] = torch.zeros_like(precise)
        return state


@cache
def _has_fused_step(device_type: str) -> bool:
    """Whether this PyTorch has a fused step there; since 2.4 it has one on the CPU as well."""
    try:
        torch.optim.AdamW([torch.zeros(1, device=device_type, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True


@register_optimizer("eat_adamw", dataclass=EatAdamWConfig)
class EatAdamW(FairseqOptimizer):
    """AdamW with one parameter group for each set of options on the parameters.

    A parameter's ``optim_overrides`` (see ``models.param_groups``) may hold an ``lr_scale``, which
    multiplies whatever any of fairseq's lr schedulers sets, and a ``weight_decay_scale``.

    Args:
        cfg: the options.
        params: parameters to optimize.
    """

    def __init__(self, cfg: EatAdamWConfig, params: Iterable[Tensor]) -> None:
        super().__init__(cfg)
        parameters = list(params)
        # Under common.fp16 and bf16 these are fairseq's float32 copies of a half precision model,
        # the only ones that have a gradient from the start. fairseq does not save such copies, and
        # would go on from rounded weights.
        self._copies = parameters if all(p.grad is not None for p in parameters) else []
        self._optimizer = MixedPrecisionAdamW(
            self._make_groups(parameters), **self.optimizer_config
        )
        self.set_lr(self.optimizer_config["lr"])

    def _make_groups(self, params: Iterable[Tensor]) -> List[Dict[str, Any]]:
        groups: Dict[Tuple[float, float], Dict[str, Any]] = {}
        for parameter in params:
            overrides = (getattr(parameter, "optim_overrides", None) or {}).get("optimizer", {})
            lr_scale = float(overrides.get("lr_scale", 1.0))
            decay_scale = 1.0
            if self.cfg.apply_weight_decay_scale:
                decay_scale = float(overrides.get("weight_decay_scale", 1.0))
            group = groups.setdefault(
                (lr_scale, decay_scale),
                {
                    "params": [],
                    "lr_scale": lr_scale,
                    "weight_decay": self.cfg.weight_decay * decay_scale,
                },
            )
            group["params"].append(parameter)
        return list(groups.values())

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Arguments of the wrapped optimizer."""
        return {
            "lr": float(self.cfg.lr[0]),
            "betas": tuple(float(beta) for beta in self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    def state_dict(self) -> Dict[str, Any]:
        """Return the state, and the float32 copies of a half precision model as ``copies``."""
        state = super().state_dict()
        if self._copies:
            state["copies"] = [copy.detach() for copy in self._copies]
        return state

    def load_state_dict(
        self, state_dict: Dict[str, Any], optimizer_overrides: Optional[Dict[str, Any]] = None
    ) -> None:
        """Load what ``state_dict`` returned; options of PyTorch's groups may be overridden."""
        super().load_state_dict(state_dict, optimizer_overrides)
        for copy, saved in zip(self._copies, state_dict.get("copies", [])):
            copy.data.copy_(saved)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, times each group's scale."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        """Return the learning rate of a scale of 1."""
        group = max(self.param_groups, key=lambda group: group["lr_scale"])
        return group["lr"] / group["lr_scale"]
