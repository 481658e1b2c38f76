"""The cases of `eat bench` that train through fairseq's trainer, as `fairseq-hydra-train` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import soundfile
import torch
from fairseq import tasks
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer
from fairseq.utils import apply_to_sample
from omegaconf import DictConfig

from eat_plugin.data.manifest import write_manifest
from eat_plugin.models.eat import EatModel
from eat_plugin.models.flops import update_flops
from eat_plugin.modules.replay import CALLS_BEFORE
from eat_plugin.options import patch_sides

from .front_end import write_clip
from .plain_training import PlainUpdate
from .timing import Case, Form, Place, Prepare
from .training import load_config, start_without_noise


class TrainerUpdate:
    """Updates a model with one batch through fairseq's trainer.

    The task has a data set `train`.
    """

    def __init__(self, cfg: DictConfig, task: FairseqTask, batch: dict[str, Any]) -> None:
        self.model = build_model(cfg, task)
        self.trainer = Trainer(cfg, task, self.model, task.build_criterion(cfg.criterion))
        # With it, the trainer resets the peak of memory in each update.
        self.trainer.cuda_env = None
        self.trainer.begin_epoch(1)
        self.batch = batch

    def step(self) -> float:
        """Do one update; return the loss per hidden patch."""
        before = self.trainer.get_num_updates()
        self.trainer.train_step([self.batch], raise_oom=True)
        if self.trainer.get_num_updates() == before:
            raise RuntimeError("fairseq's trainer skipped the update; its log says why")
        replayed = self.model.replayed
        if replayed is not None and before >= CALLS_BEFORE and not replayed.is_in_use:
            raise RuntimeError("the CUDA graph is not in use; the log says why")
        return float(metrics.get_meter("train", "loss").val)  # train_step returns it rounded


def build_model(cfg: DictConfig, task: FairseqTask) -> EatModel:
    """Build the model of a run, always with the same weights."""
    torch.manual_seed(cfg.common.seed)
    return task.build_model(cfg.model)


def make_batch(cfg: DictConfig, task: FairseqTask, folder: Path) -> dict[str, Any]:
    """Make a batch as data workers do: copies of one clip, with different masks."""
    clip = write_clip(folder, "wav")
    write_manifest(folder / "train.tsv", folder, [(clip.name, soundfile.info(clip).frames)])
    task.load_dataset("train")
    dataset = task.dataset("train")
    samples = []
    for epoch in range(1, cfg.dataset.batch_size + 1):
        dataset.set_epoch(epoch)
        samples.append(dataset[0])
    return dataset.collater(samples)


def training(size: str, clips: int, overrides: Sequence[str] = (), rounds: int = 1000) -> Prepare:
    """Return the case of whole updates through fairseq's trainer, with a file of config/size."""

    def prepare(place: Place) -> Case:
        cfg = load_config(size, [*run_options(place, clips), *overrides])
        task = tasks.setup_task(cfg.task)
        batch = make_batch(cfg, task, place.folder)
        if place.device.type == "cuda":  # as fairseq's loader does
            batch = apply_to_sample(lambda tensor: tensor.pin_memory(), batch)
        source, mask = (batch["net_input"][name] for name in ("source", "precomputed_mask"))

        def make_plain() -> Callable[[], float]:
            model, optimization = build_model(cfg, task), cfg.optimization
            plain = PlainUpdate(
                model, optimization.lr[0], cfg.model.ema_decay, optimization.clip_norm,
                device=place.device, dtype=place.dtype,
            )  # fmt: skip
            return start_without_noise(plain.model, lambda: plain.step(source, mask))

        def make_ours() -> Callable[[], float]:
            ours = TrainerUpdate(cfg, task, batch)
            return start_without_noise(ours.model, ours.step)

        frames, bins = patch_sides(cfg.model.modalities.image.patch_size)
        grid = (source.size(2) // frames, source.size(3) // bins)
        return Case(
            describe(size, clips, cfg.model.clone_batch, cfg.task.target_length, place.precision),
            Form(make_plain),
            Form(make_ours),
            clips=clips,
            most_rounds=rounds,
            flops=None if place.dtype == torch.float32 else clips * update_flops(cfg.model, grid),
        )

    return prepare


def describe(size: str, clips: int, clones: int, frames: int, precision: str) -> str:
    """Describe a case."""
    return f"train {size}: {clips} x {clones} clones of {frames / 100:.0f} s, {precision}"


def run_options(place: Place, clips: int) -> list[str]:
    """Return the options of a run on one device, in the precision of a place."""
    half = str(place.dtype == torch.bfloat16).lower()
    return [
        f"common.cpu={place.device.type == 'cpu'}", "common.fp16=false", f"common.bf16={half}",
        f"common.memory_efficient_bf16={half}", "distributed_training.distributed_world_size=1",
        f"checkpoint.save_dir={place.folder}", f"task.data={place.folder}", "task.crop=start",
        "task.norm=whole", "task.norm_mean=-2.1", "task.norm_std=3.9",
        f"dataset.batch_size={clips}", "model.recon_loss=0",
        f"model.compile={str(place.compile).lower()}",
        f"model.cuda_graph={str(place.cuda_graph).lower()}",
    ]  # fmt: skip
