"""The comparison of an exported file with its checkpoint, by hand."""

import pytest
import torch

from eat_plugin.inference.portable import Difference, summarise


def test_summarise__largest_of_all_clips_and_relative_to_large_features():
    small, large = torch.tensor([0.5, -0.25]), torch.tensor([0.0, -8.0])
    scores = (torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    found = [((small, small + 0.125), None), ((large, large + 2.0), scores)]
    assert summarise(found) == Difference(0.25, 0.25, 2)
    assert summarise(found[:1]) == Difference(0.125, None, 1)


def test_check__refuses_what_is_above_the_tolerance_or_not_a_number():
    Difference(1e-5, 1e-5, 3).check("x")
    for features, scores in ((2e-5, 0.0), (0.0, 2e-5), (float("nan"), 0.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="x would differ from the checkpoint by .* on 3 clips"):
            Difference(features, scores, 3).check("x")
    Difference(9e-4, None, 1).check("x", tolerance=1e-3)


def test_summarise__keeps_what_is_not_a_number():
    one, bad = torch.ones(2), torch.tensor([1.0, float("nan")])
    assert str(summarise([((one, one), None), ((one, bad), None), ((one, one), None)])) == (
        "3 clips: features nan"
    )
