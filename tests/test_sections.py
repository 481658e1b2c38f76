"""Configuration dataclasses from plain values: types, references, messages."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, List, Optional

import numpy as np
import pytest
from omegaconf import OmegaConf

from eat_plugin.models.classifier_config import EatClassifierConfig
from eat_plugin.options import MISSING, follow, option
from eat_plugin.sections import fill, is_missing, merge, plain


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Inner:
    width: int = option(follow("model.size"), "follows")
    rates: List[float] = option([0.5], "a list")  # noqa: RUF009


@dataclass
class Outer:
    size: int = 4
    rate: float = 0.25
    on: bool = False
    name: str = "x"
    colour: Optional[Colour] = Colour.RED
    anything: Any = None
    data: str = MISSING
    updates: int = option(follow("optimization.max_update"), "of another section")
    inner: Inner = field(default_factory=Inner)
    maybe: Optional[Inner] = None


def make(values, **root):
    return fill(Outer, values, "model", root)


def test_fill__what_is_not_given_has_its_default():
    assert make({}) == Outer(updates="${optimization.max_update}", inner=Inner(4, [0.5]))


def test_fill__converts_as_the_types_say():
    cfg = make({
        "size": "7", "rate": 1, "on": 1, "name": 3, "colour": "BLUE", "anything": ({"a": 1},),
        "maybe": {"rates": (1, "2.5")},
    })  # fmt: skip
    assert (cfg.size, cfg.rate, cfg.on, cfg.name) == (7, 1.0, True, "3")
    assert [type(value) for value in (cfg.size, cfg.rate, cfg.on)] == [int, float, bool]
    assert (cfg.colour, cfg.anything, cfg.maybe) == (Colour.BLUE, [{"a": 1}], Inner(7, [1.0, 2.5]))
    assert make({"colour": None, "rate": np.float32(0.5)}).colour is None


def test_fill__follows_references():
    cfg = make({"size": "${task.length}"}, task={"length": "${common.seed}"}, common={"seed": 9})
    assert (cfg.size, cfg.inner.width) == (9, 9)
    assert make({}, optimization={"max_update": 5}).updates == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sise": 1}, "there is no option model.sise"),
        ({"inner": {"with": 1}}, "there is no option model.inner.with"),
        ({"inner": None}, "model.inner is None; it must be a section of options"),
        ({"size": 1.5}, "model.size is 1.5; it must be a whole number"),
        ({"size": None}, "model.size is None; it must be a whole number"),
        ({"rate": "fast"}, "model.rate is 'fast'; it must be a number"),
        ({"on": "true"}, "model.on is 'true'; it must be true or false"),
        ({"on": 2}, "model.on is 2; it must be true or false"),
        ({"name": None}, "model.name is None; it must be text"),
        ({"colour": "GREEN"}, "model.colour is 'GREEN'; choose one of RED, BLUE"),
        ({"inner": {"rates": "12"}}, "model.inner.rates is '12'; it must be a list"),
        ({"inner": {"rates": [1, "x"]}}, "model.inner.rates is 'x'; it must be a number"),
    ],
)
def test_fill__names_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(values)


def test_fill__may_ignore_unknown_options_of_the_section_itself():
    assert fill(Outer, {"old": 1, "size": 2}, "model", {}, ignore_unknown=True).size == 2
    with pytest.raises(ValueError, match=r"model\.inner\.old"):
        fill(Outer, {"inner": {"old": 1}}, "model", {}, ignore_unknown=True)


def test_plain__is_what_fairseq_saves():
    cfg = EatClassifierConfig(num_classes=3, image_size=[4, 5])
    expected = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    assert plain(cfg) == expected
    assert list(plain(cfg)) == list(expected)
    assert fill(EatClassifierConfig, expected, "model", {}).prediction_mode == cfg.prediction_mode


def test_plain__of_a_configuration_of_omegaconf():
    cfg = OmegaConf.create({"a": "${b}", "b": [1, {"c": None}], "colour": Colour.RED})
    assert plain(cfg) == {"a": [1, {"c": None}], "b": [1, {"c": None}], "colour": "RED"}


def test_merge__joins_nested_options():
    first = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merge(first, {"a": {"c": {"f": 4}}, "e": {"g": 5}}) == {
        "a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": {"g": 5},
    }  # fmt: skip
    assert first == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_is_missing__of_both_kinds_of_configuration():
    for cfg in (Outer(), OmegaConf.structured(Outer())):
        assert is_missing(cfg, "data")
        assert not is_missing(cfg, "name")
    assert not is_missing(OmegaConf.structured(Outer(maybe=None)), "maybe")
