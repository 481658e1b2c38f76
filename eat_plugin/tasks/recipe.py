"""How the options of a recipe are chosen that it leaves open (-1 or null).

To add a choice: a function of ``Known``, and its entry in a table at the end.
"""

from typing import Any, Callable, Dict, List

from ..data.frames import DB, SAMPLE_RATE
from .choosing import Known, Rule

LEAST_CONSTANT = 100  # updates over which the teacher averages at the start of a run, at least
LEAST_FINAL_CONSTANT = 1000  # and at its end


# ---- The length of the run ----------------------------------------------------------------------


def share(part: float) -> Callable[[Known], int]:
    """Choose a share of the run."""
    return lambda known: int(known.updates * part + 1e-6)


def between_reports(known: Known) -> int:
    """Choose updates between reports: 40 in a run, and at most 200, as published."""
    return min(200, max(1, known.updates // 40))


def between_saves(known: Known) -> int:
    """Choose updates between checkpoints: a fortieth of the run, as published; at least 100."""
    return max(1, min(known.updates, max(100, known.updates // 40)))


def between_measurements(known: Known) -> int:
    """Choose updates between measurements: a hundredth of the run, 100 to 1,000, at a report."""
    reports = max(1, int(known.run.get("common.log_interval") or 1))
    wanted = min(1000, max(100, known.updates // 100))
    return -(-wanted // reports) * reports


def epochs_between(known: Known) -> int:
    """Choose epochs between validations and saves: 40 in a run of many short epochs."""
    return max(1, known.updates // (40 * known.updates_per_epoch))


def decay(part: float, least: int) -> Callable[[Known], float]:
    """Choose the teacher's decay so that it averages over a share of the run.

    In a second stage the share is twice as large, as published.
    """

    def choose(known: Known) -> float:
        averaged = known.updates * part * (2 if is_second_stage(known) else 1)
        return 1 - 1 / max(least, averaged)

    return choose


def anneal(known: Known) -> int:
    """Choose the updates of annealing, as published: a quarter, large 3/8, a second stage 1/2."""
    part = 0.375 if known.run.get("model.depth") >= 24 else 0.25
    part = 0.5 if is_second_stage(known) else part
    return max(int(known.updates * part), min(known.updates, LEAST_FINAL_CONSTANT))


def warm_up(known: Known) -> int:
    """Choose the updates of warm-up, as published: 2/15 of the run, of a second stage 1/8."""
    return share(1 / 8 if is_second_stage(known) else 2 / 15)(known)


# ---- A second stage, on the weights of a first one ----------------------------------------------

STARTS_FROM = "checkpoint.finetune_from_model"


def is_second_stage(known: Known) -> bool:
    """Whether a run continues on mixtures (SSLAM)."""
    return bool(known.run.get("model.retention_loss"))


def tenth_of_rate(known: Known) -> List[float]:
    """Choose a tenth of the rate of the first stage, as published.

    Raises:
        ValueError: there is no first stage, or its rate is unknown.
    """
    path, rates = known.run.get(STARTS_FROM), None
    if path is None:
        raise ValueError(
            f"{STARTS_FROM} is null: give the checkpoint of the first stage (eat pretrain "
            "--checkpoint), or set optimization.lr to start from random weights"
        )
    if known.start is not None:
        rates = (known.start.get("optimization") or {}).get("lr")
    if not rates:
        raise ValueError(
            f"optimization.lr is -1, a tenth of that of the first stage, but {path} does not say "
            "its own; set optimization.lr"
        )
    return [(rates[0] if isinstance(rates, list) else rates) / 10]


def half_of_clones(known: Known) -> int:
    """Choose half of the clones of the first stage, as published: there are twice the clips."""
    return 8 if known.start is None else max(1, int(known.encoder("clone_batch")) // 2)


# ---- Clips of your own: patches and window -------------------------------------------------------

LONGEST_WINDOW = 1024  # frames
WINDOWS_OF_PRETRAINING = (64, 208)  # frames, least and most
SHORT = 2.02 * SAMPLE_RATE  # 2 s, rounded: words and single events; their order matters


def is_short(known: Known) -> bool:
    """Whether clips are so short that the order within them matters, as in words."""
    return known.typical_samples <= SHORT


def patch(known: Known) -> Any:
    """Choose the patch of the checkpoint, or for random weights by the length of the clips.

    Short clips get whole spectra of 40 ms: patches of 160 ms cannot see words.
    """
    if known.start is not None:
        return list(known.patch)
    return [4, 128] if is_short(known) else [16, 16]


def whole_patches(frames: int, known: Known) -> int:
    """Round frames up to whole patches."""
    return -(-frames // known.patch[0]) * known.patch[0]


def window(known: Known) -> int:
    """Choose the length of nearly all clips, in whole patches, up to 10.24 s."""
    longest = LONGEST_WINDOW // known.patch[0] * known.patch[0]
    return min(whole_patches(known.typical_frames, known), longest)


def short_window(known: Known) -> int:
    """Choose the window of the first stage; else the length of nearly all clips, up to 2.08 s."""
    before = ((known.start or {}).get("task") or {}).get("target_length")
    if before:
        return int(before)
    least, most = WINDOWS_OF_PRETRAINING
    return whole_patches(min(max(known.typical_frames, least), most), known)


# ---- Fine-tuning on clips of your own -----------------------------------------------------------

FEW = 1000  # clips
EPOCHS_OF_TRAINING = 100  # about as published: 96 for AudioSet-20K, 120 for ESC-50
PUBLISHED_RATE, PUBLISHED_WIDTH = 5e-5, 768


def roll_gain(known: Known) -> bool:
    """Choose to roll and scale long clips, as published; a cache has no waveforms to roll."""
    return not (known.is_cached or is_short(known))


def clips_per_update(known: Known) -> int:
    """Choose 48, as published for base; 16 for few clips."""
    return 16 if known.clips < FEW else 48


def updates(known: Known) -> int:
    """Choose 100 epochs; at least 400 updates, at most those of AudioSet-20K."""
    return min(40000, max(400, EPOCHS_OF_TRAINING * known.updates_per_epoch))


def learning_rate(known: Known) -> List[float]:
    """Choose the published rate, scaled by the width; random weights take more."""
    rate = PUBLISHED_RATE * (PUBLISHED_WIDTH / known.encoder("embed_dim")) ** 2
    return [min(1e-3, rate if known.start else 3 * rate)]


def layer_decay(known: Known) -> float:
    """Choose the published decay for pre-trained blocks; less for few blocks."""
    if known.start is None:
        return 1.0
    return 0.65 if known.encoder("depth") >= 12 else 0.75


def drop_path(known: Known) -> float:
    """Choose the published rate; none for few blocks."""
    return 0.1 if known.encoder("depth") >= 12 else 0.0


def pooling(known: Known) -> str:
    """Choose CLS of a large pre-trained model; else mean and maximum, best with few labels.

    A classifier that is continued keeps its own.
    """
    if known.classifier is not None:
        return str(known.classifier["prediction_mode"])
    is_large = known.start is not None and known.encoder("depth") >= 12
    return "CLS_TOKEN" if is_large else "MEAN_MAX_POOLING"


def front_end(known: Known) -> str:
    """Choose the spectrograms of the checkpoint; for random weights as published.

    Short clips whose mel bins are normalised get decibels: words are learnt better from them.
    """
    norm, mean, padding = (known.run.get(f"task.{x}") for x in ("norm", "norm_mean", "pad_value"))
    suits = norm in ("bins", "auto") and mean is None and padding == "zero"
    if known.start is not None or not suits:
        return known.front_end
    if known.is_cached:
        from ..data.feature_cache import cached_kind

        return cached_kind(known.manifest.entry(0))
    return DB if is_short(known) else known.front_end


def norm(known: Known) -> str:
    """Choose the normalisation of pre-training; by mel bin for random weights."""
    if known.start is None:
        return "bins"
    return str((known.start.get("task") or {}).get("norm", "whole"))


# ---- The rules ----------------------------------------------------------------------------------

PATCH = "model.modalities.image.patch_size"
PATCH_COPIES = ("task.patch_size", "task.precompute_mask_config.patch_size")
WINDOW_COPIES = ("model.target_length", "model.modalities.image.target_length")
REPORTS = {
    "common.log_interval": Rule(between_reports),
    "checkpoint.save_interval_updates": Rule(between_saves),
}
LENGTH_OF_PRETRAINING: Dict[str, Rule] = {
    **REPORTS,
    "task.monitor.interval": Rule(between_measurements),
    "lr_scheduler.warmup_updates": Rule(warm_up),
    "model.ema_decay": Rule(decay(1 / 80, LEAST_CONSTANT)),
    "model.ema_end_decay": Rule(decay(1 / 4, LEAST_FINAL_CONSTANT)),
    "model.ema_anneal_end_step": Rule(anneal),
}
LENGTH_OF_FINETUNING: Dict[str, Rule] = {
    **REPORTS,
    "lr_scheduler.warmup_updates": Rule(share(0.1)),
}
EPOCHS = {
    "checkpoint.save_interval": Rule(epochs_between),
    "dataset.validate_interval": Rule(epochs_between),
}
SECOND_STAGE = {
    "optimization.lr": Rule(tenth_of_rate, ("lr_scheduler.lr", "optimizer.lr")),
    "model.clone_batch": Rule(half_of_clones, ("task.precompute_mask_config.clone_batch",)),
}
FRONT_END = {"task.frontend": Rule(front_end, asks=None, shapes=True)}
PRETRAINING = {
    PATCH: Rule(patch, PATCH_COPIES, shapes=True),
    **FRONT_END,
    "task.target_length": Rule(short_window, WINDOW_COPIES),
    **SECOND_STAGE, **LENGTH_OF_PRETRAINING, **EPOCHS,
}  # fmt: skip
OWN_CLIPS = {
    PATCH: Rule(patch, PATCH_COPIES, shapes=True),
    **FRONT_END,
    "task.norm": Rule(norm, asks="auto", shapes=True),
    "task.target_length": Rule(window, WINDOW_COPIES),
    "task.roll_gain": Rule(roll_gain, asks=None),
    "dataset.batch_size": Rule(clips_per_update, ("dataset.batch_size_valid",)),
    "optimization.max_update": Rule(updates, ("lr_scheduler.max_update", "model.max_update")),
    "optimization.lr": Rule(learning_rate, ("lr_scheduler.lr", "optimizer.lr")),
    "model.prediction_mode": Rule(pooling, asks=None, shapes=True),
    "model.layer_decay": Rule(layer_decay),
    "model.drop_path_rate": Rule(drop_path),
}
FINETUNING = {**OWN_CLIPS, **LENGTH_OF_FINETUNING, **EPOCHS}
