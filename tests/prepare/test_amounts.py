"""Amounts in words."""

import pytest

from eat_plugin.prepare.amounts import count, describe_bytes, describe_pixels, describe_time


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        (0, "clip", "0 clips"), (1, "clip", "1 clip"), (2, "clip", "2 clips"),
        (1, "class", "1 class"), (2, "class", "2 classes"), (1, "shard", "1 shard"),
    ],
)  # fmt: skip
def test_count__plurals(number, unit, expected):
    assert count(number, unit) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.05, "0.05 seconds"), (59.9, "59.90 seconds"), (60, "1.00 minutes"),
        (3599, "59.98 minutes"), (3600, "1.00 hours"), (1e6, "277.78 hours"),
    ],
)  # fmt: skip
def test_describe_time__in_the_unit_that_fits(seconds, expected):
    assert describe_time(seconds) == expected


def test_describe__bytes_and_pixels():
    assert [describe_bytes(10.0**power) for power in (2, 3, 6, 9, 12)] == [
        "0.10 kB", "1.00 kB", "1.00 MB", "1.00 GB", "1000.00 GB",
    ]  # fmt: skip
    assert [describe_pixels(10.0**power) for power in (3, 5, 7)] == [
        "1.00 kilopixels", "100.00 kilopixels", "10.00 megapixels",
    ]  # fmt: skip
