"""How the options of a recipe are chosen that it leaves open (-1 or null).

To add a choice: a function of ``Known``, and its entry in a table at the end.
"""

from typing import Callable, Dict

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


def epochs_between(known: Known) -> int:
    """Choose epochs between validations and saves: 40 in a run of many short epochs."""
    return max(1, known.updates // (40 * known.updates_per_epoch))


def decay(part: float, least: int) -> Callable[[Known], float]:
    """Choose the teacher's decay so that it averages over a share of the run."""
    return lambda known: 1 - 1 / max(least, known.updates * part)


def anneal(known: Known) -> int:
    """Choose the updates of annealing, as published: base a quarter, large three eighths."""
    part = 0.375 if known.run.get("model.depth") >= 24 else 0.25
    return max(int(known.updates * part), min(known.updates, LEAST_FINAL_CONSTANT))


REPORTS = {
    "common.log_interval": Rule(between_reports),
    "checkpoint.save_interval_updates": Rule(between_saves),
}
LENGTH_OF_PRETRAINING: Dict[str, Rule] = {
    **REPORTS,
    "lr_scheduler.warmup_updates": Rule(share(2 / 15)),
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
PRETRAINING = {**LENGTH_OF_PRETRAINING, **EPOCHS}
FINETUNING = {**LENGTH_OF_FINETUNING, **EPOCHS}
