"""Use checkpoints in Python: features and predictions, without fairseq's command line.

    from eat_plugin.inference import load_checkpoint

    loaded = load_checkpoint("checkpoint_best.pt", device="cuda")  # ours or published
    loaded.predict("dog.wav")                                      # [classes], probabilities
    loaded.predict((samples, 44_100))                              # the same of an array or tensor
    loaded.labels.names                                            # names of the classes
    loaded.features(["dog.wav", "rain.flac"], "frame", layer=-2)   # per clip, [columns, D]
    x, times = loaded.extract("an_hour.wav", "grid")               # [columns, F/p, D], seconds
    spectrogram = loaded.spectrogram("dog.wav")                    # [1, T, F], as in training
    loaded.predict(spectrogram[None])                              # [1, classes], a batch
    x, times = detect(loaded, "an_hour.wav")                       # [columns, classes], of frames

``Loaded`` documents all methods.
"""

from ..choices import ALONG_TIME, DEFAULT_BATCH, GRANULARITIES
from .loaded import Loaded
from .loading import choose_device, load_checkpoint, load_state
from .recordings import ClipFeatures, detect

__all__ = [
    "ALONG_TIME",
    "DEFAULT_BATCH",
    "GRANULARITIES",
    "ClipFeatures",
    "Loaded",
    "choose_device",
    "detect",
    "load_checkpoint",
    "load_state",
]
