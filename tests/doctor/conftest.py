"""Software and a machine on which everything works."""

import pytest

from eat_plugin.doctor.machine import Gpu, Machine
from eat_plugin.doctor.software import Software

PACKAGES = {
    "fairseq-fixed": "0.12.3.1", "hydra-core": "1.3.2", "omegaconf": "2.3.0",
    "antlr4-python3-runtime": "4.9.3", "torch": "2.13.0+cu126", "numpy": "2.4.6",
    "soundfile": "0.14.0",
}  # fmt: skip
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 85 * 10**9)


@pytest.fixture
def software():
    """Make software: the versions of the pins, with others in place or (None) left out."""

    def make(python=(3, 11, 9), failures=(), compiler="/usr/bin/c++", **changes):
        packages = {**PACKAGES, **{name.replace("_", "-"): v for name, v in changes.items()}}
        packages = {name: found for name, found in packages.items() if found is not None}
        return Software(python, packages, dict(failures), compiler, bool(compiler), "1.2.2")

    return make


@pytest.fixture
def machine():
    """Make a machine with two H100, or with changes."""

    def make(**changes):
        good = Machine(
            cores=16, threads=8, shared=10**10, files=65536, gpus=(H100, H100),
            listed=(H100.name,) * 2, driver="560.35.03", cuda="12.6",
            architectures=("sm_80", "sm_90", "compute_90"), memory=10**11,
        )  # fmt: skip
        return good._replace(**changes)

    return make
