"""The encoder of X-ARES, also in the real package."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
import torch

from eat_plugin.harness import xares

ENCODER = """
from eat_plugin.harness import xares

class MyModelEncoder(xares.EncoderBase):
    checkpoint = {!r}
"""
CHECK = """
import sys
sys.path.insert(0, ".")
from xares.audio_encoder_checker import check_audio_encoder
from xares.task import TaskConfig, XaresTask
from xares.utils import attr_from_py_path

encoder = attr_from_py_path("my_encoder.py", endswith="Encoder")()
print(check_audio_encoder(encoder))
task = XaresTask(TaskConfig(
    name="esc10", env_root=".", encoder=encoder, output_dim=10, epochs=2, num_encoder_workers=0,
    label_processor=lambda x: x["label"],
))
task.make_encoded_tar()
print("scores", task.run_mlp()[0], task.run_knn()[0])
"""


def make_encoder(path):
    return type("MyModelEncoder", (xares.EncoderBase,), {"checkpoint": str(path)})


def test_encoder__has_the_contract_of_xares(checkpoint, draw_audio, reference):
    encoder = make_encoder(checkpoint)()
    audio = draw_audio(2, 3.125)  # 50,000 samples, as in xares's own check
    x = encoder(audio)
    assert (encoder.sampling_rate, encoder.hop_size_in_ms) == (16_000, 160)
    assert x.shape == (2, 20, encoder.output_dim)
    np.testing.assert_allclose(x[1], reference(audio[1]).x, atol=1e-5)


def test_encoder__without_a_checkpoint_says_what_to_set():
    with pytest.raises(ValueError, match="set checkpoint in the class EncoderBase"):
        xares.EncoderBase()


def write_shard(path, clips):
    """Write a shard of X-ARES: files and labels."""
    with tarfile.open(path, "w") as tar:
        for number, (audio, label) in enumerate(clips):
            label = json.dumps({"label": label}).encode()
            for ending, data in ((audio.suffix, audio.read_bytes()), (".json", label)):
                info = tarfile.TarInfo(f"{number}{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_xares__accepts_the_encoder_and_scores_a_task(checkpoint, shared, tmp_path, run_with):
    (tmp_path / "my_encoder.py").write_text(ENCODER.format(str(checkpoint)))
    folder = tmp_path / "esc10"
    folder.mkdir()
    (folder / ".audio_tar_ready").touch()
    with open(next((shared / "data" / "esc10" / "meta").glob("*.csv"))) as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["category"] for row in rows})
    audio = {path.stem: path for path in (shared / "data" / "esc10" / "audio").iterdir()}
    for split, fold in (("train", "1"), ("valid", "2"), ("test", "2")):
        found = [row for row in rows if row["fold"] == fold][:10]
        clips = [
            (audio[row["filename"].rpartition(".")[0]], names.index(row["category"]))
            for row in found
        ]
        write_shard(folder / f"{split}-0.tar", clips)
    lines = run_with("xares", CHECK, checkpoint)
    assert lines[0] == "True"
    scores = [float(word) for word in lines[-1].split()[1:]]
    assert all(0 <= score <= 1 for score in scores)
    encoded = next((folder / "embeddings" / "MyModelEncoder").glob("*test*.tar"))
    with tarfile.open(encoded) as tar:
        found = [tar.extractfile(each).read() for each in tar if each.name.endswith("npy")]
    arrays = [np.load(io.BytesIO(data)) for data in found]
    assert [array.shape for array in arrays] == [(31, 32)] * 10
    assert torch.isfinite(torch.tensor(np.stack(arrays))).all()
