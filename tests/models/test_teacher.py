"""The EMA teacher by hand arithmetic: steps, decay, precision, resume."""

import copy

import pytest
import torch

from benchmarks.counts import count_operations
from eat_plugin.models.teacher import annealed_decay


def move(model, amount):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(amount)


def test_teacher__starts_as_a_copy_of_the_student(make_model):
    model = make_model()
    state = model.state_dict()
    for name, average in state["_ema"].items():
        assert torch.equal(average, state[name])
        assert average.data_ptr() != state[name].data_ptr()
    assert not any("decoder" in name for name in state["_ema"])
    assert not model.teacher.module.training


def test_step__by_hand(make_model):
    model = make_model(ema_decay=0.9, ema_end_decay=0.8, ema_anneal_end_step=4).train()
    name = "blocks.0.mlp.fc1.weight"
    start = model.state_dict()[name].clone()
    model.set_num_updates(0)
    move(model, 1.0)
    assert torch.equal(model.teacher.averages[name], start)
    model.set_num_updates(1)  # decay 0.875
    assert torch.allclose(model.teacher.averages[name], start + 0.125, atol=1e-12)
    move(model, 1.0)
    model.set_num_updates(2)  # decay 0.85
    assert torch.allclose(model.teacher.averages[name], start + 0.85 * 0.125 + 0.15 * 2, atol=1e-12)
    assert model.teacher.decay == pytest.approx(0.85)


def test_step__once_per_update_and_only_in_training(make_model):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    name = "blocks.1.norm2.bias"
    move(model, 1.0)
    model.eval().set_num_updates(1)
    assert not model.teacher.averages[name].any()
    model.train()
    for _ in range(3):
        model.set_num_updates(1)
    assert model.teacher.averages[name].tolist() == pytest.approx([0.5] * 32)


def test_step__averages_everything_but_positions(make_model):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    before = copy.deepcopy(model.state_dict()["_ema"])
    move(model, 1.0)
    model.set_num_updates(1)
    for name, average in model.state_dict()["_ema"].items():
        shift = 0.0 if name.endswith("positions") else 0.5
        assert torch.allclose(average, before[name] + shift, atol=1e-12), name


def test_annealed_decay__is_linear_then_constant(make_model):
    cfg = make_model(ema_decay=0.9998, ema_end_decay=0.99999, ema_anneal_end_step=100).cfg
    assert annealed_decay(cfg, 0) == pytest.approx(0.9998)
    assert annealed_decay(cfg, 50) == pytest.approx(0.999895)
    assert annealed_decay(cfg, 100) == annealed_decay(cfg, 10**9) == 0.99999


def test_teacher__does_not_change_at_decay_1(make_model):
    model = make_model(ema_decay=1.0, ema_end_decay=1.0).train()
    before = copy.deepcopy(model.state_dict()["_ema"])
    move(model, 1.0)
    model.set_num_updates(1)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict()["_ema"].items())


@pytest.mark.parametrize("same_dtype", [True, False])
def test_precision__averages_stay_float32(make_model, batch, same_dtype):
    model = make_model(ema_decay=0.999, ema_end_decay=0.999, ema_same_dtype=same_dtype)
    model = model.float().to(torch.bfloat16).train()
    name = "blocks.0.attn.qkv.weight"
    weights = dict(model.teacher.module.named_parameters())[name]
    assert weights.dtype == (torch.bfloat16 if same_dtype else torch.float32)
    start = model.teacher.averages[name].clone()
    assert start.dtype == torch.float32
    move(model, 0.125)
    model.set_num_updates(1)
    new = model.state_dict()[name].float()
    expected = 0.999 * start + 0.001 * new
    assert torch.allclose(model.teacher.averages[name], expected, atol=1e-8)
    assert not torch.equal(model.teacher.averages[name], start)
    assert torch.equal(weights.data, model.teacher.averages[name].to(weights.dtype))
    output = model(batch["source"].to(torch.bfloat16), precomputed_mask=batch["precomputed_mask"])
    assert output["losses"]["regression"].isfinite().all()


def test_step__skips_frozen_parameters(make_model):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    move(model, 1.0)
    model.set_num_updates(1)
    model.blocks[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict()["_ema"])
    move(model.blocks[1], 1.0)
    model.set_num_updates(2)
    for name, average in model.state_dict()["_ema"].items():
        shift = {"blocks.0": 0.0, "blocks.1": 0.75}.get(name[:8], 0.25)
        if not name.endswith("positions"):
            assert torch.allclose(average, before[name] + shift, atol=1e-12), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_step__of_a_deep_copy_does_not_change_the_original(make_model, dtype):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).to(dtype).train()
    model.set_num_updates(1)
    other, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    move(other, 1.0)
    other.set_num_updates(2)
    assert all(torch.equal(before["_ema"][k], v) for k, v in model.state_dict()["_ema"].items())
    weights = dict(other.teacher.module.named_parameters())
    for name, average in other.teacher.averages.items():
        assert torch.equal(weights[name], average.to(dtype)), name
        assert name.endswith("positions") or not torch.equal(average, before["_ema"][name]), name


