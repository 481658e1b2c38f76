"""`eat pretrain`, `eat finetune` and `eat config`, without training."""

import shlex

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.choices import CONFIG_DIR, USER_DIR
from eat_plugin.cli import main
from eat_plugin.launch import machine
from tests.versions import half_on_cpu


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one clip; the working folder is its parent."""
    folder = tmp_path / "my data"
    folder.mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    (folder / "train.tsv").write_text(f"{tmp_path}\na.wav\t16000\n")
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def dry_run(capsys, *arguments):
    assert main([*arguments, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1  # the command alone: shells can run it
    words = shlex.split(out)
    assert words[:2] == ["OMP_WAIT_POLICY=passive", "fairseq-hydra-train"]
    assert words[words.index("--config-dir") + 1] == str(CONFIG_DIR)
    assert "chosen for this run" in err
    return words


def refuse(capsys, *arguments):
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_pretrain__equal_command(data, capsys):
    words = dry_run(
        capsys, "pretrain", "optimization.lr=0.1", "--data", "my data", "--size", "tiny",
        "--out", "run", "task.crop=start",
    )  # fmt: skip
    assert words[words.index("--config-name") + 1] == "pretrain"
    assert {
        f"common.user_dir={USER_DIR}", f"task.data='{data}'", "size=tiny", "task.crop=start",
        f"hydra.run.dir={data.parent / 'run'}", "optimization.lr=[0.1]",
    } <= set(words)  # fmt: skip
    assert not (data.parent / "run").exists()


@half_on_cpu
def test_pretrain__resumes_in_the_precision_of_the_checkpoint(data, capsys, monkeypatch):
    monkeypatch.setattr(machine, "bfloat16_gain", lambda: 2.0)
    options = ["pretrain", "--data", str(data), "--size", "tiny", "--out", "run", "task.norm=whole"]
    assert "common.bf16=true" in dry_run(capsys, *options)
    folder = data.parent / "run" / "checkpoints"
    folder.mkdir(parents=True)
    common = {"fp16": False, "bf16": False, "amp": False}
    saved = {
        "cfg": {"common": common, "task": {"norm_mean": -5.0, "norm_std": 3.0, "norm": "whole"}},
        "optimizer_history": [{"optimizer_name": "EatAdamW", "num_updates": 1}],
    }
    torch.save(saved, folder / "checkpoint_last.pt")
    words = dry_run(capsys, *options)
    assert "common.bf16=false" in words
    assert "common.bf16=true" not in words
    error = refuse(capsys, *options, "common.cpu=true", "common.fp16=false", "common.bf16=true")
    assert "another precision; resume with common.fp16=false common.bf16=false" in error


def test_pretrain__images_have_their_configuration(data, capsys):
    (data / "train.tsv").write_text("/x\na.PNG\t64\n")
    words = dry_run(capsys, "pretrain", "--data", str(data))
    assert words[words.index("--config-name") + 1] == "image_pretrain"
    assert f"hydra.run.dir='{data.parent / 'runs' / 'image_pretrain-my data'}'" in words


def test_pretrain__second_stage_of_a_checkpoint(data, capsys, make_checkpoint):
    path = make_checkpoint("pretraining", model_recon_loss=1.0)
    given = [
        "pretrain", "--config-name", "sslam", "--data", "my data", "--size", "tiny",
        "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
        "model.modalities.image.max_length=16", "model.modalities.image.decoder.decoder_dim=32",
        "model.modalities.image.decoder.decoder_groups=4", "task.norm=whole",
    ]  # fmt: skip
    words = dry_run(capsys, *given, "--checkpoint", str(path))
    assert words[words.index("--config-name") + 1] == "sslam"
    assert f"checkpoint.finetune_from_model={path}" in words
    assert f"hydra.run.dir='{data.parent / 'runs' / 'sslam-my data'}'" in words
    assert "--checkpoint gone.pt does not exist; give a checkpoint, or leave it out" in refuse(
        capsys, *given, "--checkpoint", "gone.pt"
    )
    assert "checkpoint.finetune_from_model is null: give the checkpoint" in refuse(capsys, *given)
    found = refuse(capsys, *given, "--checkpoint", str(path), "task.norm=bins")
    assert "which has task.norm=whole, this run task.norm=bins: give the same settings" in found
    found = refuse(capsys, *given, "--checkpoint", str(path), "model.depth=3")
    assert "which has model.depth=2, this run model.depth=3: give the same settings" in found


def test_finetune__checkpoint_and_benchmark(data, capsys):
    (data.parent / "model.pt").touch()
    words = dry_run(
        capsys, "finetune", "--data", "my data", "--checkpoint", "model.pt", "--benchmark", "esc50"
    )
    assert {f"model.model_path={data.parent / 'model.pt'}", "benchmark=esc50"} <= set(words)
    words = dry_run(capsys, "finetune", "--data", "my data", "--checkpoint", "none")
    assert "model.model_path=null" in words


def test_finetune__reads_the_events_of_all_splits(data, capsys):
    def write(split, clip, line):
        (data / f"{split}.tsv").write_text(f"{data.parent}\n{clip}.wav\t16000\n")
        header = "filename\tonset\toffset\tevent_label"
        (data / f"{split}.events").write_text(f"{header}\n{line}\n")

    given = "finetune", "--data", "my data", "--checkpoint", "none", "--benchmark", "frames"
    write("train", "a", "a\t0\t0.5\tdog")
    write("eval", "b", "b\t0.2\t0.4\tdog")
    assert "benchmark=frames" in dry_run(capsys, *given)
    write("eval", "b", "b\t0.5\t0.4\tdog")
    assert "eval.events:2: the event lasts from 0.5 to 0.4 s" in refuse(capsys, *given, "--dry-run")
    write("eval", "b", "b\t0.2\t0.4\tcat")
    assert "eval.events:2: " in refuse(capsys, *given)
    dry_run(capsys, *given, "dataset.disable_validation=true")
    (data / "train.events").unlink()
    assert "train.events" in refuse(capsys, *given, "--dry-run")
    assert not (data.parent / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--data", "nowhere"], "nowhere is not a folder; list clips with: eat mani"),
        (["pretrain", "--data", "."], "has no train.tsv; list clips with: eat manifest AUDIO"),
        (["pretrain", "--data", "my data", "--sise", "tiny"], "--sise; did you mean --size?"),
        (["pretrain", "--data", "my data", "--size", "tinny"], "did you mean tiny?"),
        (["pretrain", "--data", "my data", "model.detph=3"], "did you mean model.depth"),
        (["pretrain", "--data", "my data", "task.data=/x"], "task.data is set by --data"),
        (["pretrain", "--data", "my data", "--config-name", "pre"], "there is no configuration"),
        (["pretrain", "--data", "my data", "--config-dir", "."], "there is no configuration"),
        (["pretrain", "--data", "my data", "--out", "my data/train.tsv"], "give the folder of"),
        (["pretrain", "--data", "my data", "--config-dir", "x"], "--config-dir x is not a folder"),
        (["pretrain", "--data", "my data", "dataset.batch_size=0"], "dataset.batch_size is 0"),
        (["finetune", "--data", "my data"], "--checkpoint"),
        (["finetune", "--data", "my data", "--checkpoint", "x.pt"], "x.pt does not exist; give a"),
        (["finetune", "--data", "my data", "--checkpoint", "my data"], "my data is a folder; give"),
    ],
)
def test_mistakes__are_one_line(data, capsys, arguments, message):
    assert message in refuse(capsys, *arguments)
    assert not (data.parent / "runs").exists()


def test_pretrain__under_another_launcher_is_refused(data, capsys, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert "start the processes with torchrun or srun" in refuse(
        capsys, "pretrain", "--data", "my data"
    )


def test_config__lists_and_copies(tmp_path, capsys):
    assert main(["config"]) == 0
    listed = capsys.readouterr().out
    for name in ("pretrain", "image_finetune", "size=tiny", "benchmark=esc50"):
        assert name in listed
    assert main(["config", "--copy", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "size" / "tiny.yaml").is_file()
    assert "exists; choose a new folder" in refuse_after(capsys, tmp_path)


def refuse_after(capsys, folder):
    capsys.readouterr()
    return refuse(capsys, "config", "--copy", str(folder / "mine"))


def test_config_dir__and_user_dir(capsys):
    assert main(["config-dir"]) == main(["user-dir"]) == 0
    assert capsys.readouterr().out.split() == [str(CONFIG_DIR), str(USER_DIR)]


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert "torch" in capsys.readouterr().out


def test_pretrain__says_what_the_run_chooses(data, capsys):
    options = ["--data", "my data", "--out", "run", "--size", "tiny", "--dry-run"]
    assert main(["pretrain", *options, "optimization.max_update=25000"]) == 0
    said = capsys.readouterr()
    assert "common.log_interval=10" in said.out
    assert "log_interval" not in said.err
    assert "task.monitor.interval=250" in said.err


@pytest.mark.parametrize(("size", "expected"), [("base", True), ("tiny", False)])
def test_pretrain__large_model_on_a_cpu(data, capsys, monkeypatch, size, expected):
    monkeypatch.setattr("eat_plugin.launch.run.train", lambda *_: None)
    options = ["--size", size, "checkpoint.save_dir=kept", "optimization.max_update=80"]
    options += ["lr_scheduler.warmup_updates=1", "common.cpu=true", "common.fp16=false"]
    assert main(["pretrain", "--data", "my data", "--out", "run", *options]) == 0
    out = capsys.readouterr().out
    assert ("this size needs a GPU" in out) == expected
    assert "chosen for this run; set an option to fix it:\n  " in out
    assert " common.log_interval=2 " in out
    assert "the first report is after 2 updates" in out
    assert f"checkpoint {data.parent / 'run' / 'kept' / 'checkpoint_last.pt'}" in out
