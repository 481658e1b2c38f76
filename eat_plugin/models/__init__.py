"""Models that fairseq finds by name: ``eat`` (published name ``data2vec_multi``)."""

from .eat import EatModel

__all__ = ["EatModel"]
