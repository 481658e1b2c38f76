"""Choices that the command line and Python share, without PyTorch."""

GRANULARITIES = ("utterance", "frame", "all", "grid")
ALONG_TIME = ("frame", "grid")  # results of windows are joined to one time axis
DEFAULT_BATCH = 8  # windows
