"""The model of MTEB: its embeddings, and the real package."""

import numpy as np
import pytest

from eat_plugin.harness.embedder import Embedder

CHECK = """
import sys
import numpy as np
import mteb
from mteb.models.models_protocols import EncoderProtocol
from eat_plugin.harness.mteb import load_model

model = load_model(sys.argv[1])
print(isinstance(model, EncoderProtocol))
print(model.mteb_model_meta.name, model.mteb_model_meta.revision)
samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
batch = {"audio": [{"array": samples, "sampling_rate": rate} for rate in (8000, 16000)]}
x = model.encode([batch, batch], task_metadata=None, hf_split="test", hf_subset="default")
np.save("x.npy", x)
results = mteb.mock_run(model)
for name, status in results.items():
    if status is not None:
        print("task", name, type(status).__name__)
"""


def test_clips__of_any_rate_and_length_are_embedded_as_features(checkpoint, reference):
    random = np.random.default_rng(0)
    sizes = ((8_000, 9_000), (44_100, 100_000), (16_000, 4_000))
    clips = [(random.normal(0, 0.1, size).astype(np.float32), rate) for rate, size in sizes]
    x = Embedder(checkpoint).embed_clips(clips)
    assert x.dtype == np.float32
    for own, clip in zip(x, clips):
        np.testing.assert_allclose(own, reference(*clip).x.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_clips__shorter_than_a_frame_are_padded(checkpoint, reference, rate):
    samples = np.ones(10, dtype=np.float32)
    padded = np.pad(samples, (0, rate // 40 + 1))
    x = Embedder(checkpoint).embed_clips([(samples, rate)])
    np.testing.assert_allclose(x[0], reference(padded, rate).x.mean(axis=0), atol=1e-4)


def test_mteb__passes_all_audio_tasks_and_skips_none(checkpoint, tmp_path, reference, run_with):
    lines = run_with("mteb", CHECK, checkpoint)
    assert lines[0] == "True"
    name, revision = lines[1].split()
    assert name == f"eat_plugin/{checkpoint.stem}"
    assert revision.endswith("-layer-1")
    tasks = [line.split()[2] for line in lines if line.startswith("task ")]
    assert tasks == ["TaskResult"] * 7
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (4, 32)
    for row, rate in zip(x, (8_000, 16_000, 8_000, 16_000)):
        np.testing.assert_allclose(row, reference(samples, rate).x.mean(axis=0), atol=1e-5)
