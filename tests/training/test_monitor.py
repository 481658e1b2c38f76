"""Monitoring of a run: it changes nothing, is logged, warns of collapses, and can end the run."""

import pytest
import torch

from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.models.eat import EatModel
from eat_plugin.modules.patches import PatchEmbedding
from eat_plugin.monitoring.values import PREFIX, describe_values
from tests.training.in_process import load, logged_updates, train
from tests.training.test_processes import run_two

ON, OFF = "task.monitor.interval=1", "task.monitor.interval=0"
LOG = ["common.log_interval=1", "checkpoint.save_interval=1000"]
COLLAPSING = [
    "model.ema_decay=0", "model.ema_end_decay=0", "model.instance_norm_target_layer=false",
    "model.recon_loss=0", "model.cls_loss=1",
]  # fmt: skip


def run(folder, *options):
    train("pretrain", folder.parent, f"checkpoint.save_dir={folder}", *LOG, *options)
    return load(folder)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "eat_plugin.tasks.monitor"]


def assert_same_run(assert_same, one, two):
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


@pytest.mark.parametrize(
    "options",
    [
        # Dropout and noise draw from generators of the process.
        ["model.encoder_dropout=0.1", "+model.layerdrop=0.1", "task.crop=random"],
        ["task.length=mask", "task.fbank.device=cpu"],
    ],
)
def test_monitoring__changes_no_bit_also_when_resumed(labelled, assert_same, options):
    more = [*options, "optimization.max_update=4", "checkpoint.save_interval_updates=2"]
    straight = run(labelled / "off", *more, OFF)
    probe = [ON, f"task.monitor.data={labelled}"]
    run(labelled / "on", *more, *probe, "checkpoint.keep_interval_updates=-1")
    from_two = labelled / "on" / "checkpoint_1_2.pt"
    resumed = run(labelled / "more", *more, *probe, f"checkpoint.restore_file={from_two}")
    assert_same_run(assert_same, straight, load(labelled / "on"))
    assert_same_run(assert_same, straight, resumed)
    # What is measured goes on, too: the start is that of the first update.
    states = [load(labelled / name)["task_state"]["monitor"] for name in ("on", "more")]
    assert states[0] == states[1]
    assert load(from_two.parent, from_two.name)["task_state"]["monitor"] != states[0]


@pytest.mark.slow
def test_monitoring__changes_no_bit_in_two_processes(trainer, assert_same):
    for name, interval in (("on", ON), ("off", OFF)):
        run_two(trainer, interval, "optimization.max_update=3", name=name)
    assert_same_run(assert_same, trainer.checkpoint("on"), trainer.checkpoint("off"))
    (part,) = trainer.checkpoint("on")["task_state"]["record"]["parts"]
    assert (part["processes"], part["clips"]) == (2, 18)
    logs = [trainer.folder / name / "hydra_train.log" for name in ("on", "off")]
    assert [PREFIX in log.read_text() for log in logs] == [True, False]


def test_monitoring__logs_next_to_the_losses(labelled, caplog):
    caplog.set_level("INFO")
    probe = f"task.monitor.data={labelled}"
    run(labelled / "run", "task.monitor.interval=2", probe, "optimization.max_update=5")
    logged = logged_updates(caplog)
    found = {name: float(value) for name, value in logged[-1].items() if name.startswith(PREFIX)}
    assert found.keys() == describe_values().keys() - {"monitor_knn_mAP"}
    assert 0 <= found["monitor_knn_accuracy"] <= 1
    assert 1 < found["monitor_target_rank"] < 32
    ranks = [line["monitor_target_rank"] for line in logged]
    assert ranks[1] == ranks[2] != ranks[3] == ranks[4]  # measured after updates 2 and 4
    assert not warnings_of(caplog)


def test_monitoring__of_spectrograms_that_the_model_computes(labelled, caplog):
    caplog.set_level("INFO")
    for device in ("model", "cpu"):
        run(labelled / device, ON, f"task.fbank.device={device}")
    ranks = [float(line["monitor_patch_rank"]) for line in logged_updates(caplog)]
    assert ranks[0] == pytest.approx(ranks[2], 1e-3)


