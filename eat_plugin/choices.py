"""Choices and folders that the command line and Python share, without PyTorch."""

from pathlib import Path

USER_DIR = Path(__file__).resolve().parent
CONFIG_DIR = USER_DIR / "config"

GRANULARITIES = ("utterance", "frame", "all", "grid")
ALONG_TIME = ("frame", "grid")  # results of windows are joined to one time axis
DEFAULT_BATCH = 8  # windows
CGP, LCGP, LINEAR = HEADS = ("cgp", "lcgp", "linear")  # of a probe
SIZES = ("tiny", "small", "base", "large")
TASK_OF = {"eat": "eat_pretraining", "eat_classifier": "eat_classification"}
ARCHITECTURES = {f"{model}_{size}": (model, size) for model in TASK_OF for size in SIZES}
"""Names for ``fairseq-train --arch`` -> name of the model and its size."""
PREEMPTED_STATUS = 75
"""Exit code of a run that saved after SIGTERM or SIGUSR1; EX_TEMPFAIL, as one can resume it."""
