"""The optimizer ``eat_adamw``: against PyTorch's, with every precision and every scheduler."""

import copy
from argparse import Namespace

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim import AMPOptimizer, FP16Optimizer, MemoryEfficientFP16Optimizer
from fairseq.optim.composite import FairseqCompositeOptimizer
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY, build_lr_scheduler
from fairseq.utils import clip_grad_norm_
from omegaconf import OmegaConf, open_dict

from eat_plugin.optim.adamw import EatAdamW, EatAdamWConfig
from tests.versions import fairseq_main


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
        betas=(0.9, 0.95),
        eps=1e-8,
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


def test_step__small_updates_add_up_in_half_precision():
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = EatAdamW(make_config(lr=[1e-3], weight_decay=0.0), [parameter])
    for _ in range(10):  # each step has length lr, half of what moves a bfloat16 of 1
        parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    master = optimizer.optimizer.state[parameter]["master"]
    assert master.item() == pytest.approx(0.99, abs=1e-6)
    assert parameter.item() == torch.tensor(0.99, dtype=torch.bfloat16).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_step__half_precision_computes_in_float32(dtype):
    half = make_parameters(dtype)
    exact = [torch.nn.Parameter(p.detach().float()) for p in half]
    exact[1].optim_overrides = half[1].optim_overrides
    optimizers = [EatAdamW(make_config(), parameters) for parameters in (half, exact)]
    for seed in range(4):
        set_gradients(half, seed)
        for a, b in zip(half, exact):
            b.grad = a.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(half, exact):
        mine, its = (o.optimizer.state[p] for o, p in zip(optimizers, (a, b)))
        assert torch.equal(mine.pop("master"), b)
        assert torch.equal(a, b.to(dtype))
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[key], its[key]) for key in its)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [8.0, torch.tensor(8.0), torch.tensor(8.0, dtype=torch.float64)])
def test_step__divides_gradients_by_the_scale(dtype, scale):
    scaled, plain = make_parameters(dtype), make_parameters(dtype)
    optimizers = [EatAdamW(make_config(), parameters) for parameters in (scaled, plain)]
    for seed in range(2):
        set_gradients(scaled, seed)
        set_gradients(plain, seed)
        for parameter in scaled:
            parameter.grad *= 8
        optimizers[0].optimizer.step(scale=scale)
        optimizers[1].optimizer.step()
    for a, b in zip(scaled, plain):
        assert torch.equal(a, b)
        moments = [o.optimizer.state[p]["exp_avg"] for o, p in zip(optimizers, (a, b))]
        assert torch.equal(*moments)


def test_step__scaled_half_precision_gradients_do_not_vanish():
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float16))
    optimizer = EatAdamW(make_config(), [parameter])
    assert optimizer.supports_step_with_scale
    parameter.grad = torch.tensor([2.0**-10], dtype=torch.float16)
    optimizer.step(scale=2.0**20)  # the smallest float16 is 2 ** -24
    assert optimizer.optimizer.state[parameter]["exp_avg"].item() == pytest.approx(0.1 * 2.0**-30)


def test_step__any_memory_layout():
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        weight, grad = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
        parameter = torch.nn.Parameter(weight.bfloat16().to(memory_format=layout))
        optimizer = EatAdamW(make_config(), [parameter])
        for _ in range(2):
            parameter.grad = grad.bfloat16()
            optimizer.step()
            optimizer.load_state_dict(
                {
                    **optimizer.state_dict(),
                    "state": {
                        number: {key: value.contiguous() for key, value in state.items()}
                        for number, state in optimizer.state_dict()["state"].items()
                    },
                }
            )
        results.append(parameter)
    assert torch.equal(*results)


def test_step__skips_parameters_without_gradient():
    parameters = make_parameters()
    before = parameters[1].clone()
    optimizer = EatAdamW(make_config(), parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    assert torch.equal(parameters[1], before)


def test_lr__is_scaled_per_group():
    optimizer = EatAdamW(make_config(), make_parameters())
    optimizer.set_lr(0.4)
    assert optimizer.get_lr() == 0.4
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.2]


def test_lr__is_scaled_once_in_the_composite_optimizer():
    parameters = make_parameters()
    schedule = {"_name": "fixed", "warmup_updates": 0, "force_anneal": None, "lr_shrink": 0.1}
    group = {
        "lr_float": 0.1,
        "optimizer": {**make_config(), "_name": "eat_adamw"},
        "lr_scheduler": {**schedule, "lr": [0.1]},
    }
    cfg = OmegaConf.create({"groups": {"default": group}, "dynamic_groups": True})
    optimizer = FairseqCompositeOptimizer(cfg, parameters)
    optimizer.lr_scheduler.step_begin_epoch(1)
    rates = {g["params"][0]: g["lr"] for g in optimizer.param_groups}
    assert [rates[p] for p in parameters] == pytest.approx([0.1, 0.05])


