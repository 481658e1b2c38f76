import builtins
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eat_plugin.cli import main, plot
from eat_plugin.report.draw_curves import arrange_panels, draw_comparison, name_runs
from eat_plugin.report.example import Example
from eat_plugin.report.runlog import read_curves


def log_line(update, tag="train_inner", **values):
    record = {"epoch": 1, "update": 0.5, "num_updates": str(update), **values}
    return f"[2026-01-01 00:00:00,000][{tag}][INFO] - {json.dumps(record)}\n"


@pytest.fixture
def run_dir(tmp_path, make_checkpoint, sounds):
    """A run of two logged updates on three clips."""
    lines = [str(sounds), "a.wav\t8000", "deep er/b.flac\t20480", "c.wav\t51200"]
    (sounds / "train.tsv").write_text("\n".join(lines) + "\n")
    run = tmp_path / "a run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "hydra_train.log").write_text(
        log_line(10, loss="2.5", loss_recon="1.5", target_var=0.25, lr="1e-4", gnorm="2")
        + log_line(20, loss="2.0", loss_recon="1.0", target_var=0.5, lr="2e-4", gnorm="1")
    )
    checkpoint = make_checkpoint("pretraining", task_data=str(sounds), model_recon_loss=1.0)
    checkpoint.rename(run / "checkpoints" / "checkpoint_last.pt")
    return run


def make_example(**changes):
    masks = np.zeros((2, 4, 8), dtype=bool)
    masks[0, 1:, 2] = masks[1, 2] = True
    rng = np.random.default_rng(0)
    spectrogram = rng.standard_normal((64, 128)).astype(np.float32)
    return Example("a_clip.wav", spectrogram, 20.0, masks)._replace(**changes)


CURVES = {
    "loss": ([10, 20], [2.5, 2.0]),
    "loss_regression": ([10, 20], [2.5, 2.0]),
    "target_var": ([10, 20], [0.9, 1.0]),
    "pred_var": ([10, 20], [0.2, 0.5]),
    "lr": ([10, 20], [1e-4, 2e-4]),
    "gnorm": ([10, 20], [6, 2]),
    "loss_scale": ([10, 20], [128, 256]),
}
CFG = {
    "model": {
        "modalities": {"image": {"patch_size": 16, "in_chans": 1}}, "embed_dim": 64,
        "layer_norm_targets": True, "d2v_loss": 1.0,
    },
    "optimization": {"clip_norm": 4.0},
    "lr_scheduler": {"warmup_updates": 15},
}  # fmt: skip


def titles_of(figure):
    return [axes.get_title(loc="left") for axes in figure.get_axes()]


def legend_of(figure, title):
    (axes,) = (axes for axes in figure.get_axes() if axes.get_title(loc="left") == title)
    legend = axes.get_legend()
    return None if legend is None else [text.get_text() for text in legend.get_texts()]


def test_draw_figure__a_panel_for_each_curve_with_its_references():
    figure = plot.draw_figure(CURVES, CFG, None, "a run")
    assert titles_of(figure) == [
        "loss: training objective", "loss_regression: features", "target_var and pred_var",
        "lr: learning rate", "gnorm: gradient norm", "loss_scale of float16",
    ]  # fmt: skip
    assert legend_of(figure, "loss: training objective") is None
    assert legend_of(figure, "loss_regression: features") == ["predicting 0"]
    assert legend_of(figure, "target_var and pred_var") == [
        "target_var", "pred_var", "highest possible", "collapsed",
    ]  # fmt: skip
    assert legend_of(figure, "lr: learning rate") == ["end of warm-up"]
    assert legend_of(figure, "gnorm: gradient norm") == ["clipped above 4"]
    assert "a run: 20 updates" in figure.get_suptitle()
    first = figure.get_axes()[0]
    assert not first.spines["top"].get_visible()
    assert first.get_yticklabels()[0].get_size() == 8


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3])])
def test_arrange_panels__rows_of_similar_length(count, sizes):
    rows = arrange_panels({f"loss_{number}": ([1], [1.0]) for number in range(count)})
    assert [len(row) for row in rows] == sizes


def test_draw_figure__leaves_out_the_rate_after_the_last_update():
    cfg = {"optimization": {"max_update": 20}}
    curves = {"loss": CURVES["loss"], "lr": ([10, 19, 20], [2.0, 1.0, 9.0])}
    figure = plot.draw_figure(curves, cfg, None, "run")
    (axes,) = [axes for axes in figure.axes if axes.get_title("left") == "lr: learning rate"]
    assert axes.lines[0].get_xdata().tolist() == [10, 19]


