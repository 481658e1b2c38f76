import builtins
import json

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.cli import main, plot
from eat_plugin.cli.runlog import NUM_MASKS, read_curves


def log_line(update, tag="train_inner", **values):
    record = {"epoch": 1, "update": 0.5, "num_updates": str(update), **values}
    return f"[2026-01-01 00:00:00,000][{tag}][INFO] - {json.dumps(record)}\n"


@pytest.fixture
def run_dir(tmp_path):
    """A run of two logged updates on two clips of 1 and 2 s."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    lines = [str(data)]
    for name, seconds in (("short.wav", 1), ("long.wav", 2)):
        soundfile.write(data / name, 0.1 * rng.standard_normal(16_000 * seconds), 16_000)
        lines.append(f"{name}\t{16_000 * seconds}")
    (data / "train.tsv").write_text("\n".join(lines) + "\n")

    run = tmp_path / "a run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "hydra_train.log").write_text(
        log_line(10, loss="2.5", loss_cls="1.5", target_var=0.25)
        + log_line(20, loss="2.0", loss_cls="1.0", target_var=0.5)
    )
    image = {"patch_size": 16, "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 3}
    save_checkpoint(
        run,
        {
            "task": {"data": str(data), "target_length": 256, "norm_mean": -4.2, "norm_std": 4.5},
            "model": {"modalities": {"image": {**image, "inverse_mask": True}}},
            "dataset": {"train_subset": "train"},
        },
    )
    return run


def save_checkpoint(run, cfg):
    torch.save({"cfg": cfg}, run / "checkpoints" / "checkpoint_last.pt")


def test_read_example__longest_clip_padding_and_masks(run_dir):
    example = plot.read_example(plot.find_checkpoint(run_dir))
    assert example.name == "long.wav"
    assert example.spectrogram.shape == (256, 128)
    num_frames = 1 + (2 * 16_000 - 400) // 160
    assert np.isfinite(example.spectrogram[:num_frames]).all()
    assert np.isnan(example.spectrogram[num_frames:]).all()
    assert example.masks.shape == (NUM_MASKS, 16, 8)
    assert (~example.masks).sum(axis=(1, 2)).tolist() == [int(128 * (1 - 0.8))] * NUM_MASKS


def test_find_checkpoint__prefers_the_last_one(run_dir):
    other = run_dir / "checkpoints" / "checkpoint_1_50.pt"
    other.write_bytes(b"")
    assert plot.find_checkpoint(run_dir).name == "checkpoint_last.pt"
    (run_dir / "checkpoints" / "checkpoint_last.pt").unlink()
    assert plot.find_checkpoint(run_dir) == other


def test_find_checkpoint__ignores_a_run_below_it(run_dir):
    own = plot.find_checkpoint(run_dir)
    below = run_dir / "finetuned" / "checkpoints" / "checkpoint_last.pt"
    below.parent.mkdir(parents=True)
    below.write_bytes(b"newer")
    assert plot.find_checkpoint(run_dir) == own


def test_plot__fine_tuning_shows_losses_and_metric(make_checkpoint, tmp_path):
    run_dir = tmp_path / "finetuned"
    (run_dir / "checkpoints").mkdir(parents=True)
    make_checkpoint("classification").rename(run_dir / "checkpoints" / "checkpoint_last.pt")
    lines = [
        '{"epoch": 1, "num_updates": "2", "loss": "2.5"}',
        '{"epoch": 1, "eval_loss": "2.0", "eval_mAP": "0.5", "eval_num_updates": "2"}',
    ]
    (run_dir / "hydra_train.log").write_text("\n".join(lines))
    assert plot.read_example(plot.find_checkpoint(run_dir)) is None
    figure = plot.draw_figure(read_curves(run_dir), None, "a run")
    titles = [axes.get_title(loc="left") for axes in figure.get_axes()]
    assert titles == ["loss", "eval_loss", "eval_mAP"]
    assert main(["plot", "--run", str(run_dir), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_draw_figure__a_panel_for_each_loss_and_each_mask(run_dir):
    curves = read_curves(run_dir)
    example = plot.read_example(plot.find_checkpoint(run_dir))
    figure = plot.draw_figure(curves, example, "a run")
    titles = [axes.get_title(loc="left") for axes in figure.get_axes()]
    assert titles[:3] == ["loss", "loss_cls", "target_var"]
    first = figure.get_axes()[0]
    assert not first.spines["top"].get_visible()
    assert first.get_yticklabels()[0].get_size() == 8
    views = [axes for axes in figure.get_axes() if "student's view" in axes.get_title(loc="left")]
    assert len(views) == NUM_MASKS
    # The second image of a view covers exactly what its mask hides: the rest is transparent.
    for axes, mask in zip(views, example.masks):
        shown = axes.get_images()[1].get_array()
        np.testing.assert_array_equal(~np.ma.getmaskarray(shown), mask.T)
    assert "a run: 20 updates" in figure.get_suptitle()


def test_plot__writes_a_picture(run_dir, tmp_path, capsys):
    out = tmp_path / "new folder" / "losses.png"
    assert main(["plot", "--run", str(run_dir), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{out}\n"


def damage(run, what):
    checkpoint = run / "checkpoints" / "checkpoint_last.pt"
    if what == "no log":
        (run / "hydra_train.log").unlink()
    elif what == "no checkpoint":
        checkpoint.unlink()
    elif what == "not a checkpoint":
        checkpoint.write_bytes(b"text")
    elif what == "other model":
        save_checkpoint(run, {"task": {"data": "x"}, "model": {"_name": "transformer"}})
    elif what == "no clip":
        (run.parent / "data" / "long.wav").unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no log", "has a logged update"),
        ("no checkpoint", "no checkpoint (*.pt) in"),
        ("not a checkpoint", "is not a readable checkpoint"),
        ("other model", "was not written by EAT pre-training"),
        ("no clip", "long.wav"),
    ],
)
def test_plot__an_error_is_one_line(run_dir, tmp_path, capsys, what, message):
    damage(run_dir, what)
    assert main(["plot", "--run", str(run_dir), "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("eat plot: error: ")
    assert message in error
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
