"""Amounts in words: plurals, and units that fit the number."""

from __future__ import annotations


def count(number: int, unit: str) -> str:
    """Return a number and its unit, as ``1 shard`` or ``3 classes``."""
    if number == 1:
        return f"1 {unit}"
    return f"{number} {unit}{'es' if unit.endswith('s') else 's'}"


def describe_time(seconds: float) -> str:
    """Return a time in hours, minutes or seconds."""
    return _describe(seconds, (3600, "hours"), (60, "minutes"), (1, "seconds"))


def describe_bytes(number: float) -> str:
    """Return a number of bytes in GB, MB or kB."""
    return _describe(number, (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def describe_pixels(number: float) -> str:
    """Return a number of pixels in megapixels or kilopixels."""
    return _describe(number, (1e6, "megapixels"), (1e3, "kilopixels"))


def _describe(value: float, *units: tuple[float, str]) -> str:
    """Return a value in the first of the units that it reaches, or in the last one."""
    size, unit = next((each for each in units if value >= each[0]), units[-1])
    return f"{value / size:.2f} {unit}"
