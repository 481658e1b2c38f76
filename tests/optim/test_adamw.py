"""The optimizer ``eat_adamw``: against PyTorch's, with every precision and every scheduler."""

import copy
from argparse import Namespace

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim import AMPOptimizer, FP16Optimizer, MemoryEfficientFP16Optimizer
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY, build_lr_scheduler
from omegaconf import OmegaConf, open_dict

from eat_plugin.optim.adamw import EatAdamW, EatAdamWConfig


def make_config(**options):
    cfg = OmegaConf.structured(EatAdamWConfig())
    cfg.lr = [0.1]
    return OmegaConf.merge(cfg, options)


def make_parameters(dtype=torch.float32):
    torch.manual_seed(0)
    weight, bias = (torch.nn.Parameter(torch.randn(*s).to(dtype)) for s in ((3, 4), (3,)))
    bias.optim_overrides = {"optimizer": {"weight_decay_scale": 0, "lr_scale": 0.5}}
    return [weight, bias]


def set_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        grad = torch.randn(parameter.shape, generator=generator)
        parameter.grad = grad.to(parameter.dtype)


@pytest.mark.parametrize("apply_scale", [False, True])
def test_step__equals_torch_adamw(apply_scale):
    ours, theirs = make_parameters(), make_parameters()
    optimizer = EatAdamW(make_config(apply_weight_decay_scale=apply_scale), ours)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs[0]], "lr": 0.1, "weight_decay": 0.05},
            {"params": [theirs[1]], "lr": 0.05, "weight_decay": 0.0 if apply_scale else 0.05},
        ],
        betas=(0.9, 0.95), eps=1e-8,
    )
    for seed in range(4):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, atol=1e-7)


def test_step__by_hand():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = EatAdamW(make_config(weight_decay=0.5), [parameter])
    parameter.grad = torch.tensor([3.0])
    optimizer.step()
    # decay: 2 * (1 - 0.1 * 0.5); the first Adam step has length lr, against the gradient.
    assert parameter.item() == pytest.approx(1.9 - 0.1, abs=1e-6)


def test_step__half_precision_computes_in_float32():
    half, exact = make_parameters(torch.bfloat16), make_parameters(torch.bfloat16)
    exact = [torch.nn.Parameter(p.detach().float()) for p in exact]
    exact[1].optim_overrides = half[1].optim_overrides
    optimizers = [EatAdamW(make_config(), parameters) for parameters in (half, exact)]
    for parameters in (half, exact):
        generator = torch.Generator().manual_seed(0)
        for parameter in parameters:
            grad = torch.randn(parameter.shape, generator=generator).to(torch.bfloat16)
            parameter.grad = grad.to(parameter.dtype)
    for optimizer in optimizers:
        optimizer.step()
    for a, b in zip(half, exact):
        assert torch.equal(a.float(), b.to(torch.bfloat16).float())
        assert optimizers[0].optimizer.state[a]["exp_avg"].dtype == torch.float32


def test_step__skips_parameters_without_gradient():
    parameters = make_parameters()
    before = parameters[1].clone()
    optimizer = EatAdamW(make_config(), parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    assert torch.equal(parameters[1], before)


def test_lr__scales_apply_to_whatever_is_set():
    optimizer = EatAdamW(make_config(), make_parameters())
    optimizer.set_lr(0.4)
    assert optimizer.get_lr() == 0.4
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.2]


def test_state__round_trips_bit_for_bit():
    first, second = make_parameters(), make_parameters()
    one, two = EatAdamW(make_config(), first), EatAdamW(make_config(), second)
    for seed in range(2):
        set_gradients(first, seed)
        one.step()
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for a, b in zip(first, second):
        b.data.copy_(a.data)
    for parameters, optimizer in ((first, one), (second, two)):
        set_gradients(parameters, 9)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second))


SCHEDULERS = {
    "cosine": {"warmup_updates": 2, "max_update": 10},
    "fixed": {"warmup_updates": 2},
    "inverse_sqrt": {"warmup_updates": 2, "warmup_init_lr": 0.05},
    "manual": Namespace(epoch2lr="{'1-9': 0.2}", update2lr="{'2-9': 0.3}", lr=[0.2]),
    "polynomial_decay": {"warmup_updates": 2, "total_num_update": 10},
    "reduce_lr_on_plateau": {"lr_shrink": 0.5, "lr_patience": 0},
    "step": {"warmup_updates": 2},
    "tri_stage": {"max_update": 10, "phase_ratio": [0.1, 0.4, 0.5]},
    "triangular": {"max_lr": 0.4, "lr_period_updates": 4},
}


def test_schedulers__none_is_forgotten():
    assert set(SCHEDULERS) == set(LR_SCHEDULER_REGISTRY) - {"pass_through"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers__every_one_of_fairseq_drives_it(name):
    optimizer = EatAdamW(make_config(), make_parameters())
    options = SCHEDULERS[name]
    if isinstance(options, dict):
        options = {"_name": name, "lr": [0.2], **options}
        if name == "reduce_lr_on_plateau":
            options["maximize_best_checkpoint_metric"] = False
        scheduler = build_lr_scheduler(OmegaConf.create(options), optimizer)
    else:
        scheduler = LR_SCHEDULER_REGISTRY[name](options, optimizer)
    scheduler.step_begin_epoch(1)
    for update in range(1, 6):
        scheduler.step_update(update)
        scheduler.step(update, val_loss=1.0)
        lr = optimizer.get_lr()
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr / 2])
        assert lr > 0


PRECISIONS = {
    "bf16": (FP16Optimizer, torch.bfloat16, {"bf16": True}),
    "memory_efficient_bf16": (
        MemoryEfficientFP16Optimizer, torch.bfloat16, {"bf16": True, "memory_efficient_bf16": True},
    ),
    "fp16": (FP16Optimizer, torch.float16, {"fp16": True}),
    "memory_efficient_fp16": (
        MemoryEfficientFP16Optimizer, torch.float16, {"fp16": True, "memory_efficient_fp16": True},
    ),
    "amp": (AMPOptimizer, torch.float32, {"amp": True}),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision__every_mode_of_fairseq_moves_the_parameters(precision):
    wrapper, dtype, flags = PRECISIONS[precision]
    cfg = OmegaConf.structured(FairseqConfig())
    with open_dict(cfg):
        cfg.optimizer = OmegaConf.merge(make_config(), {"_name": "eat_adamw"})
        cfg.common.update({"fp16_no_flatten_grads": True, **flags})
    parameters = make_parameters(dtype)
    before = [p.detach().clone() for p in parameters]
    optimizer = wrapper.build_optimizer(cfg, parameters)
    for _ in range(2):
        optimizer.zero_grad()
        loss = sum((p.float() ** 2).sum() for p in parameters)
        optimizer.backward(loss)
        optimizer.multiply_grads(0.5)
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
    for parameter, start in zip(parameters, before):
        assert parameter.isfinite().all()
        assert parameter.float().norm() < start.float().norm()
        assert not torch.equal(parameter, start)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    moments = [s["exp_avg"].dtype for s in optimizer.optimizer.state.values()]
    assert moments == [torch.float32, torch.float32]
