import json
import math

import numpy as np

from eat_plugin.report.panels import MOST_POINTS, draw_classes, draw_curve, group_names
from eat_plugin.report.references import Reference


def test_group_names__known_values_have_their_place_and_others_are_kept():
    names = [
        "gnorm", "loss", "loss_recon", "eval_accuracy", "loss_scale", "wps", "train_loss",
        "skipped_clips", "new_value", "ema_decay", "eval_loss", "monitor_target_rank",
        "monitor_knn_accuracy",
    ]  # fmt: skip
    assert group_names(names) == {
        "Losses": ["loss", "loss_recon"],
        "Validation": ["eval_accuracy", "eval_loss"],
        "Monitoring": ["monitor_knn_accuracy", "monitor_target_rank"],
        "Optimisation": ["gnorm", "loss_scale"],
        "Teacher and targets": ["ema_decay"],
        "Other values": ["new_value"],
        "Speed": ["skipped_clips"],
    }


def test_draw_curve__long_curves_are_thinned_and_keep_their_spikes_and_end():
    updates = list(range(1, 1202))
    values = [9.0 if update in (2, 607) else 1 / update for update in updates]
    chart = draw_curve("loss", {"run": {"loss": (updates, values)}})
    shown = {row["update"]: row["value"] for row in chart.spec["data"]["values"]}
    assert len(shown) <= MOST_POINTS
    assert list(shown)[-1] == 1201
    assert (shown[2], shown[607]) == (9, 9)


def test_draw_curve__updates_without_a_finite_value_are_gaps_and_marked():
    values = [1.0] * 2000
    values[700:702], values[703] = [math.nan, math.inf], 9.0
    chart = draw_curve("loss", {"a": {"loss": (list(range(2000)), values)}, "b": {}})
    json.dumps(chart.spec, allow_nan=False)
    shown = {row["update"]: row["value"] for row in chart.spec["data"]["values"]}
    gaps = {update for update, value in shown.items() if value is None}
    assert gaps
    assert gaps <= {700, 701}
    assert shown[703] == 9
    marked = chart.spec["layer"][0]
    assert {row["update"] for row in marked["data"]["values"]} == gaps
    assert marked["encoding"]["tooltip"] == {"value": "not a finite number"}


def test_draw_curve__values_between_those_that_are_not_finite_are_shown():
    values = [1.0] * 30
    values[10], values[12], values[28] = [math.nan] * 3
    spec = draw_curve("loss", {"run": {"loss": (list(range(30)), values)}}).spec
    assert [row["update"] for row in spec["data"]["values"] if row.get("alone")] == [11, 29]
    shown = spec["layer"][-1]["encoding"]["opacity"]["condition"]
    assert {"test": "datum.alone", "value": 1} in shown


def test_draw_curve__references_and_the_healthy_run_up_to_the_last_update():
    references = [Reference("line", 2.0, "predicting 0"), Reference("update", 50, "warm-up")]
    healthy = {"loss": ([10, 20, 30], [3.0, 2.0, 1.0])}
    chart = draw_curve("loss", {"run": {"loss": ([5, 20], [3.0, 2.5])}}, references, healthy)
    layers = chart.spec["layer"]
    assert len(layers) == 4  # a line, the healthy run, the curve, the points below the pointer
    assert layers[0]["encoding"]["tooltip"] == {"value": "predicting 0"}
    assert [row["update"] for row in layers[1]["data"]["values"]] == [10, 20]


def test_draw_curve__a_run_without_the_value_keeps_its_colour():
    chart = draw_curve("gnorm", {"a": {}, "b": {"gnorm": ([5, 20], [3.0, 2.5])}})
    colour = chart.spec["layer"][0]["encoding"]["color"]
    assert colour["scale"]["domain"] == ["a", "b"]
    assert colour["legend"]


def test_draw_classes__undefined_precisions_are_left_out():
    chart = draw_classes(["b", "A", "c"], np.array([0.5, 1.0, np.nan]), np.array([3, 1, 0]))
    rows = chart.spec["data"]["values"]
    assert [(row["class"], row["AP"], row["alphabetic"]) for row in rows] == [
        ("b", 0.5, 1), ("A", 1.0, 0),
    ]  # fmt: skip
