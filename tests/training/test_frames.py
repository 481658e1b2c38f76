"""Fine-tuning with strong labels, and the use of the model: sound event detection."""

import csv
import json
import logging
import shutil

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.inference import detect, load_checkpoint
from tests.training.in_process import load, train

RATE = 16_000
SCENE = 5.12  # seconds
FRAMES = [
    "benchmark=frames", "task.target_length=512", "model.modalities.image.patch_size=[8,128]",
    "task.single_label=false", "checkpoint.best_checkpoint_metric=mAP", "task.norm=bins",
]  # fmt: skip
COLUMNS = "filename\tonset\toffset\tevent_label"


def write_split(folder, split, scenes, whole=False):
    """Write scenes, samples and events, as a split; ``whole``: events that last all the time."""
    audio = folder / "audio" / split
    audio.mkdir(parents=True)
    manifest, table = [str(audio)], [COLUMNS]
    for number, (samples, events) in enumerate(scenes):
        soundfile.write(audio / f"{number}.wav", samples, RATE)
        manifest.append(f"{number}.wav\t{len(samples)}")
        for onset, offset, label in events:
            times = (0, len(samples) / RATE) if whole else (onset, offset)
            table.append("{}.wav\t{}\t{}\t{}".format(number, *times, label))
    for ending, lines in (("tsv", manifest), ("events", table)):
        (folder / f"{split}.{ending}").write_text("\n".join(lines) + "\n")
    return folder