def test_monitoring__warns_of_constant_inputs_and_stops(labelled, monkeypatch, caplog):
    original = PatchEmbedding.forward
    monkeypatch.setattr(PatchEmbedding, "forward", lambda self, x: 0 * original(self, x))
    run(labelled / "quiet", ON, "optimization.max_update=2")
    (warning,) = warnings_of(caplog)  # once
    assert warning.startswith("update 1: the run has collapsed: the teacher gives nearly the same")
    with pytest.raises(RuntimeError, match="^update 1: the run has collapsed: .* change: look at"):
        run(labelled / "stops", ON, "optimization.max_update=5", "task.monitor.stop=true")
    assert load(labelled / "stops")["optimizer_history"][-1]["num_updates"] == 1


def test_monitoring__warns_of_a_collapse_before_update_200(labelled, caplog):
    run(labelled / "run", *COLLAPSING, "task.monitor.interval=25", "optimization.max_update=75")
    assert any("keep few directions" in text for text in warnings_of(caplog))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["task.monitor.interval=-2"], "task.monitor.interval is -2; it must be 0"),
        ([ON, "task.monitor.data=/no/such"], "task.monitor.data is '/no/such'; there is no train"),
    ],
)
def test_monitoring__bad_options_fail_at_start(labelled, options, problem):
    with pytest.raises(ValueError, match=problem):
        run(labelled / "run", *options)


def test_probe__of_one_class_is_refused(labelled):
    names = (labelled / "train.lbl").read_text().splitlines()
    (labelled / "train.lbl").write_text("".join(f"{n.split()[0]}\tdog\n" for n in names))
    with pytest.raises(ValueError, match="all clips of the training split have the same label"):
        run(labelled / "run", ON, f"task.monitor.data={labelled}")


def test_monitoring__goes_on_without_clips(labelled, caplog):
    probe = labelled / "probe"
    probe.mkdir()
    for name in ("train.tsv", "train.lbl", "label_descriptors.csv"):
        text = (labelled / name).read_text().replace("/audio\n", "/gone\n")
        (probe / name).write_text(text)
    (labelled / "gone").mkdir()
    state = run(labelled / "run", ON, f"task.monitor.data={probe}")
    assert warnings_of(caplog) == [
        f"task.monitor.data: no more probes: task.monitor.data is '{probe}'; no clip can be read"
    ]
    assert "monitor_target_rank" in state["task_state"]["monitor"]["values"]
    caplog.clear()
    lines = (labelled / "train.tsv").read_text().splitlines()
    (labelled / "train.tsv").write_text("\n".join(lines[:2]) + "\n")
    (labelled / "train.lbl").write_text((labelled / "train.lbl").read_text().split("\n")[0] + "\n")
    state = run(labelled / "one", ON, "dataset.batch_size=1")
    assert "not two training clips can be read" in warnings_of(caplog)[0]
    assert state["task_state"]["monitor"]["values"] == {}


def break_clip(monkeypatch, name):
    original = SpectrogramReader.read

    def read(self, index, generator):
        spectrogram = original(self, index, generator)
        return spectrogram * torch.nan if self.manifest.name(index) == name else spectrogram

    monkeypatch.setattr(SpectrogramReader, "read", read)


def test_not_finite__names_the_clip(labelled, monkeypatch):
    break_clip(monkeypatch, "07.wav")
    problem = r"^update \d: the input source is not finite, of the clips '07.wav'; look at"
    with pytest.raises(FloatingPointError, match=problem):
        run(labelled / "run", OFF, "optimization.max_update=3")


def test_not_finite__names_module_and_batch(labelled, monkeypatch):
    original = EatModel.forward

    def forward(self, *arguments, **options):
        block = self.blocks[1].mlp.fc2
        block.weight.data[0, 0] = torch.inf if self.num_updates else block.weight.data[0, 0]
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(EatModel, "forward", forward)
        with pytest.raises(FloatingPointError, match=r"^update 2: the weight blocks.1.mlp.fc2.wei"):
            run(labelled / "weight", OFF)
    monkeypatch.setattr("eat_plugin.modules.transformer.F.gelu", lambda x: x / 0)
    with pytest.raises(FloatingPointError) as failed:
        run(labelled / "output", OFF)
    assert "the output of blocks.0.mlp" in str(failed.value)
    assert str(failed.value).count(".wav'") == 4


def test_not_finite__names_the_gradient(labelled, monkeypatch):
    original = EatModel.forward

    def forward(self, *arguments, **options):
        output = original(self, *arguments, **options)
        for loss in output["losses"].values():
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return output

    monkeypatch.setattr(EatModel, "forward", forward)
    with pytest.raises(FloatingPointError, match="the gradient of .* is not finite, with a batch"):
        run(labelled / "run", OFF)
