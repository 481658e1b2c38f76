"""Optimizer ``eat_adamw``: PyTorch's AdamW with fairseq's parameter options and precisions."""

from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor
from torch.optim.adamw import adamw

from ..modules.foreach import HALF, in_float32
from ..options import option

OPTIONS = ("lr_scale", "weight_decay", "betas", "eps")  # of a group, by the run's configuration


@dataclass
class EatAdamWConfig(FairseqDataclass):
    """Options of ``eat_adamw``."""

    adam_betas: List[float] = option(
        [0.9, 0.95], "decays of the running means of gradients and squared gradients"
    )
    adam_eps: float = option(1e-8, "added to the root of the mean square")
    weight_decay: float = option(0.05, "decoupled weight decay")
    apply_weight_decay_scale: bool = option(
        False,
        "no weight decay of biases and norms (weight decay scale 0); published runs decay them",
    )
    lr: List[float] = II("optimization.lr")


class MixedPrecisionAdamW(torch.optim.Optimizer):
    """AdamW for parameters of any precision, with arithmetic and state in float32.

    The state of a half-precision parameter has a float32 master, which is updated and saved in
    checkpoints, so that small updates add up. fairseq's memory-efficient modes are then as precise
    as its modes that copy parameters and gradients tensor by tensor.

    A step takes few operations over all parameters: gradients to float32, PyTorch's update of each
    group (fused if possible), masters back to parameters.
    """

    supports_memory_efficient_fp16 = True
    # load_state_dict restores the precision of the state itself, on the right device.
    disable_mem_eff_fp16_loading_hack = True

    @property
    def supports_step_with_scale(self) -> bool:
        """Whether ``step`` divides gradients by the scale: in half precision, to do it in float32.

        With fairseq's float32 copies it must not: their bf16 mode would never reset the scale.
        """
        return any(p.dtype in HALF for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Optional[Callable[[], Any]] = None,
        scale: Union[float, Tensor] = 1.0,
    ) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss, which is returned.
            scale: factor of the gradients to remove, a number or a tensor of one. Half-precision
                gradients keep their values, others are divided in place.
        """
        loss = None if closure is None else closure()
        parameters = [p for p in self._parameters() if p.grad is not None]
        if not parameters:
            return loss
        grads = in_float32([p.grad for p in parameters], like=parameters)  # type: ignore[misc]
        if torch.is_tensor(scale):
            inverse = scale.reciprocal()
            on_host = inverse.device.type == "cpu"  # copying it to a GPU would wait for the GPU
            factor = float(inverse) if on_host else inverse.to(grads[0])
            torch._foreach_mul_(grads, factor)
        elif scale != 1:
            torch._foreach_mul_(grads, 1 / scale)
        grad_of = dict(zip(parameters, grads))
        for group in self.param_groups:
            having = [p for p in group["params"] if p in grad_of]
            if having:
                self._update(having, [grad_of[p] for p in having], group)
        half = [p for p in parameters if p.dtype in HALF]
        if half:
            torch._foreach_copy_(half, [self.state[p]["master"] for p in half])
        return loss

    def _parameters(self) -> Iterator[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _update(self, parameters: List[Tensor], grads: List[Tensor], group: Dict[str, Any]) -> None:
        states = [self._state_of(p) for p in parameters]
        fused = _has_fused_step(parameters[0].device.type)
        means, squares, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        beta1, beta2 = group["betas"]
        options = {name: group[name] for name in ("lr", "weight_decay", "eps")}
        adamw(
            [state.get("master", p) for p, state in zip(parameters, states)],
            grads, means, squares, [], steps, fused=fused, foreach=not fused, amsgrad=False,
            beta1=beta1, beta2=beta2, maximize=False, **options,
        )  # fmt: skip

    def _state_of(self, parameter: Tensor) -> Dict[str, Tensor]:
        state = self.state[parameter]
        precise = _precise(parameter.dtype)
        if not state:
            state["step"] = _count(parameter, 0)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=precise)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=precise)
        if parameter.dtype in HALF and "master" not in state:
            state["master"] = parameter.detach().to(precise)
        return state

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load a state in the precision in which it was saved.

        A half-precision parameter without a saved master starts from its own value.
        """
        super().load_state_dict(state_dict)
        # PyTorch has cast moments and masters to the precision of the parameters, and left steps on
        # the device they were read to.
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for number, parameter in zip(numbers, self._parameters()):
            saved = state_dict["state"].get(number)
            if saved:
                steps = float(saved["step"])
                self.state[parameter] = {"step": _count(parameter, steps)}
                names = ["exp_avg", "exp_avg_sq"]
                names += ["master"] if parameter.dtype in HALF and "master" in saved else []
                for name in names:
                    # The saved tensor may have another memory layout.
                    value = torch.empty_like(parameter, dtype=_precise(parameter.dtype))
                    self.state[parameter][name] = value.copy_(saved[name])


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype


def _count(parameter: Tensor, steps: float) -> Tensor:
    """Return a number of steps on the device that the fused update needs."""
    return torch.tensor(
        steps, dtype=torch.float32, device=parameter.device if parameter.is_cuda else None
    )


