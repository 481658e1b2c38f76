"""Pre-training by a CUDA graph, on the CPU: the same losses, gradients and weights."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from eat_plugin.modules.replay import CALLS_BEFORE
from eat_plugin.tasks.not_finite import NotFinite
from tests.forked import Forked
from tests.models.conftest import GOLDEN, MICRO, build
from tests.recording import allow_on_cpu, memory_of

BATCH = ("source", "precomputed_mask")
RECIPES = {
    "eat": {},
    "dropout": {
        "encoder_dropout": 0.1, "post_mlp_drop": 0.1, "activation_dropout": 0.1,
        "end_drop_path_rate": 0.2, "modalities__image__decoder__input_dropout": 0.1,
    },
    "pre_norm": {"layer_norm_first": True, "ema_encoder_only": True},
    "reconstruction": {"recon_loss": 1.0, "modalities__image__decoder__add_positions_masked": True},
    "whole_clips": {"utterance_level": True, "cls_loss": 1.0, "d2v_loss": 0.0},
    "dino": {"dino_loss": 1.0, "dino_prototypes": 8, "cls_target": "layers"},
    "other_target": {"recompute": "gelu"},
    "mixtures": {"retention_loss": 1.0, "recompute": "blocks"},
    "bat": {
        "attention_gate": True, "end_of_block_targets": True, "loss_average": "elements",
        "modalities__image__decoder__decoder_kind": "vit", "recompute": "gelu",
        "modalities__image__decoder__hidden_share": 0.5,
    },
}  # fmt: skip


def batches(batch, number, has_target=False):
    """Different clips under different masks, each with a seed per clip; others for the teacher."""
    for i in range(number):
        generator = torch.Generator().manual_seed(i)
        masks = batch["precomputed_mask"]
        order = torch.randperm(masks.size(1), generator=generator)
        shape = (1 + has_target, *batch["source"].shape)
        source, *target = torch.randn(shape, dtype=torch.float64, generator=generator)
        yield {
            "source": source,
            "target": target[0] if has_target else None,
            "precomputed_mask": masks[:, order],
            "num_visible": 12,
            "noise_seed": [2 * i, 2 * i + 1],
        }


def train(model, given):
    """Return losses, statistics and gradients of updates, and the weights after them."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    torch.manual_seed(5)
    found = []
    for update, batch in enumerate(given):
        model.set_num_updates(update)
        output = model(**batch)
        losses = [loss.sum() for loss in output["losses"].values()]
        optimizer.zero_grad()
        sum(losses).backward()
        found += [*losses, output["target_var"], output.get("pred_var", torch.zeros(()))]
        found += [p.grad for p in model.parameters() if p.grad is not None]
        optimizer.step()
    return [x.detach().clone() for x in [*found, *model.parameters()]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_updates__are_the_same(make_model, batch, recordings, recipe):
    given = list(batches(batch, 8, recipe == "other_target"))
    expected = train(make_model(**RECIPES[recipe]), given)
    assert not recordings
    model = make_model(cuda_graph=True, **RECIPES[recipe])
    found = train(model, given)
    assert [r.plays for r in recordings] == [9 - CALLS_BEFORE] * 2
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize("recipe", RECIPES)
def test_graph__reads_weights_and_inputs_alone(make_model, batch, recordings, recipe):
    model = make_model(cuda_graph=True, **RECIPES[recipe])
    train(model, batches(batch, CALLS_BEFORE + 1, recipe == "other_target"))
    forward, _ = recordings
    weights = [*model.parameters(), *model.buffers(), *model.teacher.encoder.parameters()]
    others = {memory_of(x) for x in forward.read} - {memory_of(x) for x in weights}
    inputs = {memory_of(x) for x in model.replayed._recording._inputs if x is not None}
    assert others <= inputs


def test_graph__has_the_teachers_steps(make_model, batch, recordings):
    model = make_model(cuda_graph=True, ema_decay=0.0, ema_end_decay=0.0)
    given = list(batches(batch, 1)) * (CALLS_BEFORE + 3)
    losses = np.array([float(x) for x in train(model, given) if x.dim() == 0])
    assert recordings[0].plays > 1
    assert len(set(losses)) > CALLS_BEFORE + 3


def test_graph__is_recorded_again_for_a_teacher_elsewhere(make_model, batch, recordings):
    found = []
    for cuda_graph in (False, True):
        model = make_model(cuda_graph=cuda_graph)
        train(model, batches(batch, CALLS_BEFORE + 1))
        for weight in model.teacher.encoder.parameters():
            weight.data = weight.data + 1
        found.append(train(model, batches(batch, 2)))
    assert len(recordings) == 4
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_not_finite__looks_into_the_graph(make_model, batch, recordings):
    model = make_model(cuda_graph=True)
    train(model, batches(batch, CALLS_BEFORE + 1))
    model.blocks[0].mlp.fc2.weight.data.fill_(1e308)
    plays = recordings[0].plays
    (one,) = batches(batch, 1)
    with NotFinite(model, task=None, samples=[]) as watch:
        model(**one)
    assert watch.found.startswith("the output of blocks.0.mlp.fc2 is not finite")
    model(**one)
    assert recordings[0].plays == plays + 1


def test_clips_of_different_length__run_without(make_model, batch, recordings):
    padding = torch.zeros(2, 64, dtype=torch.bool)
    padding[1, 32:] = True
    given = [{**one, "padding_mask": padding, "num_visible": None} for one in batches(batch, 6)]
    expected = train(make_model(), given)
    found = train(make_model(cuda_graph=True), given)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
    assert not recordings


def test_validation__runs_without(make_model, batch, recordings):
    model = make_model(cuda_graph=True).eval()
    for one in batches(batch, 6):
        model(**one)
    assert not recordings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layerdrop": 0.1}, "model.layerdrop is 0.1; with model.cuda_graph=true"),
        (
            {"recompute": "gelu", "activation_dropout": 0.1},
            "model.activation_dropout is 0.1; model.cuda_graph=true and model.recompute=gelu",
        ),
        ({"recompute": "blocks", "encoder_dropout": 0.1}, "model.encoder_dropout is 0.1"),
    ],
)
def test_options__that_a_graph_cannot_follow(make_model, changes, message):
    make_model(**changes)
    with pytest.raises(ValueError, match=message):
        make_model(cuda_graph=True, **changes)


