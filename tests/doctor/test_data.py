"""What is wrong with a data folder or its clips is named."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from eat_plugin.data.statistics import Statistics, write_statistics
from eat_plugin.doctor.data import check_overlap, check_sample, decode_sample, read_folder
from eat_plugin.doctor.inputs import check_normalisation, check_statistics_file, check_window
from eat_plugin.prepare.quality import examine

RATE = 16_000
CLASSES = ("dog", "rain")


def write_sound(path, number, seconds=1.0, rate=RATE, level=0.1):
    samples = np.random.default_rng(number).normal(0, level, int(seconds * rate))
    soundfile.write(path, samples.clip(-1, 1), rate)


@pytest.fixture
def folder(tmp_path):
    """A folder with eight labelled training clips of 1 s and two held-out ones, all good."""
    data, audio = tmp_path / "data", tmp_path / "audio"
    data.mkdir()
    audio.mkdir()
    for split, numbers in (("train", range(8)), ("eval", range(8, 10))):
        for number in numbers:
            write_sound(audio / f"{number}.wav", number)
        lines = [f"{number}.wav\t{RATE}" for number in numbers]
        (data / f"{split}.tsv").write_text("\n".join([str(audio), *lines]) + "\n")
        labels = [f"{number}.wav\t{CLASSES[number % 2]}" for number in numbers]
        (data / f"{split}.lbl").write_text("\n".join(labels) + "\n")
    (data / "label_descriptors.csv").write_text("0,dog,Dog\n1,rain,Rain\n")
    (data / "train.weights.csv").write_text("1.0\n" * 8)
    write_statistics(data, Statistics(-6.0, 3.0, 784, 8, "train", 0))
    return data


def find_all(data):
    folder, found = read_folder(data)
    found += check_overlap(folder) + check_statistics_file(data)
    if "train" in folder.manifests:
        found += check_sample(decode_sample(folder.manifests["train"]))
    return found


def test_good_folder__has_only_ok(folder):
    found = find_all(folder)
    assert {one.level for one in found} == {"ok"}
    seen = " | ".join(one.seen for one in found)
    assert "train.tsv: 8 clips" in seen
    assert "2 classes, 4 training clips each" in seen
    assert "8 clips decoded: 16 kHz, channels 1, 1 to 1 s" in seen
    assert "no training clip is held out" in seen


def replace(name, old, new):
    def change(data):
        text = (data / name).read_text()
        assert old in text
        (data / name).write_text(text.replace(old, new))

    return change


def remove(name):
    return lambda data: (data / name).unlink()


def damage(data):
    path = data.parent / "audio" / "3.wav"
    path.write_bytes(path.read_bytes()[:20_000])


def silence(*numbers):
    def change(data):
        for number in numbers:
            soundfile.write(data.parent / "audio" / f"{number}.wav", np.zeros(RATE), RATE)

    return change


def copy(data):
    write_sound(data.parent / "audio" / "5.wav", 4)


def invert(data):
    tone = np.sin(np.arange(RATE) / 10)
    soundfile.write(data.parent / "audio" / "2.wav", np.stack([tone, -tone], 1) / 2, RATE)


BROKEN = {
    "no manifest": (remove("train.tsv"), "error", "has no train.tsv", "eat manifest"),
    "root moved": (replace("train.tsv", "audio", "moved"), "error", "is not an existing", "eat"),
    "a broken line": (replace("train.tsv", "3.wav\t", "3.wav "), "error", "train.tsv:5", ""),
    "labels missing": (replace("eval.lbl", "8.wav\tdog\n", ""), "error", "labels of 1 clips", ""),
    "unknown label": (replace("train.lbl", "2.wav\tdog", "2.wav\tdig"), "error", "'dig'", ""),
    "no descriptors": (remove("label_descriptors.csv"), "error", "label_descriptors.csv", ""),
    "weights": (replace("train.weights.csv", "1.0\n" * 8, "1.0\n"), "error", "1 weights, but", ""),
    "overlap": (replace("eval.tsv", "8.wav", "1.wav"), "error", "that", "run eat manifest again"),
    "damaged": (damage, "error", "1 of 8 sampled clips cannot be used, as 3.wav", "--check"),
    "silence": (silence(1), "warning", "1 of 8 sampled clips: silent, as 1.wav", "--drop silent"),
    "all silent": (silence(*range(8)), "error", "8 of 8 sampled clips: silent", "--drop silent"),
    "copies": (copy, "warning", "1 of 8 sampled clips: duplicate", "--drop duplicate"),
    "inverted": (invert, "warning", "phase, as 2.wav", "task.channels=first"),
    "empty class": (
        replace("label_descriptors.csv", "1,rain,Rain", "1,rain,Rain\n2,cat,Cat"), "warning",
        "1 have none, as 'cat'", "remove the classes",
    ),
    "no statistics": (remove("stats.json"), "warning", "there is no", "eat stats"),
    "statistics of others": (
        replace("train.tsv", f"7.wav\t{RATE}\n", ""), "error", "statistics of other clips", "eat",
    ),
    "statistics damaged": (replace("stats.json", ":", ";"), "error", "not hold stat", "eat"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "level", "words", "fix"), BROKEN.values(), ids=BROKEN)
def test_broken_folder__is_named(folder, change, level, words, fix):
    change(folder)
    named = [one for one in find_all(folder) if words in one.seen and one.level != "ok"]
    assert [one.level for one in named] == [level]
    assert fix in named[0].fix
    assert named[0].fix


@pytest.mark.parametrize(
    ("change", "words"), [(invert, ["phase"]), (silence(1, 2), ["2 of 8 sampled clips: silent"])]
)
def test_check_sample__names_the_cause_alone(folder, change, words):
    """Channels that cancel out are silent too, and silent clips are equal."""
    change(folder)
    sample = decode_sample(read_folder(folder)[0].manifests["train"])
    seen = [one.seen for one in check_sample(sample) if one.level != "ok"]
    assert len(seen) == len(words)
    assert words[0] in seen[0]


def test_single_label__is_checked(folder):
    replace("train.lbl", "2.wav\tdog", "2.wav\tdog,rain")(folder)
    assert {one.level for one in read_folder(folder)[1]} == {"ok"}
    found = read_folder(folder, single_label=True)[1]
    assert "expected one label" in next(one.seen for one in found if one.level == "error")


def test_decode_sample__is_bounded(folder):
    manifest = read_folder(folder)[0].manifests["train"]
    assert len(decode_sample(manifest, seconds=0.0).clips) == 1
    manifest.sizes = manifest.sizes + (1 << 24)
    assert decode_sample(manifest) == ([], [], [])


@pytest.mark.parametrize(
    ("norm", "mean", "std", "levels"),
    [
        ("whole", 0.0, 1.0, []), ("whole", 3.0, 1.0, ["warning"]), ("whole", 0.0, 1.5, ["warning"]),
        ("whole", None, 1.0, None), ("bins", 3.0, 1.0, None),
    ],
)  # fmt: skip
def test_check_normalisation(folder, norm, mean, std, levels):
    """``mean`` is an offset in deviations, ``std`` a factor."""
    manifest = read_folder(folder)[0].manifests["train"]
    from eat_plugin.data.clip_sample import measure_some

    own = measure_some(manifest, 8).moments
    task = SimpleNamespace(frontend="kaldi", channels="mean", norm=norm)
    task.norm_mean = task.norm_std = None
    if mean is not None:
        task.norm_mean, task.norm_std = own.mean + mean * own.std, own.std * std
    found = check_normalisation(manifest, task)
    expected = [] if levels is None else levels or ["ok"]
    assert [one.level for one in found] == expected
    if expected == ["warning"]:
        assert "eat stats" in found[0].fix


def test_check_normalisation__of_silence(folder):
    silence(*range(8))(folder)
    manifest = read_folder(folder)[0].manifests["train"]
    (found,) = check_normalisation(manifest, SimpleNamespace(frontend="kaldi", channels="mean"))
    assert found.level == "error"
    assert "silence" in found.seen


@pytest.mark.parametrize(
    ("seconds", "rate", "options", "fix"),
    [
        (2.0, RATE, {}, None),
        (0.9, RATE, {}, "task.target_length=96"),
        (0.9, RATE, {"length": "mask"}, None),
        (5.0, RATE, {}, "task.crop=random"),
        (5.0, RATE, {"crop": "random"}, None),
        (2.0, 8_000, {}, "task.norm=bins"),
        (2.0, 8_000, {"norm": "bins"}, None),
    ],
)
def test_check_window(tmp_path, seconds, rate, options, fix):
    write_sound(tmp_path / "a.wav", 0, seconds, rate)
    task = SimpleNamespace(
        target_length=208, crop="start", length="pad", norm="whole", frontend="kaldi"
    )
    task.__dict__.update(options)
    found = check_window([examine(str(tmp_path / "a.wav"))], task)
    assert [one.level for one in found] == ["warning"] * (fix is not None)
    assert all(fix in one.fix for one in found)