def test_step__number_of_operations_does_not_grow_with_depth(make_model):
    counts = []
    for depth in (2, 4):
        model = make_model(depth=depth).to(torch.bfloat16).train()
        counts.append(count_operations(lambda model=model: model.set_num_updates(1)))
    assert counts[0] == counts[1] <= 6


def test_norms__are_those_of_the_averaged_parameters(make_model, batch):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    assert "model_norm" not in model(**batch)
    move(model, 0.1)
    model.set_num_updates(1)
    output, state = model(**batch), model.state_dict()

    def norm(tensors):
        kept = [tensors[k] for k in state["_ema"] if not k.endswith("positions")]
        return torch.cat([t.flatten() for t in kept]).norm().item()

    assert output["model_norm"].item() == pytest.approx(norm(state))
    assert output["ema_norm"].item() == pytest.approx(norm(state["_ema"]))
    silent = make_model(log_norms=False).train()
    silent.set_num_updates(1)
    assert not {"model_norm", "ema_norm"} & silent(**batch).keys()


def test_encoder_only__averages_blocks_only(make_model):
    model = make_model(ema_encoder_only=True, ema_decay=0.5, ema_end_decay=0.5).train()
    names = set(model.state_dict()["_ema"])
    assert names == {name for name, _ in model.blocks.named_parameters()}
    move(model, 1.0)
    model.set_num_updates(1)
    assert model.teacher.averages["0.norm1.bias"].tolist() == pytest.approx([0.5] * 32)


def test_encoder_only__shares_all_else(make_model, batch):
    """Its final norm too, and in a precision of its own."""
    options = {"ema_encoder_only": True, "layer_norm_first": True, "cls_target": "cls"}
    model = make_model(**options, ema_same_dtype=False).train().bfloat16()
    model.set_num_updates(0)
    before = make_targets(model, batch)
    with torch.no_grad():
        model.norm.weight[::2] = 0
    patches, clips = make_targets(model, batch)
    assert torch.equal(patches, before[0])
    assert not torch.equal(clips, before[1])
    assert next(model.teacher.module.parameters()).dtype == torch.float32


def make_targets(model, batch):
    return model.teacher.make_targets(model, batch["source"].bfloat16(), None)


def test_shared_local_encoder__is_not_averaged(make_model):
    model = make_model(modalities__image__ema_local_encoder=False)
    assert not any("local_encoder" in name for name in model.state_dict()["_ema"])


def test_load__takes_the_pending_step_on_resume(make_model):
    """A checkpoint of N updates has N - 1 steps; resuming takes the N-th."""
    straight = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    for update in range(3):
        straight.set_num_updates(update)
        move(straight, 1.0)
    checkpoint = copy.deepcopy(straight.state_dict())
    resumed = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    resumed.set_num_updates(3)  # fairseq's trainer announces updates before it loads weights
    resumed.load_state_dict(checkpoint)
    for model in (straight, resumed):
        model.set_num_updates(3)
        model.set_num_updates(3)
    for name, average in straight.state_dict()["_ema"].items():
        assert torch.equal(average, resumed.state_dict()["_ema"][name])
        if not name.endswith("positions"):
            assert not torch.equal(average, checkpoint["_ema"][name])


def test_load__a_new_run_from_a_checkpoint_counts_from_0(make_model):
    model = make_model(ema_decay=0.5, ema_end_decay=0.5).train()
    model.set_num_updates(100)
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    name = "blocks.0.norm1.bias"
    before = model.teacher.averages[name].clone()
    model.set_num_updates(0)
    assert torch.equal(model.teacher.averages[name], before)
    move(model, 1.0)
    model.set_num_updates(1)
    assert torch.allclose(model.teacher.averages[name], before + 0.5)


def test_load__refuses_another_teacher(make_model):
    model = make_model()
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"no teacher"):
        model.load_state_dict({k: v for k, v in state.items() if k != "_ema"})
    lacking = {k: v for k, v in state["_ema"].items() if k != "blocks.0.norm1.bias"}
    with pytest.raises(ValueError, match=r"norm1.bias' of shape None"):
        model.load_state_dict({**state, "_ema": lacking})
    with pytest.raises(ValueError, match=r"'more' of shape \[1\], the model's of None"):
        model.load_state_dict({**state, "_ema": {**state["_ema"], "more": torch.zeros(1)}})
    other = {**state["_ema"], "blocks.0.norm1.bias": torch.zeros(5)}
    with pytest.raises(ValueError, match=r"shape \[5\], the model.s of \[32\]"):
        model.load_state_dict({**state, "_ema": other})
