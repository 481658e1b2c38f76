"""Mixtures of labelled clips, their table, and the models of both stages."""

import numpy as np
import pytest
import soundfile

from benchmarks import mixtures, second_stage
from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import read_labels
from eat_plugin.data.manifest import read_manifest


def test_add__second_sound_is_louder_by_the_level():
    first, second = np.full(4, 1.0), np.array([0.5, -0.5, 0.5, -0.5, 7.0])
    louder = mixtures.add(first, second[:4], 20.0)  # amplitude 10
    np.testing.assert_allclose(louder, 0.9 / 11 * np.array([11.0, -9.0, 11.0, -9.0]))
    assert len(mixtures.add(first, second, 0.0)) == 4
    assert np.isfinite(mixtures.add(first, np.zeros(4), 3.0)).all()


@pytest.fixture
def clips(tmp_path):
    """A data folder with six clips of three classes in each split."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "eval"):
        rows, labels = [str(folder)], []
        for number in range(6):
            name = f"{split}{number}.wav"
            soundfile.write(folder / name, rng.normal(0, 0.1, 8000), 8000)
            rows.append(f"{name}\t8000")
            labels.append(f"{name}\t{'abc'[number % 3]}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"{split}.lbl").write_text("\n".join(labels) + "\n")
    (folder / "label_descriptors.csv").write_text("0,a,A\n1,b,B\n2,c,C\n")
    return folder


def test_make_mixtures__have_two_labels_and_do_not_change(clips, tmp_path):
    folder = mixtures.make_mixtures(clips, tmp_path / "mixed", [5, 4], seed=1)
    label_set = read_label_set(folder / "label_descriptors.csv")
    for split, number in (("train", 5), ("eval", 4)):
        manifest = read_manifest(folder / f"{split}.tsv")
        labels = read_labels(folder / f"{split}.lbl", label_set, manifest, single_label=False)
        assert labels.multi_hot(np.arange(number)).sum(axis=1).tolist() == [2] * number
        info = soundfile.info(manifest.path(0))
        assert (info.samplerate, info.frames) == (16000, 16000)
    before = (folder / "train" / "0000.wav").read_bytes()
    again = mixtures.make_mixtures(clips, tmp_path / "again", [5, 4], seed=1)
    assert (again / "train" / "0000.wav").read_bytes() == before
    (folder / "train" / "0000.wav").unlink()
    mixtures.make_mixtures(clips, folder, [5, 4], seed=1)  # done before
    assert not (folder / "train" / "0000.wav").exists()


def test_format_gains__mean_deviation_and_wins():
    rows = [(0.5, 0.6, 0.58, 0.61), (0.5, 0.7, 0.6, 0.65)]
    names = ("stage 1", "stage 2", "same updates", "same time")
    results = {str(number): dict(zip(names, row)) for number, row in enumerate(rows)}
    first, second, third = mixtures.format_gains(results).splitlines()
    assert first == "stage 2 - stage 1: +15.0 ± 7.1 mAP, better in 2 of 2"
    assert second == "stage 2 - same updates: +6.0 ± 5.7 mAP, better in 2 of 2"
    assert third == "stage 2 - same time: +2.0 ± 4.2 mAP, better in 1 of 2"


def test_make_models__second_stage_has_mixtures_and_half_of_the_clones():
    small = {"depth": 1, "average_top_k_layers": 1, "embed_dim": 48, "num_heads": 2}
    image = {"embed_dim": 48, "decoder": {"decoder_dim": 48}}
    first, second = second_stage.make_models("tiny", {**small, "modalities": {"image": image}})
    assert (first.cfg.clone_batch, second.cfg.clone_batch) == (8, 4)
    assert [one.name for one in first.objectives] == ["cls", "regression", "recon"]
    assert [one.name for one in second.objectives][-1] == "retention"
