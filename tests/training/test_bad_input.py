"""Damaged clips, invalid manifests and invalid configurations in real runs."""

import json
import re

import pytest

from tests.training.in_process import train


def log_lines(output):
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    return [json.loads(line) for line in found]


def test_damaged_clips__are_named_once_counted_and_replaced(trainer):
    audio = trainer.folder / "audio"
    (audio / "00.wav").write_bytes((audio / "00.wav").read_bytes()[:200])
    (audio / "01.wav").write_bytes(b"")
    (audio / "02.wav").write_text("not audio")
    (audio / "03.wav").unlink()
    output = trainer.succeed("optimization.max_update=6")  # two epochs
    for number in range(4):
        warning = f"clip '0{number}.wav' cannot be used and was replaced"
        assert output.count(warning) == 1, warning
    assert "clip '04.wav'" not in output
    counts = [int(line["skipped_clips"]) for line in log_lines(output)]
    assert counts[2] >= 4
    assert counts[5] >= 4
    assert counts[3] <= counts[4] <= counts[5]


def test_too_many_damaged_clips__end_the_run_with_one_error(trainer):
    for file in list((trainer.folder / "audio").iterdir())[:11]:
        file.write_bytes(b"")
    status, output = trainer.run("optimization.max_update=6")
    assert status != 0
    assert re.search(r"RuntimeError: \d+ of the 12 clips of this epoch cannot be used", output)
    assert "task.max_skipped_share=0.01" in output


def test_tolerated_share__is_an_option(trainer):
    for file in list((trainer.folder / "audio").iterdir())[:11]:
        file.write_bytes(b"")
    trainer.succeed("optimization.max_update=3", "task.max_skipped_share=1000")


def test_broken_manifest__names_file_line_and_what_was_expected(trainer):
    manifest = trainer.folder / "train.tsv"
    lines = manifest.read_text().splitlines()
    lines[3] = "02.wav\tmany"
    manifest.write_text("\n".join(lines))
    status, output = trainer.run()
    assert status != 0
    assert re.search(rf"ManifestError: {re.escape(str(manifest))}:4: .*'?many'?", output)


def test_configuration__invalid_one_fails_at_start(trainer):
    status, output = trainer.run("task.data=audio")  # which is of the folder before hydra's
    assert status != 0
    message = "ValueError: task.data is 'audio', which does not exist in the folder of the run"
    assert f"\n{message}" in output, output[-2000:]
    assert "train_inner" not in output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_heads=5", "model.embed_dim is 32; it must be divisible by num_heads=5"),
        ("model.modalities.image.mask_prob=0.999", "keeps 0 of the 16 patches"),
        ("dataset.batch_size=0", "dataset.batch_size is 0; it must be 1 or more"),
        ("optimization.lr=[0]", "optimization.lr is [0.0]; it must be a list of one number above"),
    ],
)
def test_configuration__invalid_option_is_refused_before_training(clips, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train("pretrain", clips, override, "checkpoint.save_dir=run")
    assert not list(clips.glob("run/*.pt"))


def test_batch_size__above_the_number_of_clips_trains_with_all(trainer):
    output = trainer.succeed("dataset.batch_size=50", "optimization.max_update=3")
    assert "batch_size=50 is more than the 12 clips of an epoch" in output
    assert [float(line["bsz"]) for line in log_lines(output)] == [12] * 3


def test_run_folder__of_another_model_is_refused_and_names_the_option(trainer):
    trainer.succeed("optimization.max_update=2", "lr_scheduler.warmup_updates=1")
    options = ["model.depth=1", "model.average_top_k_layers=1", "model.num_heads=2"]
    status, output = trainer.run("optimization.max_update=4", *options)
    assert status != 0
    checkpoint = trainer.folder / "run" / "checkpoints" / "checkpoint_last.pt"
    there, here = ("model.depth=2, model.num_heads=4", "model.depth=1, model.num_heads=2")
    assert f"ValueError: {checkpoint} has {there}, this run {here}: choose another run" in output
    # Other options may change.
    changed = ["model.clone_batch=2", "dataset.batch_size=3", "optimization.lr=[0.001]"]
    output = trainer.succeed("optimization.max_update=4", *changed)
    assert "Loaded checkpoint checkpoints/checkpoint_last.pt (epoch 1 @ 2 updates)" in output
