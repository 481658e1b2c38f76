"""`eat doctor`: a line a finding, exit code 2 with an error."""

import json

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.doctor import cost, loader, machine, software
from eat_plugin.doctor.machine import Gpu, Machine
from eat_plugin.doctor.software import Software

SECONDS, RATE = 2, 16_000
V100 = Gpu("Tesla V100", (7, 0), 16 * 10**9)
GOOD_SOFTWARE = Software(
    (3, 11, 9), {"fairseq-fixed": "0.12.3.1", "torch": "2.13.0", "numpy": "2.4.6"}, {}, "c++", True,
    "1.2.2",
)  # fmt: skip
GOOD_MACHINE = Machine(cores=8, threads=1, shared=10**10, files=65536, memory=10**11)


@pytest.fixture(autouse=True)
def good(monkeypatch):
    """Software and machine in order, short measurements; a function that changes both."""

    def pretend(found_software=GOOD_SOFTWARE, found_machine=GOOD_MACHINE):
        monkeypatch.setattr(software, "read_software", lambda: found_software)
        monkeypatch.setattr(machine, "read_machine", lambda: found_machine)

    pretend()
    monkeypatch.setattr(loader, "SECONDS", 0.05)
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    monkeypatch.setattr(machine, "free_bytes", lambda _: 10**12)
    # Other tests share the cores: how fast clips are read here says nothing.
    monkeypatch.setattr(cost, "measure_products", lambda *_: 1e9)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return pretend


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with twelve clips of 2 s; the working folder is its parent."""
    folder, audio = tmp_path / "data", tmp_path / "audio"
    folder.mkdir()
    audio.mkdir()
    for number in range(12):
        samples = np.random.default_rng(number).normal(0, 0.1, SECONDS * RATE)
        soundfile.write(audio / f"{number}.wav", samples, RATE)
    lines = [f"{number}.wav\t{SECONDS * RATE}" for number in range(12)]
    (folder / "train.tsv").write_text("\n".join([str(audio), *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    assert main(["stats", "data", "--workers", "1"]) == 0
    return folder


def doctor(capsys, *arguments):
    """The exit code, and the lines without the summary as (level, group, text)."""
    capsys.readouterr()
    code = main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert not err
    *lines, summary = out.splitlines()
    assert summary.endswith(" s")
    return code, [tuple(line.split(maxsplit=2)) for line in lines]


def test_doctor__software_and_machine_alone(capsys):
    code, lines = doctor(capsys)
    assert code == 0
    assert [line[:2] for line in lines] == [("ok", "software"), ("ok", "machine")]


def test_doctor__a_healthy_run_has_only_ok(data, capsys):
    before = sorted(data.parent.rglob("*"))
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny")
    assert {level for level, *_ in lines} == {"ok"}
    assert code == 0
    text = "\n".join(" ".join(line) for line in lines)
    for words in (
        "pretrain is valid; chosen at start: model.modalities.image.patch_size=[4,128]",
        "an update has 12 clips, an epoch 1 update", "400 epochs", "4 blocks of width 192",
        "cls x 0.01 (model.cls_loss)", "the utterance loss grows with the batch of a process",
        "clips/s of a process", "of memory (estimated)", "checkpoints take up to",
        "8 cores: 1 data worker",
        "/dev/shm has 10.00 GB free", "65536 files", "data workers make", "train.tsv: 12 clips",
        "12 clips decoded: 16 kHz, channels 1, 2 to 2 s",
    ):  # fmt: skip
        assert words in text, words
    assert sorted(data.parent.rglob("*")) == before  # writes nothing


def test_doctor__json(data, capsys):
    capsys.readouterr()
    assert (
        main(["doctor", "--data", "data", "--size", "tiny", "--json", "model.clone_batch=0"]) == 2
    )
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "error"
    worst = [one for one in found["findings"] if one["level"] == "error"]
    assert len(worst) == 1
    assert worst[0].keys() == {"group", "level", "seen", "fix"}


def test_doctor__without_clips(capsys):
    code, lines = doctor(capsys, "--config-name", "pretrain", "--size", "large")
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 0
    assert "308,543,488 trained parameters" in text
    assert "the run 400000 updates" in text
    assert ("warning", "configuration") in [line[:2] for line in lines]  # large on a CPU
    code, lines = doctor(capsys, "--size", "tiny")
    assert "give them with --data" in lines[-1][2]
    assert (code, lines[-1][0]) == (0, "warning")


SOFTWARE = {
    "fairseq and Python": {"packages": {"fairseq": "0.12.2"}, "python": (3, 12, 0)},
    "PyTorch and NumPy": {"packages": {"torch": "2.2.2", "numpy": "2.0.0"}},
    "hydra and omegaconf": {"packages": {"hydra-core": "1.3.2", "omegaconf": "2.0.6"}},
    "no PyTorch": {"failures": {"torch": "ModuleNotFoundError: No module named 'torch'"}},
    "no fairseq": {"packages": {}, "failures": {"fairseq": "ModuleNotFoundError"}},
    "no compiler": {"packages": {}, "failures": {"fairseq": "ModuleNotFound"}, "compiler": ""},
}
MACHINES = {
    "build for CPUs": {"listed": ("A100",), "driver": "560.1"},
    "old driver": {"listed": ("A100",), "driver": "470.1", "cuda": "12.6"},
    "no kernels": {"gpus": (V100,), "cuda": "13.0", "architectures": ("sm_80",)},
    "no NCCL": {"gpus": (V100, V100), "cuda": "12.6", "nccl": False},
}


@pytest.mark.parametrize("changes", SOFTWARE.values(), ids=SOFTWARE)
def test_doctor__broken_software(good, capsys, changes):
    good(found_software=GOOD_SOFTWARE._replace(**changes))
    code, lines = doctor(capsys)
    assert code == 2
    assert ("error", "software") in [line[:2] for line in lines]


@pytest.mark.parametrize("changes", MACHINES.values(), ids=MACHINES)
def test_doctor__broken_machine(good, capsys, changes):
    good(found_machine=GOOD_MACHINE._replace(**changes))
    code, lines = doctor(capsys)
    assert code == 2
    assert ("error", "machine") in [line[:2] for line in lines]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.detph=3"], "there is no option 'model.detph'; fix: did you mean model.depth"),
        (["--config-name", "pretrian"], "there is no configuration 'pretrian'; fix: did you mean"),
        (["common.cpu=true", "common.fp16=true", "common.bf16=true"], "common.fp16 and common.bf1"),
        (["task.target_length=200", "model.modalities.image.patch_size=16"], "divisible by"),
        (["lr_scheduler.warmup_updates=500"], "lr_scheduler.warmup_updates is 500"),
        (["size=base"], "size is set by --size"),
        (["--out", "data/train.tsv"], "give the folder of the run"),
        (
            ["--config-name", "finetune"],
            "the clips have no labels; fix: list them with",
        ),
    ],
)
def test_doctor__broken_configuration(data, capsys, overrides, words):
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", *overrides)
    assert code == 2
    worst = [text for level, group, text in lines if level == "error"]
    assert any(words in text for text in worst), worst


def test_doctor__too_small_a_machine(good, data, capsys, monkeypatch):
    monkeypatch.setattr(machine, "free_bytes", lambda _: 10**6)
    small = GOOD_MACHINE._replace(shared=10**4, files=100, memory=10**8)
    good(found_machine=small)
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny")
    worst = "\n".join(text for level, _, text in lines if level == "error")
    assert code == 2
    for words in ("checkpoints take up to", "/dev/shm has 10.00 kB", "100 files", "of memory"):
        assert words in worst


def test_doctor__slow_loader_and_heavy_utterance_loss_are_warnings(data, capsys, monkeypatch):
    monkeypatch.setattr(cost, "measure_products", lambda *_: 1e18)
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", "model.cls_loss=10")
    worst = "\n".join(text for level, _, text in lines if level == "warning")
    assert code == 0
    assert "eat cache, or task.fbank.device=model" in worst
    assert "fix: model.cls_loss=2 keeps the published balance" in worst


def test_doctor__repeats_what_the_task_warns_of(data, capsys):
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", "dataset.batch_size=24")
    warned = [
        text for level, group, text in lines if (level, group) == ("warning", "configuration")
    ]
    assert code == 0
    assert warned == [
        "dataset.batch_size=24 is more than the 12 clips of an epoch: an epoch is one update with "
        "all of them; fix: look for the message in docs/troubleshooting.md"
    ]


def test_doctor__held_out_clip_is_one_line(data, capsys):
    text = (data / "train.tsv").read_text()
    (data / "eval.tsv").write_text("\n".join(text.splitlines()[:3]) + "\n")
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny")
    worst = [text for level, _, text in lines if level == "error"]
    assert code == 2
    assert len(worst) == 1  # the task finds it, and the data folder's check
    assert "2 of the clips that" in worst[0]


def test_doctor__damaged_and_silent_clips(data, capsys):
    (data.parent / "audio" / "3.wav").write_bytes(b"no audio")
    soundfile.write(data.parent / "audio" / "4.wav", np.zeros(SECONDS * RATE), RATE)
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny")
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 2
    assert "1 of 12 sampled clips cannot be used, as 3.wav" in text
    assert "1 of 12 sampled clips: silent, as 4.wav" in text


def test_doctor__statistics_far_from_the_configuration(data, capsys):
    options = ["task.norm=whole", "task.norm_mean=-4.268", "task.norm_std=4.569"]
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", *options)
    far = [text for _, _, text in lines if "inputs are normalised by" in text]
    assert code == 0
    assert len(far) == 1
    assert "task.norm_mean=null" in far[0]


def test_doctor__no_clip_can_be_read(data, capsys):
    for path in (data.parent / "audio").iterdir():
        path.write_bytes(b"no audio")
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", "task.target_length=208")
    assert code == 2
    assert any(group == "data" and level == "error" for level, group, _ in lines)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_doctor__no_data_folder(capsys, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines = doctor(capsys, "--data", path)
    assert code == 2
    assert lines[-1][:2] == ("error", "data")
    assert "eat manifest AUDIO --out DATA" in lines[-1][2]


def test_doctor__time_needs_clips(capsys):
    assert main(["doctor", "--time"]) == 2
    assert "--time needs --data" in capsys.readouterr().err


def test_doctor__timed_updates(data, capsys, monkeypatch):
    monkeypatch.setattr("eat_plugin.launch.trial.UPDATES", 1)
    small = ["model.depth=1", "model.average_top_k_layers=1", "dataset.batch_size=2"]
    before = sorted(data.parent.rglob("*"))
    code, lines = doctor(capsys, "--data", "data", "--size", "tiny", "--time", *small)
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 0
    assert "(1 update timed)" in text
    assert "of memory (measured)" in text
    assert sorted(data.parent.rglob("*")) == before


def test_doctor__updates_that_do_not_fit_are_not_timed(good, data, capsys):
    good(found_machine=GOOD_MACHINE._replace(memory=10**9))
    code, lines = doctor(capsys, "--data", "data", "--time", "dataset.batch_size=4")
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 2
    assert "not timed, since a batch does not fit in memory" in text
    assert "of memory (estimated), the machine has 1.00 GB" in text


def test_doctor__without_fairseq_the_data_are_checked(good, data, capsys):
    good(found_software=GOOD_SOFTWARE._replace(failures={"hydra": "ImportError: broken"}))
    code, lines = doctor(capsys, "--data", "data")
    assert code == 2
    groups = [group for _, group, _ in lines]
    assert groups.count("configuration") == 1
    assert "data" in groups


def test_doctor__finetuning(data, capsys):
    classes = ("dog", "rain")
    labels = [f"{number}.wav\t{classes[number % 2]}" for number in range(12)]
    (data / "train.lbl").write_text("\n".join(labels) + "\n")
    (data / "label_descriptors.csv").write_text("0,dog,Dog\n1,rain,Rain\n")
    options = ["--data", "data", "--size", "tiny", "--config-name", "finetune"]
    options.append("model.model_path=null")
    code, lines = doctor(capsys, *options)
    (missing,) = (text for level, _, text in lines if level == "error")
    assert code == 2
    assert "eval.tsv; fix: hold out clips with eat manifest --valid" in missing
    code, lines = doctor(capsys, *options, "dataset.disable_validation=true")
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 0, text
    assert "of 2 classes" in text
    assert "2 classes, 6 training clips each" in text


def test_doctor__images(tmp_path, capsys, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png\t4096" for number in range(4)]
    (tmp_path / "data" / "train.tsv").write_text("\n".join([str(tmp_path), *lines]) + "\n")
    code, lines = doctor(capsys, "--data", "data")
    text = "\n".join(" ".join(line) for line in lines)
    assert code == 0, text
    assert "image_pretrain is valid" in text
    assert "an image is 196 patches of 16 x 16" in text
    assert "data workers make" in text
    assert "stats.json" not in text
