"""The position in the data, and advice, with another number of processes."""

import pytest
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterator
from omegaconf import OmegaConf

from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.world_size import keep_position, warn_of_other_batches


def configure(processes, accumulated=1):
    return OmegaConf.create(
        {
            "task": {},
            "distributed_training": {"distributed_world_size": processes},
            "optimization": {"update_freq": [accumulated]},
        }
    )


def resumed(processes, accumulated=1):
    return ResumedRun("last.pt", OmegaConf.to_container(configure(processes, accumulated)), {})


class Numbers(FairseqDataset):
    def __getitem__(self, index):
        return index

    def __len__(self):
        return 24

    def collater(self, samples):
        return samples


def rest_of_epoch(processes, rank, state, before=None):
    """The batches of a process from a position on."""
    numbers = Numbers()
    batches = EpochBatchIterator(
        numbers, numbers.collater, [[number] for number in range(24)], seed=3,
        num_shards=processes, shard_id=rank,
    )  # fmt: skip
    run = RunConfig(configure(processes).task)
    keep_position(batches, run, None if before is None else resumed(before))
    batches.load_state_dict({"version": 2, "epoch": 2, "iterations_in_epoch": state})
    return [number for (number,) in batches.next_epoch_itr()]


@pytest.mark.parametrize(("before", "now"), [(1, 4), (4, 1), (2, 4), (4, 2), (2, 2)])
def test_keep_position__no_clip_is_lost_or_seen_twice(before, now, caplog):
    seen = 8 // before
    expected = [rest_of_epoch(before, rank, seen) for rank in range(before)]
    found = [rest_of_epoch(now, rank, seen, before) for rank in range(now)]
    # A batch of each process after the other.
    assert [n for step in zip(*found) for n in step] == [n for step in zip(*expected) for n in step]
    assert not caplog.records


def test_keep_position__says_what_is_seen_twice(caplog):
    found = rest_of_epoch(4, 0, 3, before=2)  # 6 batches seen
    assert found == rest_of_epoch(4, 0, 1)
    assert "up to 3 batches of the epoch are seen twice" in caplog.text


@pytest.mark.parametrize(
    ("before", "now", "warning"),
    [
        ((8, 1), (4, 1), "an update has 4 batches over all processes, in the checkpoint 8; set "
         "optimization.update_freq=[2] to keep it"),
        ((2, 1), (4, 1), "an update has 4 batches over all processes, in the checkpoint 2"),
        ((8, 1), (4, 2), ""),
        ((8, 1), (8, 2), ""),
    ],
)  # fmt: skip
def test_warn_of_other_batches(caplog, before, now, warning):
    warn_of_other_batches(RunConfig(configure(*now).task), resumed(*before))
    assert [record.getMessage() for record in caplog.records] == ([warning] if warning else [])
