"""Updates through fairseq's trainer, and their plain form."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import trainer
from benchmarks.timing import Place, compare
from benchmarks.training import load_config
from eat_plugin.models import passes
from eat_plugin.modules.replay import CALLS_BEFORE
from tests.versions import half_on_cpu

SMALL = [
    "task.target_length=64", "model.depth=2", "model.embed_dim=64", "model.num_heads=1",
    "model.average_top_k_layers=2", "model.clone_batch=3",
    "model.modalities.image.decoder.decoder_dim=64",
]  # fmt: skip
CPU = torch.device("cpu")


class HalfPlace(Place):
    dtype = torch.bfloat16


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_training__first_losses_agree(size, tmp_path):
    case = trainer.training(size, 2, SMALL, rounds=3)(Place(tmp_path, CPU))
    assert case.what == f"train {size}: 2 x 3 clones of 1 s, float32"
    assert (case.clips, case.most_rounds, case.flops) == (2, 3, None)
    got = compare("x", case, 1, CPU)
    assert case.ours.first > 1
    assert got.difference < 1e-6


@half_on_cpu
def test_training__takes_half_precision(tmp_path):
    place = HalfPlace(tmp_path, CPU)
    case = trainer.training("base", 2, SMALL)(place)
    got = compare("x", case, 1, CPU)
    assert case.flops == 2 * trainer.update_flops(
        load_config("base", [*trainer.run_options(place, 2), *SMALL]).model, (4, 8)
    )
    assert 0 < got.difference < 1e-2


@pytest.fixture
def update(tmp_path):
    def make(kind=Place, *overrides):
        place = kind(tmp_path, CPU)
        options = [*trainer.run_options(place, 2), *SMALL, *overrides]
        cfg = load_config("base", options)
        task = trainer.tasks.setup_task(cfg.task)
        return trainer.TrainerUpdate(cfg, task, trainer.make_batch(cfg, task, tmp_path))

    return make


def test_trainer__trains(update):
    ours = update(Place, "lr_scheduler.warmup_updates=1", "optimization.lr=[0.005]")
    losses = [ours.step() for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    assert ours.trainer.get_num_updates() == 10
    assert ours.model.num_updates == 9  # set at the start of the last update
    assert ours.trainer.cfg.optimizer._name == "eat_adamw"


def test_trainer__out_of_memory_is_an_error(update, monkeypatch):
    ours = update()
    ours.step()

    def fail(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(passes, "encode_visible", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        ours.step()


@half_on_cpu
def test_trainer__has_the_precision_of_its_place(update):
    ours = update(HalfPlace)
    assert {p.dtype for p in ours.model.parameters()} == {torch.bfloat16}
    assert type(ours.trainer.optimizer).__name__ == "MemoryEfficientFP16Optimizer"


@pytest.mark.parametrize("kind", [Place, pytest.param(HalfPlace, marks=half_on_cpu)])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_trainer__is_the_same_by_a_cuda_graph(update, recordings, kind, micro_batches):
    batches = [update(kind, f"common.seed={seed}").batch for seed in range(8)]
    weights = []
    for cuda_graph in (False, True):
        ours = update(kind, f"model.cuda_graph={cuda_graph}", "optimization.lr=[0.01]")
        for i in range(0, 8, micro_batches):
            ours.trainer.train_step(batches[i : i + micro_batches], raise_oom=True)
        assert ours.trainer.get_num_updates() == 8 // micro_batches
        weights.append(list(ours.model.parameters()))
        assert len(recordings) == 2 * cuda_graph
    assert all(torch.equal(one, other) for one, other in zip(*weights))


def test_trainer__a_cuda_graph_that_is_not_in_use_is_an_error(update):
    ours = update(Place, "model.cuda_graph=true")
    for _ in range(CALLS_BEFORE):
        ours.step()
    with pytest.raises(RuntimeError, match="the CUDA graph is not in use"):
        ours.step()


@pytest.mark.parametrize("name", ["compile", "cuda_graph"])
@pytest.mark.parametrize("value", [False, True])
def test_trainer__compiles_and_records_on_request(tmp_path, name, value):
    options = trainer.run_options(Place(tmp_path, CPU, **{name: value}), 2)
    assert load_config("base", options).model[name] == value


def test_batch__equals_a_data_workers(update):
    batch = update().batch["net_input"]
    assert batch["source"].shape == (2, 1, 64, 128)
    masks = batch["precomputed_mask"]
    assert masks.shape == (6, 32)
    assert len({tuple(mask.tolist()) for mask in masks}) > 3
    assert set((masks == 0).sum(dim=1).tolist()) == {batch["num_visible"]}
    assert batch["noise_seed"] is not None


def test_config__equals_the_command_lines(tmp_path):
    cfg = load_config("base", ["task.data=/data"])
    assert (cfg.model.depth, cfg.model.clone_batch, cfg.optimization.lr) == (12, 16, [0.0005])
    assert (cfg.criterion._name, cfg.optimizer.adam_betas) == ("eat_pretraining", [0.9, 0.95])
    assert cfg.optimization.clip_norm == 4
    assert cfg.model.modalities.image.embed_dim == 768


class HostReads(TorchDispatchMode):
    """Counts operations whose result the host reads, where a GPU's host would wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default")
        self.count += any(name in str(function) for name in names)
        return function(*args, **(kwargs or {}))


@half_on_cpu
def test_trainer__host_reads_only_the_gradient_norm(update):
    ours = update(HalfPlace)
    ours.step()
    with HostReads() as reads:
        ours.trainer.train_step([ours.batch])
    # On a GPU one of them waits: the norm is copied to the host once. fairseq reads the copy twice,
    # the optimizer the factor that clips.
    assert reads.count == 3
