"""One data set in four storages: bit-identical in any number of processes."""

import tarfile
import zipfile
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat_plugin import cli
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.tasks.dataset import ClipDataset

h5py = pytest.importorskip("h5py")
RATE = 16_000
KINDS = ("plain", "zip", "tar", "hdf5")
CLIPS = ("a b/1.wav", "a b/10.wav", "a b/2.wav", "c.wav", "d/e/f.wav")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same 16-bit clips of 0.1 to 0.3 s in each storage."""
    folder = tmp_path_factory.mktemp("sources")
    roots = {kind: folder / kind for kind in KINDS}
    for root in roots.values():
        root.mkdir()
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        packed = stack.enter_context(zipfile.ZipFile(roots["zip"] / "x.zip", "w"))
        tape = stack.enter_context(tarfile.open(roots["tar"] / "x.tar", "w"))
        tree = stack.enter_context(h5py.File(roots["hdf5"] / "x.h5", "w"))
        tree.attrs["sample_rate"] = RATE
        for number in random.permutation(len(CLIPS)):  # not stored in the order of names
            path = roots["plain"] / CLIPS[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = random.normal(0, 3_000, (1_600 * (1 + number % 3), 1 + number % 2))
            soundfile.write(path, samples.astype(np.int16), RATE)
            packed.write(path, CLIPS[number])
            tape.add(path, CLIPS[number])
            tree[CLIPS[number]] = samples.astype(np.int16)
    return roots


@pytest.fixture(scope="module")
def datasets(roots: dict) -> dict:
    """A data set per storage, listed by `eat manifest`, with random windows."""
    made = {}
    for kind, root in roots.items():
        data = root.with_name(f"data of {kind}")
        assert cli.main(["manifest", str(root), "--out", str(data)]) == 0
        reader = SpectrogramReader(
            read_manifest(data / "train.tsv"), FrontEnd(16, -4.268, 4.569), crop="random"
        )
        made[kind] = ClipDataset(reader, seed=3)
    return made


def read_all(dataset: ClipDataset, workers: int, start: "str | None" = None) -> list:
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=workers,
        collate_fn=dataset.collater,
        multiprocessing_context=start if workers else None,
    )
    batches = list(loader)
    assert [clip for batch in batches for clip in batch["skipped"]] == []
    return [batch["net_input"]["source"] for batch in batches]


@pytest.fixture(scope="module")
def expected(datasets: dict) -> list:
    batches = read_all(datasets["plain"], 0)
    assert sum(map(len, batches)) == len(CLIPS)
    assert len({clip.sum().item() for batch in batches for clip in batch}) == len(CLIPS)
    return batches


def assert_equal(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


def test_manifests__same_lengths_and_order(datasets: dict) -> None:
    sizes = [datasets[kind].reader.manifest.sizes.tolist() for kind in KINDS]
    assert sizes == [sizes[0]] * len(KINDS)
    names = {kind: datasets[kind].reader.manifest.name(1) for kind in KINDS}
    assert (names["plain"], names["hdf5"]) == ("a b/10.wav", "x.h5/a b/10.wav")
    assert names["zip"].startswith("x.zip:")
    assert names["tar"].startswith("x.tar:")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_spectrograms__same_for_every_source(
    datasets: dict, expected: list, kind: str, workers: int
) -> None:
    assert_equal(read_all(datasets[kind], workers, "fork"), expected)


def test_spectrograms__same_in_a_spawned_process(datasets: dict, expected: list) -> None:
    assert_equal(read_all(datasets["hdf5"], 1, "spawn"), expected)
