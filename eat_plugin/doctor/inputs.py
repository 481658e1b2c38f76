"""Whether clips fit the window, the bandwidth and the normalisation of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.channels import MEAN
from ..data.clip_sample import measure_some
from ..data.frames import FRAMES_A_SECOND, SAMPLE_RATE
from ..data.frontend import find_spectra
from ..data.manifest import Manifest
from ..data.statistics import FILE, WHOLE, check_statistics, read_statistics
from ..prepare.quality import Examination
from .data import attempt
from .finding import DATA, ERROR, OK, WARNING, Finding

CLIPS = 48  # measured, to compare with the configuration
TOLERANCE = 0.1  # of the standard deviation; beyond chance
CHANCE = 3  # standard errors of a sample within which a difference is no evidence
EMPTY, LOST = 0.5, 2.0  # share of a window that is padding; clips over their window


def check_statistics_file(folder: Path, channels: str = MEAN) -> list[Finding]:
    """Check ``stats.json``: that it is there, valid, and of the clips of the manifest."""

    def check() -> None:
        found = read_statistics(folder)
        if found is not None:
            check_statistics(folder, found, channels)

    problems = attempt(check)
    if problems or (folder / FILE).exists():
        return problems
    seen = f"there is no {folder / FILE}: a run measures a sample of the training clips"
    return [Finding(DATA, WARNING, seen, f"eat stats {folder}")]


def check_normalisation(manifest: Manifest, task: Any) -> list[Finding]:
    """Compare the statistics of a configuration with a sample of the clips.

    Args:
        manifest: the training clips.
        task: the options of the task, whose ``norm_mean`` and ``norm_std`` are null or numbers.
    """
    if find_spectra(task.frontend).norm is not None:
        return []
    try:
        sample = measure_some(manifest, CLIPS, channels=task.channels)
    except ValueError as error:
        seen = f"the log-mel values of the clips cannot be measured: {error}"
        return [Finding(DATA, ERROR, seen, "eat manifest AUDIO --out DATA --check")]
    mean, std = sample.moments.mean, sample.moments.std
    if std <= 0:
        seen = f"all log-mel values are the same ({mean:.3f}), as those of silence are"
        return [Finding(DATA, ERROR, seen, "list other clips")]
    measured = f"a sample of {sample.clips} clips has {mean:.3f} and {std:.3f}"
    if task.norm != WHOLE or task.norm_mean is None:
        return []
    given = f"inputs are normalised by mean {task.norm_mean:.3f} and deviation {task.norm_std:.3f}"
    allowed = (TOLERANCE * std, TOLERANCE * std)
    chance = (CHANCE * sample.mean_error, CHANCE * sample.std_error)
    off = (abs(mean - task.norm_mean), abs(std - task.norm_std))
    if all(distance <= max(pair) for distance, *pair in zip(off, allowed, chance)):
        return [Finding(DATA, OK, f"{given}; {measured}")]
    fix = "eat stats DATA, then task.norm_mean=null task.norm_std=null"
    return [Finding(DATA, WARNING, f"{given}; {measured}", fix)]


def check_window(clips: list[Examination], task: Any) -> list[Finding]:
    """Compare the lengths and rates of clips with the window and the normalisation.

    Args:
        clips: decoded.
        task: the options of the task.
    """
    findings = []
    typical = float(np.median([clip.seconds for clip in clips])) * FRAMES_A_SECOND  # frames
    window, seconds = task.target_length, f"{task.target_length / FRAMES_A_SECOND:g} s"
    half = f"half of the clips have at most {typical / FRAMES_A_SECOND:.3g} s"
    if typical < EMPTY * window and task.length != "mask":
        fix = f"task.target_length={-(-int(typical) // 16) * 16}, or task.length=mask"
        seen = f"{half}, the window {seconds}: most of the input is padding"
        findings.append(Finding(DATA, WARNING, seen, fix))
    elif typical > LOST * window and task.crop == "start" and task.length == "pad":
        seen = f"half of the clips have {typical / FRAMES_A_SECOND:.3g} s or more, of which "
        seen += f"the first {seconds} are heard"
        findings.append(Finding(DATA, WARNING, seen, "task.crop=random, or a longer window"))
    low = [one.rate for one in clips if one.rate < SAMPLE_RATE]
    needs_norm = find_spectra(task.frontend).norm is None
    if 2 * len(low) > len(clips) and needs_norm and task.norm == WHOLE:
        seen = (
            f"clips of {max(low) / 1000:g} kHz have nothing above {max(low) / 2000:g} kHz; there, "
            "one mean and deviation for all mel bins has no meaning"
        )
        findings.append(Finding(DATA, WARNING, seen, "task.norm=bins"))
    return findings
