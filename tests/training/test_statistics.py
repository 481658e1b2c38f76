"""A real run logs its statistics and saves them in its checkpoint."""

import json

from eat_plugin.inference import load_checkpoint


def test_statistics__are_resolved_once_and_saved(trainer, clips):
    output = trainer.succeed("optimization.max_update=2", "lr_scheduler.warmup_updates=1")
    # The clips are noise: AudioSet's statistics do not fit, which is logged once.
    assert output.count("task.norm_mean=-4.2680 task.norm_std=4.5690: AudioSet's") == 1
    assert output.count("inputs are normalised by AudioSet's statistics") == 1
    assert output.count("a sample of 12 clips has") == output.count(f"eat stats {clips}") == 1
    # The configuration has null; the checkpoint has the numbers and does not read stats.json.
    saved = trainer.checkpoint()["cfg"]["task"]
    assert (saved["norm_mean"], saved["norm_std"]) == (-4.268, 4.569)
    later = {"mean": -1.25, "std": 1.5, "frames": 9, "clips": 12, "split": "train", "skipped": 0}
    (clips / "stats.json").write_text(json.dumps(later))
    loaded = load_checkpoint(clips / "run" / "checkpoints" / "checkpoint_last.pt")
    assert (loaded.front_end.mean, loaded.front_end.std) == (-4.268, 4.569)