def tones(count, seed=0, seconds=SCENE):
    """Scenes of one high and one low tone, each for a part of the time."""
    random = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    scenes = []
    for _ in range(count):
        samples, events = random.normal(0, 0.01, len(times)), []
        for label, hertz in (("high", 3000), ("low", 300)):
            onset = random.uniform(0, max(seconds - 1.5, 0.1))
            offset = onset + random.uniform(0.5, 1.5)
            is_on = (onset <= times) & (times < offset)
            samples = samples + is_on * 0.2 * np.sin(2 * np.pi * hertz * times)
            events.append((round(onset, 3), round(offset, 3), label))
        scenes.append((samples.astype(np.float32), events))
    return scenes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on tones: its folder and the data."""
    folder = tmp_path_factory.mktemp("frames")
    data = write_split(folder / "data", "train", tones(32))
    write_split(data, "eval", tones(8, seed=1))
    run = folder / "run"
    level = logging.getLogger("train").level
    train(
        "finetune", data, *FRAMES, f"checkpoint.save_dir={run}", "optimization.max_update=60",
        "dataset.batch_size=8", "optimization.lr=[0.003]", "model.mixup=0.5", "task.roll_gain=true",
    )  # fmt: skip
    logging.getLogger("train").setLevel(level)
    return run, data


def test_training__finds_the_time_of_events(trained):
    run, _ = trained
    state = load(run)
    assert state["task_state"]["labels"] == {"high": "0", "low": "1"}
    best = state["extra_state"]["best"]
    assert best > 0.8


def test_detect__gives_columns_with_times(trained):
    run, _ = trained
    loaded = load_checkpoint(run / "checkpoint_last.pt")
    (samples, events), *_ = tones(1, seed=2, seconds=12.0)
    x, times = detect(loaded, (samples, RATE))
    assert x.shape == (len(times), 2)
    np.testing.assert_allclose(times, np.arange(len(times)) * 0.08 + 0.04)
    for (onset, offset, _), scores in zip(events, x.T):
        inside = (times > onset + 0.1) & (times < offset - 0.1)
        outside = (times < onset - 0.1) | (times > offset + 0.1)
        assert scores[inside].mean() > scores[outside].mean() + 0.3
    scores = loaded.predict((samples, RATE))
    np.testing.assert_allclose(scores, x.max(axis=0), atol=1e-6)


def test_predict__prints_time_steps(trained, tmp_path, capsys):
    run, _ = trained
    clip = tmp_path / "scene.wav"
    soundfile.write(clip, tones(1, seed=3, seconds=1.23)[0][0], RATE)
    command = ["predict", "--checkpoint", str(run / "checkpoint_last.pt"), str(clip)]
    assert main([*command, "--granularity", "frame", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    windows = json.loads(line)["windows"]
    assert [(each["start"], each["end"]) for each in windows[:2]] == [(0.0, 0.08), (0.08, 0.16)]
    assert len(windows) == 15
    best = max(p["score"] for each in windows for p in each["predictions"] if p["label"] == "low")
    assert main([*command, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["predictions"]
    assert [p["score"] for p in whole if p["label"] == "low"] == [best]
    assert main([*command, "--window", "1"]) == 2
    assert "with --window or --hop give --granularity frame" in capsys.readouterr().err


def test_predict__of_a_model_of_clips_has_no_time_steps(make_checkpoint, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    command = ["predict", "--checkpoint", make_checkpoint("classification"), tmp_path / "a.wav"]
    assert main([*map(str, command), "--granularity", "frame"]) == 2
    assert "classifies whole clips; fine-tune with strong labels" in capsys.readouterr().err


def test_evaluate__without_its_package_says_how_to_install_it(trained, capsys, monkeypatch):
    run, data = trained
    monkeypatch.setitem(__import__("sys").modules, "sed_scores_eval", None)
    command = ["evaluate", "--checkpoint", run / "checkpoint_last.pt", "--data", data]
    assert main([*map(str, command)]) == 2
    assert "pip install 'eat-plugin[events]'" in capsys.readouterr().err


def test_evaluate__an_official_list_is_refused(trained, tmp_path, capsys):
    pytest.importorskip("sed_scores_eval", reason="sed_scores_eval is not installed")
    run, data = trained
    command = ["evaluate", "--checkpoint", run / "checkpoint_last.pt", "--data", data]
    assert main([*map(str, (*command, "--official", tmp_path / "list"))]) == 2
    assert "--official is for labels of clips" in capsys.readouterr().err


def test_evaluate__events_of_one_class(trained, tmp_path, capsys):
    pytest.importorskip("sed_scores_eval", reason="sed_scores_eval is not installed")
    run, data = trained
    shutil.copytree(data, tmp_path / "one")
    path = tmp_path / "one" / "eval.events"
    path.write_text("".join(line for line in path.open() if "low" not in line))
    command = ["evaluate", "--checkpoint", run / "checkpoint_last.pt", "--data", path.parent]
    assert main([*map(str, (*command, "--json"))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["psds2"] <= 1


def test_evaluate__measures_events(trained, tmp_path, capsys):
    pytest.importorskip("sed_scores_eval", reason="sed_scores_eval is not installed")
    run, data = trained
    command = ["evaluate", "--checkpoint", run / "checkpoint_last.pt", "--data", data]
    assert main([*map(str, (*command, "--json", "--out", tmp_path / "out"))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_clips"] == 8
    assert 0 < found["psds1"] <= found["psds2"] <= 1
    assert found["segment_f1"] > 0.6
    assert found["mAP"] == pytest.approx(load(run)["extra_state"]["best"], abs=0.03)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "eval.events").write_text((data / "eval.events").read_text())
    (damaged / "eval.tsv").write_text((data / "eval.tsv").read_text() + "none.wav\t99\n")
    assert main([*map(str, (*command[:-1], damaged, "--json"))]) == 1
    missing = json.loads(capsys.readouterr().out)
    assert (missing["n_missing"], missing["psds1"]) == (1, found["psds1"])
    with open(tmp_path / "out" / "classes.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["events"]) for row in rows] == [("high", "8"), ("low", "8")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.length=mask"], "task.length is mask; with task.events=true it must be pad"),
        (["task.noise=true"], "task.noise is true; with task.events=true it must be false"),
        (["model.prediction_mode=MEAN_POOLING"], "task.events is true, but model.prediction_mode"),
        (["model.cutmix=1.0"], "model.cutmix is 1.0; model.prediction_mode=FRAMES needs 0"),
    ],
)
def test_options__that_do_not_go_with_strong_labels_are_refused(tmp_path, options, message):
    data = write_split(tmp_path / "data", "train", tones(2))
    write_split(data, "eval", tones(1))
    with pytest.raises(ValueError, match=message):
        train("finetune", data, *FRAMES, f"checkpoint.save_dir={tmp_path / 'run'}", *options)


def test_export__to_the_published_format_is_refused(trained, tmp_path, capsys):
    run, _ = trained
    command = ["export", "--checkpoint", run / "checkpoint_last.pt", "--out", tmp_path / "model.pt"]
    assert main([*map(str, command)]) == 2
    assert "model.prediction_mode=FRAMES has no published name" in capsys.readouterr().err
    assert not (tmp_path / "model.pt").exists()


KINDS = ("dog", "rooster", "crying_baby", "sneezing")


def mix_scenes(shared, folds, count, seed):
    """Mix scenes of the loudest parts of recordings and low noise."""
    folder, random = shared / "data" / "esc10", np.random.default_rng(seed)
    with open(next((folder / "meta").glob("*.csv"))) as file:
        rows = [row for row in csv.DictReader(file) if row["category"] in KINDS]
    paths = {path.stem: path for path in (folder / "audio").iterdir()}
    sounds = {kind: [] for kind in KINDS}
    for row in rows:
        if row["fold"] in folds:
            samples, rate = soundfile.read(paths[row["filename"].rpartition(".")[0]])
            factor = rate / RATE
            places = np.arange(int(len(samples) / factor)) * factor
            sounds[row["category"]].append(np.interp(places, np.arange(len(samples)), samples))
    scenes = []
    for _ in range(count):
        mixed, events = random.normal(0, 0.003, int(SCENE * RATE)), []
        for kind in random.choice(KINDS, 2, replace=False):
            sound = sounds[kind][random.integers(len(sounds[kind]))]
            length = int(random.uniform(0.5, 1.2) * RATE)
            energy = np.cumsum(np.square(sound))
            first = int(np.argmax(energy[length:] - energy[:-length]))
            part = sound[first : first + length]
            start = int(random.integers(len(mixed) - length))
            mixed[start : start + length] += 0.3 * part / (np.abs(part).max() + 1e-9)
            events.append((start / RATE, (start + length) / RATE, kind))
        scenes.append((mixed.clip(-1, 1).astype(np.float32), events))
    return scenes


@pytest.mark.slow
def test_frames__beat_clip_labels_that_are_spread_over_time(shared, tmp_path):
    """The same model and updates, once with the times of events, once with the whole clip."""
    found = {}
    scenes = mix_scenes(shared, "1234", 192, 0), mix_scenes(shared, "5", 48, 1)
    for name, whole in (("events", False), ("clips", True)):
        data = write_split(tmp_path / name, "train", scenes[0], whole)
        write_split(data, "eval", scenes[1])
        run = tmp_path / name / "run"
        train(
            "finetune", data, *FRAMES, f"checkpoint.save_dir={run}", "model.depth=4",
            "model.embed_dim=64", "optimization.max_update=400", "dataset.batch_size=16",
            "optimization.lr=[0.001]", "task.roll_gain=true",
        )  # fmt: skip
        found[name] = load(run)["extra_state"]["best"]
    print(found)  # noqa: T201
    assert found["events"] > found["clips"] + 0.05
