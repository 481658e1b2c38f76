"""Small models on the CPU and on a GPU; tests that need a GPU are skipped without one."""

import contextlib

import pytest
import torch
from fairseq.optim import MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf

from benchmarks.plain_training import HALF_OPTIONS
from benchmarks.training import draw_batch_masks, make_clips, make_model, make_optimizer
from eat_plugin.criterions.pretraining import PretrainingCriterion

FRAMES, CLIPS = 128, 2
# Heads of 64 channels, as published, so that flash attention can run.
SMALL = {
    "depth": 2, "embed_dim": 128, "num_heads": 2, "average_top_k_layers": 2, "clone_batch": 4,
    "ema_decay": 0.9, "ema_end_decay": 0.9,
}  # fmt: skip


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@contextlib.contextmanager
def waiting_allowed():
    """Let the host wait for a GPU, within a test that forbids it."""
    if not torch.cuda.is_available():
        yield
        return
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("default")
    yield
    torch.cuda.set_sync_debug_mode(mode)


class Step:
    """Whole pre-training updates of a small model with our criterion and optimizer.

    Args:
        device: device of the model and its batch.
        dtype: precision of the model.
        noise: add noise at hidden patches, which differs between devices.
        options: options of the model.
    """

    def __init__(self, device, dtype, noise=True, **options):
        model = make_model({**SMALL, **options}, FRAMES)
        if not noise:
            model.patch_encoder.cfg.mask_noise_std = 0.0
        self.model = model.to(device, dtype).train()
        self.optimizer = make_optimizer(self.model, 1e-3)
        if dtype == torch.bfloat16:  # in float16 fairseq's scaler synchronises
            cfg = OmegaConf.create({"common": HALF_OPTIONS})
            self.optimizer = MemoryEfficientFP16Optimizer(cfg, None, self.optimizer)
        self.criterion = PretrainingCriterion(None)
        mask, num_visible = draw_batch_masks(model, CLIPS)
        self.sample = {
            "id": torch.arange(CLIPS, device=device),
            "net_input": {
                "source": make_clips(CLIPS, FRAMES).to(device, dtype),
                "precomputed_mask": mask.to(device),
                "num_visible": num_visible,
                "noise_seed": 1,
            },
        }
        self.updates = 0

    def __call__(self):
        """Do an update; return the loss per hidden patch, as a tensor."""
        self.model.set_num_updates(self.updates)
        loss, sample_size, log = self.criterion(self.model, self.sample)
        assert log["loss"].device == loss.device
        self.optimizer.zero_grad()
        self.optimizer.backward(loss * (2 / sample_size))  # the sum overflows float16
        self.optimizer.multiply_grads(0.5)
        with waiting_allowed():  # for the norm, which fairseq compares on the host
            self.optimizer.clip_grad_norm(4.0)
        self.optimizer.step()
        self.updates += 1
        return loss.detach() / sample_size


@pytest.fixture
def make_step():
    """Make a ``Step``."""
    return Step


@pytest.fixture
def full_precision(monkeypatch):
    """Float32 convolutions without TF32, PyTorch's default on GPUs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