def train_in_parallel(rank, store):
    """Two models, one with a graph, see the same batches of this process; return both."""
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    models = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        model = build(MICRO, cuda_graph=cuda_graph, dino_loss=1.0, cls_target="layers").double()
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        golden = np.load(GOLDEN / "pretraining_micro.npz")
        batch = {name: torch.from_numpy(golden[f"batch/{name}"]) for name in BATCH}
        for update, one in enumerate(list(batches(batch, 16))[rank::2]):
            model.set_num_updates(update // 2)
            with contextlib.nullcontext() if update % 2 else parallel.no_sync():  # update_freq=2
                sum(loss.sum() for loss in parallel(**one)["losses"].values()).backward()
            if update % 2:
                optimizer.step()
                optimizer.zero_grad()
        models.append(model)
    dist.barrier()
    # Else it owns the group last, and Python, while it frees both, waits for a thread of gloo that
    # waits for Python (PyTorch 2.13).
    del parallel
    dist.destroy_process_group()
    return models


def main():
    rank, folder = sys.argv[1:]
    torch.set_num_threads(1)
    made = allow_on_cpu(pytest.MonkeyPatch())
    plain, graphed = train_in_parallel(int(rank), Path(folder, "store"))
    assert [recording.plays for recording in made] == [9 - CALLS_BEFORE] * 2
    for one, other in zip(plain.parameters(), graphed.parameters()):
        assert torch.equal(one, other)
    torch.save(graphed.state_dict(), Path(folder) / f"{rank}.pt")


def test_two_processes__are_the_same(tmp_path):
    processes = [Forked(f"{__name__}:main", [rank, tmp_path], tmp_path) for rank in "01"]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in "01")
    for name, weight in first.items():
        if name != "_ema":
            assert torch.equal(weight, second[name]), name
