"""What happens when fairseq is imported, with Python 3.14 too."""

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any, List, Optional

import pytest

import eat_plugin
from eat_plugin.registration import read_unions

UTILS = "fairseq.dataclass.utils"


@pytest.mark.parametrize(
    ("kind", "read"),
    [(Optional[str], str), (Optional[List[int]], List[int]), (int, int), (Any, "given")],
)
def test_read_unions__optional_is_its_type(kind, read):
    utils = SimpleNamespace(interpret_dc_type=lambda kind: "given" if kind is Any else kind)
    read_unions(utils)
    assert utils.interpret_dc_type(kind) == read


@pytest.mark.parametrize(("version", "adapted"), [((3, 13, 9), False), ((3, 14, 0), True)])
def test_import_of_fairseq__reads_unions_with_python_3_14(monkeypatch, version, adapted):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        finder = eat_plugin._AfterFairseq()
    spec = finder.find_spec(UTILS, None)
    assert (spec is not None) == adapted
    if adapted:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.interpret_dc_type.__wrapped__(int) is int
        assert module.interpret_dc_type(Optional[str]) is str
