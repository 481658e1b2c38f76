"""A data worker that is killed is replaced; the batches stay the same."""

import os
import signal

import pytest
import torch
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterator, GroupedIterator

from eat_plugin.tasks.stopping import Stopping
from eat_plugin.tasks.worker_restarts import restart_workers


class DeadlyDataset(FairseqDataset):
    """Numbers; the worker that reads a deadly one for the first time is killed."""

    def __init__(self, folder, deadly):
        self.folder, self.deadly = folder, deadly

    def __getitem__(self, index):
        done = self.folder / str(index)
        if index in self.deadly and not done.exists():
            assert torch.utils.data.get_worker_info() is not None
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    def __len__(self):
        return 12

    def collater(self, samples):
        return samples


def read(dataset, num_workers, offset=0, stopping=None):
    batches = EpochBatchIterator(
        dataset, dataset.collater, [[2 * number, 2 * number + 1] for number in range(6)],
        num_workers=num_workers, buffer_size=2, seed=3,
    )  # fmt: skip
    restart_workers(batches, stopping or Stopping())
    if offset:
        batches.load_state_dict({"epoch": 1, "iterations_in_epoch": offset, "version": 2})
    epoch = batches.next_epoch_itr(shuffle=True)
    return [item for group in GroupedIterator(epoch, 2) for item in group], batches


@pytest.mark.parametrize(("workers", "offset"), [(2, 0), (1, 2)])
def test_restart_workers__batches_stay_the_same(tmp_path, caplog, workers, offset):
    expected, _ = read(DeadlyDataset(tmp_path, ()), 0, offset)
    found, batches = read(DeadlyDataset(tmp_path, expected[2][:1]), workers, offset)
    assert found == expected
    assert batches.num_workers == workers - 1
    assert batches.end_of_epoch()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "DataLoader worker (pid" in record.getMessage()
    assert f"continues with {workers - 1} of {workers} workers" in record.getMessage()


def test_restart_workers__error_of_a_clip_ends_the_run(tmp_path):
    class Failing(DeadlyDataset):
        def __getitem__(self, index):
            raise RuntimeError("DataLoader worker has no clip")

    with pytest.raises(RuntimeError, match="has no clip"):
        read(Failing(tmp_path, ()), 1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no clip"), "no clip"),
        (MemoryError(), "MemoryError"),
        (OSError("away"), "away"),
    ],
)
def test_restart_workers__error_asks_a_run_to_end(tmp_path, workers, error, reason):
    class Failing(DeadlyDataset):
        def __getitem__(self, index):
            raise error

    stopping = Stopping()
    stopping.begin(torch.device("cpu"))
    try:
        items, _ = read(Failing(tmp_path, ()), workers, stopping=stopping)
        assert set(map(len, items)) == {0}  # not used by a run
        with pytest.raises(RuntimeError, match=rf"^{reason}$"):
            stopping.end(stopping.agree())
    finally:
        stopping.release()
