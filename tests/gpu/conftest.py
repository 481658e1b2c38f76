"""Small models on the CPU and on a GPU; what needs a GPU is skipped where there is none."""

import pytest
import torch
from fairseq.optim import MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf

from eat_plugin.bench.training import draw_batch_masks, make_clips, make_model, make_optimizer
from eat_plugin.criterions.pretraining import PretrainingCriterion

FRAMES, CLIPS = 128, 2
# Heads of 64 channels, as published: what a GPU's attention is made for.
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


class Step:
    """Whole pre-training updates of a small model, by the parts that a run has of ours.

    Args:
        device: of the model and its batch, which is there from the start.
        dtype: of the model.
        noise: whether hidden patches are noise, which differs from device to device.
        options: of the model.
    """

    def __init__(self, device, dtype, noise=True, **options):
        model = make_model({**SMALL, **options}, FRAMES)
        if not noise:
            model.patch_encoder.cfg.mask_noise_std = 0.0
        self.model = model.to(device, dtype).train()
        self.optimizer = make_optimizer(self.model, 1e-3)
        if dtype == torch.bfloat16:  # as in a run; in float16 fairseq's scaler waits for the GPU
            cfg = OmegaConf.create({"common": {"bf16": True, "fp16_scale_window": 1}})
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
        """Do an update; return the loss as a tensor, over the number of hidden patches."""
        self.model.set_num_updates(self.updates)
        loss, sample_size, log = self.criterion(self.model, self.sample)
        assert log["loss"].device == loss.device
        self.optimizer.zero_grad()
        self.optimizer.backward(loss * (2 / sample_size))  # of the whole sum, float16 runs over
        self.optimizer.multiply_grads(0.5)
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
    """Convolutions of float32 in float32: by itself PyTorch rounds them on GPUs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
