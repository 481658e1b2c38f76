"""DINO compares clips: the losses of two processes add up to that of one with all clips."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.forked import Forked

OPTIONS = {
    "cls_target": "layers", "dino_loss": 0.5, "dino_prototypes": 8, "cls_loss": 0.0,
    "d2v_loss": 0.0,
}  # fmt: skip
ALONE, CLIPS = "alone", {"alone": (0, 4), "0": (0, 3), "1": (3, 4)}  # of each process


def compute(name, folder):
    """Losses, statistics and gradients of one process, in float64."""
    from tests.models.conftest import MICRO, build

    torch.set_num_threads(1)
    if name != ALONE:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", store, rank=int(name), world_size=2)
    torch.manual_seed(0)
    model = build(MICRO, **OPTIONS).double().train()
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(4, 1, 32, 128, dtype=torch.float64, generator=generator)
    order = torch.rand(12, 16, generator=generator).argsort(dim=1)
    masks = (order >= 4).to(torch.uint8)
    first, end = CLIPS[name]
    output = model(source[first:end], precomputed_mask=masks[3 * first : 3 * end])
    sum(output["losses"].values()).backward()
    torch.save(
        {
            "losses": {key: loss.detach() for key, loss in output["losses"].items()},
            "mean_entropy": output["dino_entropy_of_mean"],
            "gradients": {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        },
        Path(folder) / f"{name}.pt",
    )
    if name != ALONE:
        dist.barrier()
        dist.destroy_process_group()


def test_two_processes__add_up_to_one(tmp_path):
    processes = [Forked(f"{__name__}:main", [name, tmp_path], tmp_path) for name in CLIPS]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in CLIPS
    )
    assert list(alone["losses"]) == ["dino"]
    total = first["losses"]["dino"] + second["losses"]["dino"]
    torch.testing.assert_close(total, alone["losses"]["dino"], rtol=1e-9, atol=1e-9)
    for part in (first, second):
        torch.testing.assert_close(part["mean_entropy"], alone["mean_entropy"])
    assert len(alone["gradients"]) > 20
    for name, gradient in alone["gradients"].items():
        total = first["gradients"][name] + second["gradients"][name]
        torch.testing.assert_close(total, gradient, rtol=1e-6, atol=1e-7, msg=name)


def main():
    compute(*sys.argv[1:])
