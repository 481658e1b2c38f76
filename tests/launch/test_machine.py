"""Device, precision and data workers fit the machine."""

from types import SimpleNamespace

import pytest
import torch

from eat_plugin.launch import machine


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count, bfloat16=True):
        monkeypatch.setattr(machine, "bfloat16_gain", lambda: 1 + bfloat16)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)
        ended = SimpleNamespace(returncode=int(not bfloat16))
        monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: ended)

    return pretend


@pytest.mark.parametrize(
    ("count", "bfloat16", "expected"),
    [
        (0, True, ["common.cpu=true", "common.fp16=false", "common.bf16=true"]),
        (0, False, ["common.cpu=true", "common.fp16=false"]),
        (1, True, ["common.fp16=false", "common.bf16=true"]),
        (1, False, ["common.fp16=true"]),
        (8, True, ["common.fp16=false", "common.bf16=true"]),
        (8, False, ["common.fp16=true"]),
    ],
)
def test_choose_precision(gpus, count, bfloat16, expected):
    gpus(count, bfloat16)
    assert machine.choose_precision(set()) == expected
    assert machine.choose_precision({"common.amp"}) == []


@pytest.mark.parametrize(
    ("cores", "count", "workers", "expected"),
    [(2, 0, 10, 1), (1, 0, 10, 1), (16, 0, 10, 10), (16, 4, 10, 3), (64, 4, 10, 10), (8, 0, 0, 0)],
)
def test_limit_workers__leaves_a_core_to_each_process(
    gpus, monkeypatch, cores, count, workers, expected
):
    gpus(count)
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    cfg = SimpleNamespace(
        common=SimpleNamespace(cpu=not count), dataset=SimpleNamespace(num_workers=workers),
        distributed_training=SimpleNamespace(distributed_no_spawn=False),
    )  # fmt: skip
    assert machine.limit_workers(cfg, processes=1) == expected
    cfg.distributed_training.distributed_no_spawn = True
    assert machine.limit_workers(cfg, processes=max(1, count)) == expected