def test_draw_figure__without_a_configuration_there_are_no_references():
    figure = plot.draw_figure(CURVES, {}, None, "a run")
    assert legend_of(figure, "loss_regression: features") is None


def test_draw_figure__covers_what_each_mask_hides():
    example = make_example(reconstructions=np.zeros((2, 64, 128)))
    figure = plot.draw_figure(CURVES, {}, example, "a run")
    views = [axes for axes in figure.get_axes() if "student's view" in axes.get_title(loc="left")]
    assert len(views) == 2
    # The second image of a view covers exactly what its mask hides: the rest is transparent.
    for axes, mask in zip(views, example.masks):
        shown = axes.get_images()[1].get_array()
        np.testing.assert_array_equal(~np.ma.getmaskarray(shown), mask.T)


def test_draw_figure__reconstruction_beside_each_mask_without_padding():
    example = make_example(reconstructions=np.random.default_rng(1).random((2, 64, 128)))
    example.spectrogram[48:] = np.nan
    figure = plot.draw_figure(CURVES, {}, example, "a run")
    panels = dict(zip(titles_of(figure), figure.get_axes()))
    for number in range(2):
        shown = panels[f"reconstruction {number + 1}"].get_images()[0].get_array()
        assert np.ma.getmaskarray(shown)[:, 48:].all()
        expected = example.reconstructions[number, :48].T
        np.testing.assert_array_equal(shown[:, :48], expected)


def test_draw_figure__agreement_without_a_reconstruction():
    agreements = np.where(make_example().masks, 0.5, np.nan)
    figure = plot.draw_figure(CURVES, {}, make_example(agreements=agreements), "a run")
    panels = [axes for axes in figure.get_axes() if "agreement" in axes.get_title(loc="left")]
    assert len(panels) == 2
    for number, (axes, values) in enumerate(zip(panels, agreements), start=1):
        assert axes.get_title(loc="left") == f"agreement {number}: mean 0.50"
        shown = axes.get_images()[0].get_array()
        np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.isnan(values.T))


