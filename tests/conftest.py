"""Fixtures that every part of the suite may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden numbers in the repository; its README says what is what."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large test files, $EAT_SHARED; a test that needs it is skipped without."""
    folder = Path(os.path.abspath(ROOT / os.environ.get("EAT_SHARED", "../shared")))
    if not folder.is_dir():
        pytest.skip(f"EAT_SHARED not found at {folder}")
    return folder
