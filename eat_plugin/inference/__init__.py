"""Use checkpoints in Python: features and predictions, without fairseq's command line.

    from eat_plugin.inference import load_checkpoint

    loaded = load_checkpoint("checkpoint_best.pt", device="cuda")  # ours or published
    spectrogram = loaded.spectrogram("dog.wav")                    # [1, T, F], as in training
    loaded.predict(spectrogram[None])                              # [1, classes], probabilities
    loaded.labels.names                                            # names of the classes
    loaded.features(spectrogram[None], "frame", layer=-2)          # [1, T/p, D]
    x, times = loaded.extract("an_hour.wav", "grid")               # [columns, F/p, D], seconds

``Loaded`` documents all methods.
"""

from ..choices import ALONG_TIME, DEFAULT_BATCH, GRANULARITIES
from .loaded import ClipFeatures, Loaded
from .loading import choose_device, load_checkpoint, load_state

__all__ = [
    "ALONG_TIME",
    "DEFAULT_BATCH",
    "GRANULARITIES",
    "ClipFeatures",
    "Loaded",
    "choose_device",
    "load_checkpoint",
    "load_state",
]
