"""A real run logs its statistics and saves them in its checkpoint."""

import json

import pytest

from eat_plugin.data.clip_sample import measure_some
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.statistics import Statistics
from eat_plugin.inference import load_checkpoint


@pytest.mark.parametrize("norm", ["whole", "bins"])
def test_statistics__are_measured_once_and_kept(trainer, clips, norm):
    options = (f"task.norm={norm}", "task.frontend=kaldi", "lr_scheduler.warmup_updates=1")
    moments = measure_some(read_manifest(clips / "train.tsv"), 12).moments
    mean, std = Statistics.from_moments(moments, 12, "train", 0).numbers(norm)
    output = trainer.succeed("optimization.max_update=2", *options)
    assert output.count(": measured on 12 of 12 clips of the split 'train' in ") == 1
    # The configuration has null; the checkpoint has the numbers and does not read stats.json.
    saved = trainer.checkpoint()["cfg"]["task"]
    assert saved["norm"] == norm
    for found, expected in ((saved["norm_mean"], mean), (saved["norm_std"], std)):
        assert found == (expected if norm == "whole" else list(expected))
    later = {"mean": -1.25, "std": 1.5, "frames": 9, "clips": 12, "split": "train", "skipped": 0}
    (clips / "stats.json").write_text(json.dumps(later))
    path = clips / "run" / "checkpoints" / "checkpoint_last.pt"
    loaded = load_checkpoint(path)
    assert (loaded.front_end.mean, loaded.front_end.std) == (mean, std)

    output = trainer.succeed("optimization.max_update=3", *options)
    assert f"from {path.relative_to(clips / 'run')}" in output
    assert ": measured on" not in output
    again = trainer.checkpoint()["cfg"]["task"]
    assert (again["norm_mean"], again["norm_std"]) == (saved["norm_mean"], saved["norm_std"])
