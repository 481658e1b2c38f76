"""Charts of an evaluation."""

import builtins
import io

import numpy as np
import pytest

from eat_plugin.report import charts


def bars_of(figure):
    (axes,) = figure.get_axes()
    widths = [patch.get_width() for patch in axes.patches]
    return dict(zip((text.get_text() for text in axes.get_yticklabels()), widths)), axes


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return len(buffer.getvalue())


def test_draw_average_precision__best_first_without_nan():
    figure = charts.draw_average_precision(
        ("a", "b$", "c", "d"), np.array([0.2, 0.9, np.nan, 0.4]), "eval"
    )
    bars, axes = bars_of(figure)
    assert bars == {r"b\$": 0.9, "d": 0.4, "a": 0.2}
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_legend().get_texts()[0].get_text() == "mean 0.500"
    assert render(figure) > 1000


def test_draw_average_precision__best_and_worst_of_many_classes():
    values = np.random.default_rng(0).permutation(200) / 200
    names = tuple(f"{value:.3f}" for value in values)
    bars, axes = bars_of(charts.draw_average_precision(names, values, "eval"))
    expected = [*np.arange(199, 159, -1) / 200, *np.arange(39, -1, -1) / 200]
    assert list(bars.values()) == pytest.approx(expected)
    assert all(float(name) == value for name, value in bars.items())
    assert "the 40 best and the 40 worst" in axes.get_title(loc="left")


def test_draw_confusion__shares_of_the_true_class():
    counts = np.array([[3, 1], [0, 0]])
    figure = charts.draw_confusion(("a", "b"), counts, "eval")
    axes = figure.get_axes()[0]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[0.75, 0.25], [0, 0]])
    written = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert written == {((0, 0), "3"), ((1, 0), "1")}  # (predicted, true)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert render(figure) > 1000
    many = charts.draw_confusion(("x",) * 100, np.eye(100, dtype=int), "eval").get_axes()[0]
    assert not many.texts


def test_draw__without_matplotlib_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="extra 'plot'"):
        charts.draw_confusion(("a", "b"), np.eye(2, dtype=int), "eval")
