"""Several processes: weights equal to gradient accumulation, statistics over all ranks."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.forked import Forked

UPDATES = "optimization.max_update=5"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(trainer, *options, name):
    """Start a training in two processes."""
    port = free_port()
    return [
        trainer.start(
            UPDATES, "dataset.batch_size=3", f"distributed_training.distributed_rank={rank}",
            "distributed_training.distributed_world_size=2", "distributed_training.device_id=0",
            f"distributed_training.distributed_init_method=tcp://127.0.0.1:{port}",
            "distributed_training.distributed_no_spawn=true",
            "distributed_training.distributed_backend=gloo",
            "distributed_training.ddp_backend=legacy_ddp", *options,
            name=name,
        )
        for rank in range(2)
    ]  # fmt: skip


def run_two(trainer, *options, name):
    """Run a training to its end in two processes."""
    processes = start_two(trainer, *options, name=name)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][-3000:]
    return outputs


@pytest.mark.parametrize("batches", [2, 4])
def test_two_processes__equal_accumulation_of_batches(trainer, assert_same, batches):
    # Three batches per epoch. Of two in an update, one process has none in the second update; of
    # four, it has one, and then none.
    both = ["dataset.batch_size=4", "optimization.clip_norm=0", "common.log_interval=1"]
    accumulate = f"optimization.update_freq=[{batches}]"
    output = trainer.succeed(UPDATES, accumulate, *both, name="one")
    outputs = run_two(trainer, f"optimization.update_freq=[{batches // 2}]", *both, name="two")
    one, two = trainer.checkpoint("one"), trainer.checkpoint("two")
    assert two["optimizer_history"][-1]["num_updates"] == 5
    assert one["cfg"]["task"]["norm_mean"] == two["cfg"]["task"]["norm_mean"]  # measured at start
    assert_same(one["model"], two["model"], tolerance=1e-5)
    for name in ("loss", "loss_recon", "gnorm", "bsz"):
        expected, found = (
            [float(value) for value in re.findall(rf'"{name}": "([0-9.]+)', text)]
            for text in (output, outputs[0])
        )
        assert len(expected) == 5
        assert found == pytest.approx(expected, rel=1e-3)


def test_two_processes__mix_clips_within_a_process(trainer, assert_same):
    on = ["+model.mixed_share=0.5", "model.retention_loss=1"]
    both = ["optimization.update_freq=[2]", "dataset.batch_size=3"]
    trainer.succeed(UPDATES, *both, *on, name="one")
    run_two(trainer, *on, name="two")
    assert_same(trainer.checkpoint("one")["model"], trainer.checkpoint("two")["model"], 1e-5)


def test_two_processes__resume_equals_one_run(trainer, assert_same):
    run_two(trainer, "checkpoint.save_interval_updates=3", name="straight")
    checkpoint = trainer.folder / "straight" / "checkpoints" / "checkpoint_2_3.pt"
    outputs = run_two(trainer, f"checkpoint.restore_file={checkpoint}", name="resumed")
    assert f"Loaded checkpoint {checkpoint} (epoch" in outputs[0], outputs[0][-4000:]
    straight, resumed = trainer.checkpoint("straight"), trainer.checkpoint("resumed")
    assert resumed["optimizer_history"][-1]["num_updates"] == 5
    for part in ("model", "last_optimizer_state"):
        assert_same(straight[part], resumed[part])


@pytest.mark.parametrize("first", [1, 2])
def test_resume__with_another_number_of_processes_equals_one_run(trainer, assert_same, first):
    def train(processes, *options, name):
        accumulate = f"optimization.update_freq=[{2 // processes}]"
        save = ["checkpoint.save_interval_updates=1", "dataset.batch_size=3", *options]
        if processes == 2:
            return run_two(trainer, accumulate, *save, name=name)[0]
        return trainer.succeed(UPDATES, accumulate, *save, name=name)

    train(first, name="straight")
    checkpoint = trainer.folder / "straight" / "checkpoints" / "checkpoint_2_3.pt"
    output = train(3 - first, f"checkpoint.restore_file={checkpoint}", name="resumed")
    assert "batches over all processes" not in output
    straight, resumed = trainer.checkpoint("straight"), trainer.checkpoint("resumed")
    for part in ("model", "last_optimizer_state"):
        assert_same(straight[part], resumed[part], tolerance=1e-6)
    assert straight["extra_state"]["train_iterator"]["epoch"] == 3


def test_launcher__unconnected_processes_are_refused(trainer, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, output = trainer.run(UPDATES)
    assert status != 0
    assert "set distributed_training.distributed_world_size=2" in output


def compute_statistics(rank, port, folder):
    """One of two processes: half of the values, and a training step with DINO."""
    from omegaconf import OmegaConf

    from eat_plugin.models.config import EatConfig
    from eat_plugin.models.eat import EatModel
    from eat_plugin.models.objectives import channel_deviation

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    if rank is not None:
        dist.init_process_group("gloo", rank=rank, world_size=2)
    mine = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    torch.manual_seed(0)
    values, source = torch.randn(4, 7, 3), torch.randn(4, 1, 32, 128)
    options = {
        "depth": 1, "embed_dim": 16, "num_heads": 2, "average_top_k_layers": 1, "clone_batch": 1,
        "ema_anneal_end_step": 1, "max_update": 1, "seed": 1, "cls_loss": 1.0,
        "utterance_level": True, "ema_encoder_only": False, "layer_norm_targets": True,
        "encoder_dropout": 0.0, "post_mlp_drop": 0.0, "attention_dropout": 0.0,
        "modalities": {
            "image": {
                "num_extra_tokens": 1, "in_chans": 1, "embed_dim": 16, "prenet_depth": 0,
                "num_alibi_heads": 2, "model_depth": 1, "target_length": 32, "mask_length": 1,
                "mask_noise_std": 0.0,
                "decoder": {"decoder_dim": 16, "decoder_layers": 1, "input_dropout": 0.0},
            }
        },
    }  # fmt: skip
    model = EatModel(OmegaConf.merge(OmegaConf.structured(EatConfig()), options)).train()
    masks = torch.tensor([[0] * 4 + [1] * 12] * 4, dtype=torch.uint8)
    output = model(source[mine], precomputed_mask=masks[mine])
    result = {
        "deviation": channel_deviation(values[mine].flatten(0, 1)),
        "center": model.center,
        "target_var": output["target_var"],
        "pred_var": output["pred_var"],
    }
    torch.save(result, folder / f"{rank}.pt")
    if rank is not None:
        dist.barrier()
        dist.destroy_process_group()


def test_statistics__cover_all_processes(tmp_path):
    compute_statistics(None, 0, tmp_path)
    port = free_port()
    processes = [Forked(f"{__name__}:main", [rank, port, tmp_path], tmp_path) for rank in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in (None, 0, 1)
    )
    for name, value in alone.items():
        assert torch.allclose(first[name], value, atol=1e-5), name
        assert torch.equal(first[name], second[name]), name


def main():
    compute_statistics(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