@cache
def _has_fused_step(device_type: str) -> bool:
    """Whether this PyTorch has a fused step there (on the CPU since 2.4)."""
    try:
        torch.optim.AdamW([torch.zeros(1, device=device_type, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True


@register_optimizer("eat_adamw", dataclass=EatAdamWConfig)
class EatAdamW(FairseqOptimizer):
    """AdamW with one parameter group per set of options of parameters.

    ``optim_overrides`` of a parameter (see ``models.param_groups``) may have an ``lr_scale``, a
    factor on the rate of any of fairseq's schedulers, and a ``weight_decay_scale``.
    """

    def __init__(self, cfg: EatAdamWConfig, params: Iterable[Tensor]) -> None:
        super().__init__(cfg)
        parameters = list(params)
        # With common.fp16 and bf16, not memory-efficient, these are fairseq's float32 copies of a
        # half-precision model; only they have gradients from the start. fairseq does not save the
        # copies and would resume from rounded weights.
        self._copies = parameters if all(p.grad is not None for p in parameters) else []
        self._optimizer = MixedPrecisionAdamW(self._make_groups(parameters), self.optimizer_config)
        self.set_lr(self.optimizer_config["lr"])

    def _make_groups(self, params: Iterable[Tensor]) -> List[Dict[str, Any]]:
        groups: Dict[Tuple[float, float], Dict[str, Any]] = {}
        for parameter in params:
            options = getattr(parameter, "optim_overrides", None) or {}
            overrides = options.get("optimizer", {})
            # fairseq's composite optimizer sets this name, and has scaled the rate already.
            lr_scale = 1.0 if "group_name" in options else float(overrides.get("lr_scale", 1.0))
            decay_scale = 1.0
            if self.cfg.apply_weight_decay_scale:
                decay_scale = float(overrides.get("weight_decay_scale", 1.0))
            decay = self.cfg.weight_decay * decay_scale
            group = {"params": [], "lr_scale": lr_scale, "weight_decay": decay}
            groups.setdefault((lr_scale, decay_scale), group)["params"].append(parameter)
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
        """Return the state, with fairseq's float32 copies as ``copies``."""
        state = super().state_dict()
        if self._copies:
            state["copies"] = [copy.detach() for copy in self._copies]
        return state

    def load_state_dict(
        self, state_dict: Dict[str, Any], optimizer_overrides: Optional[Dict[str, Any]] = None
    ) -> None:
        """Load a state; options are those of this run, changed by ``optimizer_overrides``.

        Raises:
            ValueError: if another optimizer wrote the state, or for other groups of parameters.
        """
        groups = state_dict.get("param_groups", [{}])
        if not all("lr_scale" in group for group in groups):
            raise ValueError(
                "the checkpoint holds the state of another optimizer than eat_adamw; set "
                "checkpoint.reset_optimizer=true to start a new one, or optimizer=... to resume "
                "with that optimizer"
            )
        own = self._optimizer.param_groups
        if len(groups) != len(own):
            raise ValueError(
                f"the checkpoint's optimizer has {len(groups)} groups of parameters, this run "
                f"{len(own)}: resume with the same model.layer_decay and "
                "optimizer.apply_weight_decay_scale, or set checkpoint.reset_optimizer=true"
            )
        options = [{name: group[name] for name in OPTIONS} for group in own]
        super().load_state_dict(state_dict)
        for group, given in zip(self._optimizer.param_groups, options):
            group.update(given, **(optimizer_overrides or {}))  # PyTorch keeps those of the file
        for copy, saved in zip(self._copies, state_dict.get("copies", [])):
            copy.data.copy_(saved)

    def clip_grad_norm(
        self,
        max_norm: float,
        aggregate_norm_fn: Optional[Callable[[Tensor], Tensor]] = None,
    ) -> Tensor:
        """Clip the norm of all gradients like ``fairseq.utils.clip_grad_norm_``, in few operations.

        ``max_norm`` 0 is no limit; ``aggregate_norm_fn`` turns the norm of this rank into that of
        all. The result is the norm before clipping, a tensor of one number on the host: fairseq
        looks at it twice in each update, and each would wait for the GPU.
        """
        parameters = [p for p in self.params if p.grad is not None]
        if not parameters:
            return super().clip_grad_norm(max_norm, aggregate_norm_fn)
        grads = [p.grad.detach() for p in parameters]
        norms = torch._foreach_norm(in_float32(grads, like=parameters))
        norm = torch.stack(norms).norm()
        if aggregate_norm_fn is not None:
            norm = aggregate_norm_fn(norm)
        if max_norm > 0:
            torch._foreach_mul_(grads, (float(max_norm) / (norm + 1e-6)).clamp_(max=1))
        return norm.cpu()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, times each group's scale."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        """Return the learning rate of a scale of 1."""
        group = max(self.param_groups, key=lambda group: group["lr_scale"])
        return group["lr"] / group["lr_scale"]
