"""Versions of Python and packages: combinations that are known to fail."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from .finding import ERROR, OK, SOFTWARE, WARNING, Finding

FAIRSEQ, FIXED = "fairseq", "fairseq-fixed"
PACKAGES = (
    FAIRSEQ, FIXED, "hydra-core", "omegaconf", "antlr4-python3-runtime", "torch", "numpy",
    "soundfile",
)  # fmt: skip
MODULES = ("torch", "numpy", "soundfile", "hydra", "omegaconf", "fairseq")  # in this order
COMPILERS = ("c++", "g++", "clang++")
MP3 = (1, 1)  # first libsndfile that decodes mp3
INSTALL = f"pip install --no-build-isolation {FIXED} (after torch, numpy, cython and setuptools)"

Version = tuple[int, ...]


class Software(NamedTuple):
    """What is installed.

    Attributes:
        python: version.
        packages: versions of the installed ones of ``PACKAGES``.
        failures: modules of ``MODULES`` that cannot be imported, with the reason.
        compiler: path of a C++ compiler; empty without.
        headers: whether those of Python are installed.
        libsndfile: version; empty if unknown.
    """

    python: Version
    packages: Mapping[str, str]
    failures: Mapping[str, str]
    compiler: str
    headers: bool
    libsndfile: str

    def has(self, package: str, least: Version = (), below: Version = (1000,)) -> bool:
        """Whether a package is installed in a version from ``least`` to before ``below``."""
        found = self.packages.get(package)
        return found is not None and least <= parse_version(found) < below


class Combination(NamedTuple):
    """Versions that do not work (together).

    Attributes:
        holds: whether they are installed.
        seen: what fails.
        fix: what to install.
        level: of the finding.
    """

    holds: Callable[[Software], bool]
    seen: str
    fix: str
    level: str = ERROR


def _is_old(software: Software) -> bool:
    """Whether fairseq is that of PyPI, 0.12.2 or before."""
    return software.has(FAIRSEQ, below=(0, 12, 3))


COMPILED = "without one, for Python 3.11 on Linux: pip install --no-deps ve-fairseq==0.12.3"
NEWER = f"pip uninstall fairseq, then {INSTALL}"
COMBINATIONS = (
    Combination(
        lambda s: s.python < (3, 9), "Python is older than 3.9", "use Python 3.9 to 3.14"
    ),
    Combination(
        lambda s: s.python >= (3, 14),
        "fairseq-hydra-train and the other commands of fairseq fail with Python 3.14 and later",
        "train by eat pretrain and eat finetune, or use Python 3.9 to 3.13", WARNING,
    ),
    Combination(
        lambda s: s.python >= (3, 15), "Python is newer than 3.14, the last one that was tested",
        "use Python 3.9 to 3.14 if anything fails", WARNING,
    ),
    Combination(
        lambda s: s.has(FAIRSEQ) and s.has(FIXED),
        "fairseq and fairseq-fixed are both installed, and each has overwritten files of the other",
        f"pip uninstall fairseq {FIXED}, then {INSTALL}",
    ),
    Combination(
        lambda s: _is_old(s) and s.python >= (3, 11),
        "fairseq 0.12.2 cannot be imported by Python 3.11 and later (mutable defaults of its "
        "dataclasses)",
        f"{NEWER}, or use Python 3.9 or 3.10",
    ),
    Combination(
        lambda s: _is_old(s) and (s.has("hydra-core", (1, 1)) or s.has("omegaconf", (2, 1))),
        "fairseq 0.12.2 works with hydra 1.0 and omegaconf 2.0 only",
        f"pip install hydra-core==1.0.7 omegaconf==2.0.6, with a pip before 24.1; or {NEWER}",
    ),
    Combination(
        lambda s: _is_old(s) and s.has("numpy", (1, 24)),
        "fairseq 0.12.2 uses np.float, which NumPy 1.24 and later do not have",
        f"pip install 'numpy<1.24', or {NEWER}",
    ),
    Combination(
        lambda s: s.has("hydra-core", (1, 1)) and s.has("omegaconf", below=(2, 1)),
        "hydra 1.1 and later need omegaconf 2.1 or later",
        "pip install hydra-core==1.3.2 omegaconf==2.3.0",
    ),
    Combination(
        lambda s: s.has("hydra-core", below=(1, 1)) and s.has("omegaconf", (2, 1)),
        "hydra 1.0 needs omegaconf 2.0", "pip install hydra-core==1.3.2 omegaconf==2.3.0",
    ),
    Combination(
        lambda s: s.has("hydra-core", (1, 1)) and s.has("antlr4-python3-runtime", below=(4, 9)),
        "hydra 1.1 and later cannot parse overrides with antlr4 before 4.9",
        "pip install antlr4-python3-runtime==4.9.3",
    ),
    Combination(
        lambda s: s.has("hydra-core", below=(1, 1)) and s.has("antlr4-python3-runtime", (4, 9)),
        "hydra 1.0 cannot parse overrides with antlr4 4.9 and later",
        "pip install antlr4-python3-runtime==4.8",
    ),
    Combination(
        lambda s: s.has("hydra-core", below=(1, 3)) and s.python >= (3, 11),
        "hydra before 1.3 cannot be imported by Python 3.11 and later",
        "pip install hydra-core==1.3.2 omegaconf==2.3.0",
    ),
    Combination(
        lambda s: s.has("torch", below=(2, 1)), "PyTorch is older than 2.1",
        "pip install 'torch>=2.1'",
    ),
    Combination(
        lambda s: s.has("torch", below=(2, 3)) and s.has("numpy", (2,)),
        "PyTorch before 2.3 is built for NumPy 1 and cannot exchange arrays with NumPy 2",
        "pip install 'numpy<2', or 'torch>=2.3'",
    ),
    Combination(
        lambda s: bool(s.libsndfile) and parse_version(s.libsndfile) < MP3,
        "libsndfile is older than 1.1 and does not decode mp3",
        "pip install --upgrade soundfile brings a newer one", WARNING,
    ),
)  # fmt: skip


def parse_version(text: str) -> Version:
    """Return the numbers of a version, as (2, 13, 0) of ``2.13.0+cpu``."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def read_software() -> Software:
    """Read versions, and import what a run imports."""
    packages, failures, libsndfile = {}, {}, ""
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001, whatever a broken package raises
            failures[name] = f"{type(error).__name__}: {error}".split("\n")[0]
            continue
        libsndfile = getattr(module, "__libsndfile_version__", libsndfile)
        if name == FAIRSEQ and not {FAIRSEQ, FIXED} & packages.keys():
            packages[FAIRSEQ] = str(getattr(module, "__version__", "of unknown version"))
    compiler = next(filter(None, map(shutil.which, COMPILERS)), "")
    headers = Path(sysconfig.get_paths()["include"], "Python.h").is_file()
    return Software(sys.version_info[:3], packages, failures, compiler, headers, libsndfile)


