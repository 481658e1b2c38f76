"""Combinations of versions that fail are named."""

import pytest

from eat_plugin.doctor import software as module
from eat_plugin.doctor.finding import find_worst
from eat_plugin.doctor.software import check_software, parse_version, read_software

OLD = {"fairseq": "0.12.2", "fairseq_fixed": None}
OLD_STACK = {
    **OLD, "python": (3, 9, 18), "hydra_core": "1.0.7", "omegaconf": "2.0.6", "numpy": "1.23.5",
    "antlr4_python3_runtime": "4.8", "torch": "2.1.2",
}  # fmt: skip
BROKEN = {
    "old Python": ({"python": (3, 8, 1)}, "older than 3.9"),
    "two fairseqs": ({"fairseq": "0.12.3"}, "are both installed"),
    "fairseq and Python": (
        {**OLD_STACK, "python": (3, 12, 0)},
        "0.12.2 cannot be imported",
    ),
    "fairseq and hydra": ({**OLD_STACK, "hydra_core": "1.3.2"}, "hydra 1.0 and omegaconf 2.0 only"),
    "fairseq and NumPy": ({**OLD_STACK, "numpy": "1.26.4"}, "np.float"),
    "hydra 1.3": ({"omegaconf": "2.0.6"}, "need omegaconf 2.1"),
    "hydra 1.0": ({"hydra_core": "1.0.7", "python": (3, 9, 0)}, "hydra 1.0 needs omegaconf 2.0"),
    "antlr 4.8": ({"antlr4_python3_runtime": "4.8"}, "antlr4 before 4.9"),
    "antlr 4.9": ({**OLD_STACK, "antlr4_python3_runtime": "4.9.3"}, "antlr4 4.9 and later"),
    "hydra and Python": ({"hydra_core": "1.2.0"}, "hydra before 1.3"),
    "old PyTorch": ({"torch": "2.0.1", "numpy": "1.26.4"}, "older than 2.1"),
    "PyTorch and NumPy": ({"torch": "2.2.2+cu118"}, "cannot exchange arrays with NumPy 2"),
}


@pytest.mark.parametrize("changes", [{}, OLD_STACK], ids=["pins", "older stack"])
def test_check_software__known_to_work(software, changes):
    (found,) = check_software(software(**changes))
    assert found.level == "ok"
    assert "omegaconf 2." in found.seen


@pytest.mark.parametrize(("changes", "words"), BROKEN.values(), ids=BROKEN)
def test_check_software__known_to_fail(software, changes, words):
    found = check_software(software(**changes))
    named = [one for one in found if words in one.seen]
    assert [one.level for one in named] == ["error"]
    assert "pip install" in named[0].fix or "Python 3.9" in named[0].fix


def test_check_software__new_python_is_a_warning(software):
    newest, untested = (check_software(software(python=(3, minor, 0))) for minor in (14, 15))
    assert find_worst(newest) == find_worst(untested) == "warning"
    assert ["train by eat pretrain" in one.fix for one in newest] == [False, True]
    assert "newer than 3.14" in untested[-1].seen


def test_check_software__old_libsndfile_is_a_warning(software):
    found = check_software(software()._replace(libsndfile="1.0.31"))
    assert [one.level for one in found] == ["ok", "warning"]
    assert "mp3" in found[1].seen


def test_check_software__fairseq_has_to_be_built(software):
    missing = {"fairseq": "ModuleNotFoundError: No module named 'fairseq'"}
    found = check_software(software(fairseq_fixed=None, failures=missing))
    assert [one.seen for one in found[1:]] == ["fairseq is not installed"]
    assert "--no-build-isolation" in found[1].fix
    found = check_software(software(fairseq_fixed=None, failures=missing, compiler=""))
    assert [one.level for one in found] == ["ok", "error", "error", "error"]
    assert "no C++ compiler" in found[2].seen
    assert "Python.h" in found[3].seen


def test_check_software__a_package_that_cannot_be_imported(software):
    (_, found) = check_software(software(failures={"hydra": "ImportError: broken"}))
    assert "hydra cannot be imported: ImportError: broken" in found.seen
    assert "hydra-core" in found.fix
    # The reason is known: one line is enough.
    known = software(python=(3, 12, 0), failures={"fairseq": "ValueError: mutable"}, **OLD)
    assert not [one for one in check_software(known) if "ValueError: mutable" in one.seen]


def test_read_software__of_this_environment():
    found = read_software()
    assert not found.failures
    assert found.packages.keys() >= {"torch", "numpy", "omegaconf", "hydra-core"}
    assert parse_version(found.libsndfile) > (1,)
    assert find_worst(check_software(found)) == "ok"


def test_read_software__keeps_the_reason_of_a_failure(monkeypatch):
    def fail(name):
        raise OSError("libtorch.so: no such file\nand more")

    monkeypatch.setattr(module.importlib, "import_module", fail)
    assert read_software().failures["torch"] == "OSError: libtorch.so: no such file"


@pytest.mark.parametrize(
    ("text", "numbers"), [("2.13.0+cpu", (2, 13, 0)), ("1.0.0a0", (1, 0, 0)), ("of", ())]
)
def test_parse_version(text, numbers):
    assert parse_version(text) == numbers