def test_plot__writes_a_picture(run_dir, tmp_path, capsys):
    out = tmp_path / "new folder" / "losses.png"
    assert main(["plot", "--run", str(run_dir), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "without" not in captured.err


@pytest.fixture
def finetuned(make_checkpoint, tmp_path):
    """Two fine-tuning runs with three validations each."""
    folders = []
    for name, scores in (("finetuned", (0.5, 0.75, 0.7)), ("scratch", (0.25, 0.5, 0.5))):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        lines = [log_line(2, loss="2.5")]
        for update, score in zip((10, 20, 30), scores):
            values = {"eval_loss": 1 - score, "eval_mAP": score, "eval_num_updates": update}
            lines.append(json.dumps({"epoch": 1, **values}) + "\n")
        (folder / "hydra_train.log").write_text("".join(lines))
        checkpoint = make_checkpoint("classification")
        checkpoint.rename(folder / "checkpoints" / "checkpoint_last.pt")
        folders.append(folder)
    return folders


def test_plot__fine_tuning_shows_losses_and_metric(finetuned, tmp_path, capsys, monkeypatch):
    titles, draw = [], plot.draw_figure

    def record(*args):
        figure = draw(*args)
        titles.extend(titles_of(figure))
        return figure

    monkeypatch.setattr(plot, "draw_figure", record)
    assert main(["plot", "--run", str(finetuned[0]), "--out", str(tmp_path / "x.png")]) == 0
    assert titles == ["loss: training objective", "eval_loss", "eval_mAP"]
    assert "without" not in capsys.readouterr().err


def test_draw_comparison__validation_of_all_runs_in_the_same_axes(finetuned):
    figure = draw_comparison({folder.name: read_curves(folder) for folder in finetuned})
    assert titles_of(figure) == ["eval_mAP", "eval_loss"]
    assert legend_of(figure, "eval_mAP") == ["finetuned: highest 0.75", "scratch: highest 0.5"]
    assert legend_of(figure, "eval_loss") == ["finetuned: lowest 0.25", "scratch: lowest 0.5"]


def test_draw_comparison__each_of_many_runs_has_its_own_style():
    name = "a long name of a folder, with date and hour_2026-01-01_00-00-00"
    figure = draw_comparison({f"{number} {name}": CURVES for number in range(12)})
    lines = figure.get_axes()[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    labels = legend_of(figure, "loss: training objective")
    assert labels[0] == f"0 a long n…{name[-21:]}: lowest 2"


def test_draw_comparison__no_run_is_left_out():
    figure = draw_comparison({"_a": {**CURVES, "eval_loss": ([1], [0.5])}, "b": CURVES})
    labels = legend_of(figure, "loss: training objective")
    assert labels == [" _a: lowest 2", "b: lowest 2"]
    names = [f"same begin {middle} and the same end of it" for middle in "xy"]
    labels = legend_of(draw_comparison(dict.fromkeys(names, CURVES)), "loss: training objective")
    assert labels == [f"{name}: lowest 2" for name in names]


def test_draw_figure__updates_without_a_finite_value_and_those_between_are_marked():
    values = [1.0] * 30
    values[10], values[12] = np.nan, np.inf
    figure = plot.draw_figure({"loss": (list(range(30)), values)}, {}, None, "a run")
    (axes,) = figure.get_axes()
    (gaps,) = axes.collections
    assert [segment[0][0] for segment in gaps.get_segments()] == [10, 12]
    (line,) = axes.get_lines()
    assert line.get_markevery() == [11]
    assert legend_of(figure, "loss: training objective") == ["not finite"]


def test_draw_comparison__without_validation_the_training_losses():
    figure = draw_comparison({"a": CURVES, "b": CURVES})
    assert titles_of(figure) == ["loss: training objective", "loss_regression: features"]


def test_name_runs__by_the_parts_that_differ():
    folders = [Path("/runs/a/finetuned"), Path("/runs/b/finetuned")]
    assert name_runs(folders) == ["a/finetuned", "b/finetuned"]
    assert name_runs([Path("/runs/a/finetuned"), Path("/runs/a/scratch")]) == [
        "finetuned", "scratch",
    ]  # fmt: skip


@pytest.mark.parametrize("is_repeated", [False, True])
def test_plot__compares_runs(finetuned, tmp_path, is_repeated):
    first, second = map(str, finetuned)
    options = ["--run", first, *(["--run"] if is_repeated else []), second]
    assert main(["plot", *options, "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").stat().st_size > 1000


def damage(run, what):
    checkpoint = run / "checkpoints" / "checkpoint_last.pt"
    data = run.parent / "sounds"
    if what == "no checkpoint":
        checkpoint.unlink()
    elif what == "not a checkpoint":
        checkpoint.write_bytes(b"text")
    elif what == "other model":
        cfg = {"task": {"data": "x"}, "model": {"_name": "transformer"}}
        torch.save({"cfg": cfg, "model": {}}, checkpoint)
    elif what == "no clip":
        for path in [*data.rglob("*.wav"), *data.rglob("*.flac")]:
            path.write_bytes(b"text")
    elif what == "moved data":
        data.rename(run.parent / "elsewhere")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no checkpoint", "without reference values and example clip: no checkpoint (*.pt) in"),
        ("not a checkpoint", "without reference values and example clip:"),
        ("other model", "without example clip:"),
        ("no clip", "without example clip: none of the 3 longest clips can be read"),
        ("moved data", "without example clip:"),
    ],
)
def test_plot__draws_the_curves_without_an_example(run_dir, tmp_path, capsys, what, message):
    damage(run_dir, what)
    assert main(["plot", "--run", str(run_dir), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").stat().st_size > 1000
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "eat plot" in line)
    assert message in line


def test_plot__without_a_log_is_an_error_of_one_line(run_dir, tmp_path, capsys):
    (run_dir / "hydra_train.log").unlink()
    assert main(["plot", "--run", str(run_dir), "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("eat plot: error: no logged update in")
    assert error.count("\n") == 1


def test_plot__without_matplotlib_names_the_extra(run_dir, tmp_path, capsys, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["plot", "--run", str(run_dir), "--out", str(tmp_path / "x.png")]) == 2
    assert "extra 'plot'" in capsys.readouterr().err


def test_plot__help_imports_no_model():
    code = (
        "import ast, pathlib, sys\n"
        "import eat_plugin.cli as cli\n"
        "before = set(sys.modules)\n"
        "import eat_plugin.cli.plot\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "['eat_plugin.cli.plot']\n"
