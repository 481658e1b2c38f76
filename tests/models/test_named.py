"""The networks by name: those that fairseq registers are the same with its base class."""

from dataclasses import fields

from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from torch import nn

import eat_plugin.registered  # noqa: F401
from eat_plugin.models.named import MODELS
from eat_plugin.registration import NAMES


def test_models__are_the_registered_ones():
    assert set(MODELS) == set(NAMES["model"])
    for name, (network, config) in MODELS.items():
        registered, options = MODEL_REGISTRY[name], MODEL_DATACLASS_REGISTRY[name]
        assert issubclass(registered, network)
        assert issubclass(registered, BaseFairseqModel)
        assert not issubclass(network, BaseFairseqModel)
        assert issubclass(network, nn.Module)
        assert issubclass(options, config)
        assert [field.name for field in fields(options)] == [field.name for field in fields(config)]


def test_registered__adds_no_parameter_and_no_layer():
    own = {"add_args", "build_model", "flags_of_its_own"}
    for name, (network, _) in MODELS.items():
        kinds = MODEL_REGISTRY[name].__mro__
        between = kinds[: kinds.index(network)]
        added = {attribute for kind in between for attribute in vars(kind)}
        assert {each for each in added if not each.startswith("__")} <= own