@pytest.mark.parametrize(
    "state",
    [
        {"default": {"state": {}, "param_groups": []}},  # of fairseq's composite
        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).state_dict(),
    ],
)
def test_state__of_another_optimizer_is_refused(state):
    optimizer = EatAdamW(make_config(), make_parameters())
    with pytest.raises(ValueError, match=r"another optimizer .* checkpoint.reset_optimizer=true"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_state__round_trips_bit_for_bit(dtype):
    first, second = make_parameters(dtype), make_parameters(dtype)
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
    for a, b in zip(first, second):
        assert torch.equal(a, b)
        states = one.optimizer.state[a], two.optimizer.state[b]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            assert value.dtype == states[1][key].dtype == torch.float32
            assert torch.equal(value, states[1][key])
            assert value.data_ptr() != states[1][key].data_ptr()


def test_state__options_are_those_of_the_run():
    one = EatAdamW(make_config(weight_decay=0.1), make_parameters())
    two = EatAdamW(make_config(weight_decay=0.2, adam_betas=[0.8, 0.9]), make_parameters())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert {group["betas"] for group in two.param_groups} == {(0.8, 0.9)}
    assert max(group["weight_decay"] for group in two.param_groups) == 0.2
    two.load_state_dict(copy.deepcopy(one.state_dict()), {"weight_decay": 0.3})
    assert {group["weight_decay"] for group in two.param_groups} == {0.3}
    other = EatAdamW(make_config(), [torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="has 2 groups of parameters, this run 1: resume with the"):
        other.load_state_dict(copy.deepcopy(one.state_dict()))


def test_state__without_masters_starts_from_the_parameters():
    first, second = make_parameters(torch.bfloat16), make_parameters(torch.bfloat16)
    one, two = EatAdamW(make_config(), first), EatAdamW(make_config(), second)
    set_gradients(first, 0)
    one.step()
    state = copy.deepcopy(one.state_dict())
    for saved in state["state"].values():
        del saved["master"]
    two.load_state_dict(state)
    for a, b in zip(first, second):
        b.data.copy_(a.data)
        b.grad = torch.zeros_like(b)
    two.optimizer.param_groups[0]["lr"] = two.optimizer.param_groups[1]["lr"] = 0.0
    two.step()
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert all(torch.equal(two.optimizer.state[p]["master"], p.float()) for p in second)


@pytest.mark.parametrize("max_norm", [0, 0.5, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_clip_grad_norm__equals_fairseqs(dtype, max_norm):
    ours, theirs = make_parameters(dtype), make_parameters(dtype)
    set_gradients(ours, 0)
    set_gradients(theirs, 0)
    norms = []

    def aggregate(norm):
        norms.append(norm)
        return norm * 2

    optimizer = EatAdamW(make_config(), ours)
    norm = optimizer.clip_grad_norm(max_norm, aggregate)
    expected = clip_grad_norm_(theirs, max_norm, aggregate)
    assert (norm.shape, norm.dtype) == ((), torch.float32)
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-6, atol=0)
    for a, b in zip(ours, theirs):
        assert a.grad.dtype == dtype
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)
    clipped = torch.cat([p.grad.flatten() for p in ours]).float().norm().item()
    assert clipped == pytest.approx(0.25 if max_norm == 0.5 else norm.item() / 2, rel=1e-2)


def test_clip_grad_norm__by_hand():
    parameters = make_parameters()
    optimizer = EatAdamW(make_config(), parameters)
    assert optimizer.clip_grad_norm(1.0).item() == 0  # no gradients
    parameters[1].grad = torch.tensor([2.0, 3.0, 6.0])
    assert optimizer.clip_grad_norm(3.5).item() == 7
    assert parameters[1].grad.tolist() == pytest.approx([1.0, 1.5, 3.0])


def test_clip_grad_norm__float64_stays_float64():
    parameters = make_parameters(torch.float64)
    set_gradients(parameters, 0)
    grads = torch.cat([p.grad.flatten() for p in parameters])
    norm = EatAdamW(make_config(), parameters).clip_grad_norm(0.5)
    torch.testing.assert_close(norm, grads.norm(), rtol=1e-12, atol=0)
    clipped = torch.cat([p.grad.flatten() for p in parameters])
    torch.testing.assert_close(clipped, grads * 0.5 / (norm + 1e-6), rtol=1e-12, atol=0)


def test_clip_grad_norm__of_large_float16_gradients_is_finite():
    parameter = torch.nn.Parameter(torch.zeros(100, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 6e4)
    norm = EatAdamW(make_config(), [parameter]).clip_grad_norm(0)
    assert norm.item() == pytest.approx(6e5, rel=1e-3)  # the largest float16 is 65504


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


def test_schedulers__all_are_tested():
    assert set(SCHEDULERS) == set(LR_SCHEDULER_REGISTRY) - {"pass_through"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers__all_of_fairseq_set_the_rate(name):
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
        MemoryEfficientFP16Optimizer,
        torch.bfloat16,
        {"bf16": True, "memory_efficient_bf16": True},
    ),
    "fp16": (FP16Optimizer, torch.float16, {"fp16": True}),
    "memory_efficient_fp16": (
        MemoryEfficientFP16Optimizer,
        torch.float16,
        {"fp16": True, "memory_efficient_fp16": True},
    ),
    "amp": (AMPOptimizer, torch.float32, {"amp": True}),
}


def wrap(precision, parameters, **options):
    wrapper, _, flags = PRECISIONS[precision]
    cfg = OmegaConf.structured(FairseqConfig())
    with open_dict(cfg):
        cfg.optimizer = OmegaConf.merge(make_config(**options), {"_name": "eat_adamw"})
        cfg.common.update({"fp16_no_flatten_grads": True, **flags})
    return wrapper.build_optimizer(cfg, parameters)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision__all_modes_of_fairseq_train(precision):
    parameters = make_parameters(PRECISIONS[precision][1])
    before = [p.detach().clone() for p in parameters]
    optimizer = wrap(precision, parameters)
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


def run_updates(optimizer, parameters, clip_norm, seeds):
    """Take the steps of fairseq's trainer; return the norms."""
    norms = []
    for seed in seeds:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(seed)
        directions = [torch.randn(p.shape, generator=generator).to(p.dtype) for p in parameters]
        loss = sum((p * d).float().sum() for p, d in zip(parameters, directions))
        optimizer.backward(loss)
        optimizer.multiply_grads(1 / 48)
        norms.append(float(optimizer.clip_grad_norm(clip_norm)))
        optimizer.step()
    return norms


@fairseq_main
@pytest.mark.parametrize("clip_norm", [0.0, 0.03])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision__masters_equal_fairseqs_copies(precision, clip_norm):
    results = []
    for mode in (precision, f"memory_efficient_{precision}"):
        parameters = make_parameters(PRECISIONS[mode][1])
        optimizer = wrap(mode, parameters, lr=[1e-3])
        norms = run_updates(optimizer, parameters, clip_norm, range(20))
        assert clip_norm < min(norms)
        kept = [state.get("master", p) for p, state in optimizer.optimizer.state.items()]
        results.append((norms, kept, [p.detach() for p in parameters]))
    (norms, copies, first), (other_norms, masters, second) = results
    assert norms == pytest.approx(other_norms, rel=1e-6)
    start = make_parameters(PRECISIONS[precision][1])
    for copied, master, a, b, before in zip(copies, masters, first, second, start):
        torch.testing.assert_close(copied.detach(), master, rtol=0, atol=1e-6)
        assert (master - before.float()).abs().mean() > 0.001
        assert torch.equal(b, master.to(b.dtype))
        # A master halfway between two numbers may be rounded either way.
        torch.testing.assert_close(a, b, rtol=torch.finfo(a.dtype).eps, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "memory_efficient_bf16"])
def test_precision__resumes_bit_for_bit(precision):
    straight, resumed = make_parameters(torch.bfloat16), make_parameters(torch.bfloat16)
    one = wrap(precision, straight, lr=[1e-3])
    run_updates(one, straight, 0.03, range(5))
    for a, b in zip(straight, resumed):
        b.data.copy_(a.data)
    two = wrap(precision, resumed, lr=[1e-3])
    saved = copy.deepcopy(one.state_dict())
    two.load_state_dict(saved)
    for given, state in zip(saved["state"].values(), two.optimizer.state.values()):
        # fairseq would insert the loaded tensors, which are on the CPU.
        assert all(given[key] is not value for key, value in state.items())
    for optimizer, parameters in ((one, straight), (two, resumed)):
        run_updates(optimizer, parameters, 0.03, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed))
    states = [optimizer.optimizer.state.values() for optimizer in (one, two)]
    for a, b in zip(*states):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_precision__lr_scales_in_half_precision():
    parameters = make_parameters(torch.bfloat16)
    before = [p.detach().float() for p in parameters]
    optimizer = wrap("memory_efficient_bf16", parameters, weight_decay=0.0)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # each step has length lr times lr_scale
    moved = [optimizer.optimizer.state[p]["master"] - b for p, b in zip(parameters, before)]
    torch.testing.assert_close(moved[0], torch.full((3, 4), -0.1))
    torch.testing.assert_close(moved[1], torch.full((3,), -0.05))
