"""Statistics of a sample of clips, measured at the start of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .channels import MEAN
from .frames import KALDI, TOO_SHORT, UNCHANGED
from .frontend import FrontEnd
from .manifest import Manifest
from .reader import read_part
from .statistics import Moments, sum_up

SAMPLE_FRAMES = 998  # per clip: 10 s


@dataclass(frozen=True)
class Sample:
    """Moments of a sample of clips, with the standard errors of mean and standard deviation."""

    moments: Moments
    clips: int
    mean_error: float
    std_error: float


def measure_some(
    manifest: Manifest,
    clips: int,
    seed: int = 0,
    channels: str = MEAN,
    kind: str = KALDI,
    frames: int = SAMPLE_FRAMES,
) -> Sample:
    """Measure up to ``frames`` each of at most ``clips`` clips, the same ones for a seed.

    Clips that cannot be used are left out.

    Args:
        manifest: of the clips.
        clips: their number.
        seed: which clips, and which part of a longer one.
        channels: how the channels of a clip are mixed.
        kind: front end; of ``db`` the values from 0 to 1, which depend on the length of the part.
        frames: of a part.

    Raises:
        ValueError: no clip of the sample can be used.
    """
    # Without padding.
    front_end = FrontEnd(frames, *UNCHANGED, patch=1, channels=channels, kind=kind)
    rng = np.random.default_rng(seed)
    total = len(manifest)
    parts, problem = [], ""
    for index in np.sort(rng.choice(total, min(clips, total), replace=False)).tolist():
        try:
            moments = _measure_part(manifest, index, rng.random(), front_end)
            reason = "" if moments.count else TOO_SHORT
        except (ValueError, OSError) as error:
            moments, reason = Moments(), str(error)
        if reason:  # named when it is read
            problem = problem or f"{manifest.path(index)}: {reason}"
        else:
            parts.append(moments)
    if not parts:
        raise ValueError(f"none of {min(clips, total)} clips can be used: {problem}")
    whole = sum_up(parts)
    means = np.array([part.mean for part in parts])
    squares = [part.squares / part.count + (part.mean - whole.mean) ** 2 for part in parts]
    # Clips are drawn, not frames; with all clips measured there is no sampling error.
    chance = math.sqrt((1 - len(parts) / total) / len(parts))
    std_error = chance * float(np.std(squares)) / max(2 * whole.std, 1e-9)
    return Sample(whole, len(parts), chance * float(means.std()), std_error)


def _measure_part(manifest: Manifest, index: int, position: float, front_end: FrontEnd) -> Moments:
    values, sample_rate = read_part(
        manifest.entry(index), front_end, lambda room, _: int(position * max(0, room))
    )
    energies = values if sample_rate is None else front_end.energies(values, sample_rate)
    return Moments.of(front_end.finish(energies)[0].numpy())