def check_software(software: Software) -> list[Finding]:
    """Name the versions, and what of them does not work."""
    python = ".".join(map(str, software.python))
    named = [f"Python {python}", *(f"{name} {found}" for name, found in software.packages.items())]
    findings = [Finding(SOFTWARE, OK, ", ".join(named))]
    known = [one for one in COMBINATIONS if one.holds(software)]
    findings += [Finding(SOFTWARE, one.level, one.seen, one.fix) for one in known]
    has_reason = any(one.level == ERROR for one in known)
    for name, reason in software.failures.items():
        if name == FAIRSEQ and not {FAIRSEQ, FIXED} & software.packages.keys():
            findings += _check_build(software)
        elif not has_reason:
            findings.append(_explain_import(name, reason))
    return findings


def _check_build(software: Software) -> list[Finding]:
    """Say that fairseq is missing, and what its build lacks."""
    findings = [Finding(SOFTWARE, ERROR, "fairseq is not installed", INSTALL)]
    if not software.compiler:
        seen = "there is no C++ compiler, and fairseq has to be compiled"
        fix = f"apt install g++, or your cluster's module; {COMPILED}"
        findings.append(Finding(SOFTWARE, ERROR, seen, fix))
    if not software.headers:
        seen = "the headers of Python (Python.h) are missing, and fairseq has to be compiled"
        findings.append(Finding(SOFTWARE, ERROR, seen, "apt install python3-dev"))
    return findings


def _explain_import(name: str, reason: str) -> Finding:
    package = {"hydra": "hydra-core"}.get(name, name)
    fix = f"pip install --force-reinstall {package}"
    if name == FAIRSEQ:
        fix = "read the reason; another plugin with the same names, or a damaged installation"
    return Finding(SOFTWARE, ERROR, f"{name} cannot be imported: {reason}", fix)
