import os

import numpy as np
import pytest
import soundfile

from eat_plugin.report.example import NUM_MASKS, find_checkpoint, read_example


@pytest.fixture
def data(tmp_path):
    """Two clips of 1 and 2 s."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = [str(folder)]
    for name, seconds in (("short.wav", 1), ("long.wav", 2)):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(16_000 * seconds), 16_000)
        lines.append(f"{name}\t{16_000 * seconds}")
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def make(make_checkpoint, data):
    """Make a checkpoint of pre-training on the clips."""
    return lambda **changes: make_checkpoint(
        "pretraining", task_data=str(data), **{"task_target_length": 256, **changes}
    )


def test_read_example__longest_clip_padding_and_masks(make):
    example = read_example(make())
    assert example.name == "long.wav"
    assert example.spectrogram.shape == (256, 128)
    num_frames = 1 + (2 * 16_000 - 400) // 160
    assert np.isfinite(example.spectrogram[:num_frames]).all()
    assert np.isnan(example.spectrogram[num_frames:]).all()
    assert example.masks.shape == (NUM_MASKS, 16, 8)
    assert (~example.masks).sum(axis=(1, 2)).tolist() == [int(128 * (1 - 0.8))] * NUM_MASKS


def test_read_example__agreement_at_hidden_patches(make):
    example = read_example(make())
    assert example.reconstructions is None
    np.testing.assert_array_equal(np.isfinite(example.agreements), example.masks)
    assert np.nanmax(np.abs(example.agreements)) <= 1


def test_read_example__reconstruction_at_hidden_patches(make):
    example = read_example(make(model_recon_loss=1.0, task_target_length=192))
    assert example.agreements is None
    hidden = example.masks.repeat(16, axis=1).repeat(16, axis=2)
    for found, is_hidden in zip(example.reconstructions, hidden):
        difference = np.abs(found - example.spectrogram)
        assert (difference[~is_hidden] == 0).all()
        assert (difference[is_hidden] > 0).mean() > 0.99
    assert np.isfinite(example.reconstructions).all()


def test_read_example__clips_of_their_own_length_have_no_padding(make):
    example = read_example(make(task_target_length=512, task_length="mask"))
    assert example.spectrogram.shape == (208, 128)  # 198 frames in whole patches
    assert example.masks.shape == (NUM_MASKS, 13, 8)


def test_read_example__one_mask_per_clip(make):
    assert len(read_example(make(model_clone_batch=1)).masks) == 1


def test_read_example__tries_the_next_clip(make, data):
    (data / "long.wav").write_text("no audio")
    assert read_example(make()).name == "short.wav"
    (data / "short.wav").unlink()
    with pytest.raises(ValueError, match=r"none of the 2 longest clips can be read: .*long\.wav"):
        read_example(make())


def test_find_checkpoint__prefers_the_last_one(tmp_path):
    last, other = (tmp_path / "checkpoints" / f"checkpoint_{n}.pt" for n in ("last", "1_50"))
    last.parent.mkdir()
    last.write_bytes(b"")
    other.write_bytes(b"")
    os.utime(last, (0, 0))
    assert find_checkpoint(tmp_path) == last
    last.unlink()
    assert find_checkpoint(tmp_path) == other


def test_find_checkpoint__ignores_a_run_below_it(tmp_path):
    folders = ("checkpoints", "finetuned/checkpoints")
    own, below = (tmp_path / folder / "checkpoint_last.pt" for folder in folders)
    for path in (own, below):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert find_checkpoint(tmp_path) == own
