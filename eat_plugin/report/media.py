"""Pictures and sounds inside a page, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from ..data.channels import MEAN
from ..data.clip import ClipError
from ..data.entries import Entry
from ..data.frames import SAMPLE_RATE
from ..data.resampling import resample
from ..data.sources import open_clip, read_opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 5.0  # seconds of a sound
FADE = 0.02  # seconds, where a sound is cut
PEAK = 0.9
SILENCE = 1e-4  # is not made louder


def embed(content: bytes, kind: str) -> str:
    """Return bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def embed_figure(figure: Figure) -> str:
    """Return a picture as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return embed(file.getvalue(), "image/png")


def embed_spectrogram(values: np.ndarray) -> str:
    """Return a spectrogram [T, F] as PNG, a pixel per value, low frequencies below."""
    from matplotlib.image import imsave

    low, high = np.percentile(values, (2, 99.8))
    file = io.BytesIO()
    imsave(file, values.T, cmap="magma", vmin=low, vmax=high, origin="lower", format="png")
    return embed(file.getvalue(), "image/png")


def embed_sound(entry: Entry, channels: str = MEAN) -> str | None:
    """Return the first seconds of a clip as MP3 (FLAC where it cannot be written), 16 kHz mono.

    None for a clip whose sound is not at hand, as in a feature cache.
    """
    import soundfile

    try:
        with open_clip(entry) as clip:
            rate, is_cut = clip.samplerate, clip.frames > LONGEST * clip.samplerate
            waveform = read_opened(clip, 0, int(LONGEST * rate), channels)
    except ClipError:
        return None
    sound = resample(waveform, rate, SAMPLE_RATE).numpy().copy()
    if is_cut:
        faded = int(FADE * SAMPLE_RATE)
        sound[-faded:] *= np.linspace(1, 0, faded, dtype=np.float32)
    sound *= PEAK / max(float(np.abs(sound).max()), SILENCE)
    writes_mp3 = "MP3" in soundfile.available_formats()
    name, kind = ("MP3", "audio/mpeg") if writes_mp3 else ("FLAC", "audio/flac")
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format=name)
    return embed(file.getvalue(), kind)
