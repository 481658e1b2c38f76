"""`eat manifest --images`, and subcommands that run a model on images."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from eat_plugin.cli import main
from eat_plugin.data.entries import split_span
from eat_plugin.data.manifest import read_manifest
from eat_plugin.inference import load_checkpoint
from eat_plugin.inference.clip_vectors import Kind, VectorReader

OPTIONS = {
    "task_images": {"size": [32, 48], "channels": 3},
    "model_modalities": {"image": {"in_chans": 3, "image_size": [32, 48], "patch_size": 16}},
}


@pytest.fixture
def pictures(tmp_path):
    """Nine images of three classes, and an image with another ending."""
    folder = tmp_path / "pictures"
    for number in range(9):
        kind, ending = ("dog", "rain", "clock")[number % 3], ("png", "jpg", "webp")[number // 3]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50 + number, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number}.{ending}")
    Image.new("L", (9, 9)).save(folder / "dog" / "image.txt", format="PNG")
    return folder


def manifest(*arguments):
    return main(["manifest", *map(str, arguments)])


def lines_of(path):
    return path.read_text().splitlines()


@pytest.fixture
def make_image_checkpoint(make_checkpoint, golden):
    micro = json.loads((golden / "pretraining_micro.json").read_text())["model"]
    image = {**micro["modalities"]["image"], **OPTIONS["model_modalities"]["image"]}

    def make(kind, **changes):
        options = {"task_images": OPTIONS["task_images"], "model_modalities": {"image": image}}
        return make_checkpoint(kind, **options, **changes)

    return make


def test_manifest__lists_images_with_their_pixels(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    (pictures / "sound.h5").write_text("is not looked into")
    assert manifest(pictures, "--images", "--out", out) == 0
    assert lines_of(out / "rejected.tsv") == []
    listed = lines_of(out / "train.tsv")
    assert listed[0] == str(pictures)
    assert listed[1:4] == ["clock/2.png\t2080", "clock/5.jpg\t2200", "clock/8.webp\t2320"]
    assert len(listed) == 10
    shown = capsys.readouterr().out
    assert "total: 9 images, 19.44 kilopixels" in shown
    assert "Hz" not in shown


def test_manifest__every_layout_for_own_data(pictures, tmp_path):
    rows = ["filename,label", *(f"{p.parent.name}/{p.name},{p.parent.name}"
                                for p in pictures.rglob("*.*") if p.suffix != ".txt")]  # fmt: skip
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    found = []
    for number, options in enumerate(
        (
            ["folders"],
            ["csv", "--csv", tmp_path / "table.csv"],
            ["pattern", "--pattern", "^(?P<label>[a-z]+)/"],
        )
    ):
        out = tmp_path / f"out{number}"
        assert manifest(pictures, "--images", "--out", out, "--layout", *options) == 0
        found.append([lines_of(out / name) for name in ("train.tsv", "train.lbl")])
    assert found[0] == found[1] == found[2]


def test_manifest__rejects_damaged_images(pictures, tmp_path):
    content = (pictures / "dog" / "3.jpg").read_bytes()
    (pictures / "dog" / "half.jpg").write_bytes(content[: len(content) // 2])
    (pictures / "dog" / "text.png").write_text("none")
    out = tmp_path / "out"
    for options, expected in (([], {"text.png"}), (["--check"], {"text.png", "half.jpg"})):
        assert manifest(pictures, "--images", "--out", out, "--workers", 2, *options) == 0
        rejected = [line.split("\t") for line in lines_of(out / "rejected.tsv")]
        assert {name for name, _ in rejected} == {f"dog/{name}" for name in expected}
        assert len(lines_of(out / "train.tsv")) == 1 + 11 - len(expected)


def test_manifest__images_in_an_archive(pictures, tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    with tarfile.open(root / "s.tar", "w") as archive:
        archive.add(pictures, "")
    pattern = ["--layout", "pattern", "--pattern", "tar/(?P<label>[a-z]+)/"]
    assert manifest(root, "--images", "--out", tmp_path / "out", *pattern) == 0
    listed = read_manifest(tmp_path / "out" / "train.tsv")
    assert len(listed) == 9
    assert all(split_span(listed.name(index)) is not None for index in range(9))
    assert sorted(listed.sizes.tolist()) == [40 * (50 + number) for number in range(9)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "esc50"], "--layout esc50 is a data set of sound; omit --images"),
        (["--check", "--drop", "silent"], "--drop is for sound; omit --images"),
        (["--ext", "tif"], "no images (tif) found under"),
        (["--ext", "txt"], "no image under"),
    ],
)
def test_manifest__mistakes(pictures, tmp_path, capsys, arguments, message):
    assert manifest(pictures, "--images", "--out", tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_evaluate_and_predict__images(make_image_checkpoint, pictures, tmp_path, capsys):
    checkpoint = make_image_checkpoint("classification", task_single_label=True, model_loss="ce")
    data = tmp_path / "out"
    options = ["--layout", "folders", "--split", "eval"]
    assert manifest(pictures, "--images", "--out", data, *options) == 0
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n_clips"], figures["n_missing"]) == (9, 0)

    assert main(["predict", "--checkpoint", str(checkpoint), "--json", str(pictures)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 9
    loaded = load_checkpoint(checkpoint)
    names = [line["predictions"][0]["label"] for line in lines]
    for line, name in zip(lines, names):
        scores = loaded.predict(loaded.image(line["file"])[None])[0]
        assert loaded.labels.ids[int(scores.argmax())] == name
    hits = sum(f"/{name}/" in line["file"] for line, name in zip(lines, names))
    assert figures["accuracy"] == pytest.approx(hits / 9)


def test_probe__images_have_rows_of_pixels_for_frames(
    make_image_checkpoint, pictures, tmp_path, capsys
):
    data = tmp_path / "out"
    for split in ("train", "eval"):
        options = ["--layout", "folders", "--split", split]
        assert manifest(pictures, "--images", "--out", data / split, *options) == 0
        for path in (data / split).glob(f"{split}.*"):
            path.rename(data / path.name)
    (data / "eval" / "label_descriptors.csv").rename(data / "label_descriptors.csv")
    capsys.readouterr()
    checkpoint = str(make_image_checkpoint("pretraining"))
    assert main(["probe", "--checkpoint", checkpoint, "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"]["n_clips"], found["heldout"]["n_clips"]) == (9, 9)
    widths = {(row["source"], row["pooling"]): row["width"] for row in found["rows"]}
    assert widths["pixels", "mean, deviation"] == 2 * 3 * 48
    assert widths["model", "frames"] == 3 * 32
    loaded, entry = load_checkpoint(checkpoint), read_manifest(data / "eval.tsv").entry(0)
    ((_, vectors),) = VectorReader(loaded).read([entry])
    rows = loaded.image(entry).numpy().transpose(1, 0, 2).reshape(32, 3 * 48)
    expected = np.concatenate([rows.mean(axis=0), rows.std(axis=0)])
    assert vectors[Kind("pixels", "mean, deviation")][0] == pytest.approx(expected, abs=1e-5)


def test_predict__lists_unusable_images_and_refuses_windows(
    make_image_checkpoint, pictures, capsys
):
    checkpoint = str(make_image_checkpoint("classification"))
    content = (pictures / "dog" / "3.jpg").read_bytes()
    (pictures / "dog" / "half.jpg").write_bytes(content[: len(content) // 2])
    assert main(["predict", "--checkpoint", checkpoint, str(pictures), "--top", "1"]) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 10
    assert "half.jpg: cannot be decoded" in output.err
    command = ["predict", "--checkpoint", checkpoint, str(pictures), "--window", "1"]
    assert main(command) == 2
    assert "is a model of images, which have no windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("utterance", (32,)), ("frame", (2, 32)), ("grid", (2, 3, 32)), ("all", (7, 32))],
)
def test_features__images(make_image_checkpoint, pictures, tmp_path, granularity, shape):
    checkpoint, out = make_image_checkpoint("pretraining"), tmp_path / "f.npz"
    command = ["features", "--checkpoint", checkpoint, pictures, "--out", out]
    assert main([*map(str, command), "--granularity", granularity]) == 0
    stored = np.load(out)
    assert len(stored.files) == 9  # no times
    loaded = load_checkpoint(checkpoint)
    expected = loaded.extract(pictures / "dog" / "0.png", granularity)
    assert expected.times is None
    assert stored["dog/0.png"].shape == shape
    assert np.allclose(stored["dog/0.png"], expected.x, atol=1e-5)


def test_loaded__refuses_the_other_kind_of_input(make_image_checkpoint, make_checkpoint, pictures):
    with pytest.raises(ValueError, match="is a model of images; read them with image"):
        load_checkpoint(make_image_checkpoint("pretraining")).spectrogram("a.wav")
    with pytest.raises(ValueError, match="is a model of sound; read clips with spectrogram"):
        load_checkpoint(make_checkpoint("pretraining")).image(pictures / "dog" / "0.png")


def test_export__images_have_no_published_names(make_image_checkpoint, tmp_path, capsys):
    command = ["export", "--checkpoint", str(make_image_checkpoint("pretraining"))]
    assert main([*command, "--out", str(tmp_path / "out.pt")]) == 2
    assert "is a model of images (task.images)" in capsys.readouterr().err
