"""Checks at start: fairseq's options, and the checkpoint to resume."""

from argparse import Namespace

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.lr_scheduler.pass_through import PassThroughScheduleConfig
from omegaconf import OmegaConf

from eat_plugin.options import OtherPrecisionError
from eat_plugin.tasks import checks, option_checks
from eat_plugin.tasks.checks import check_batches, check_run
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
from eat_plugin.tasks.resumed import ResumedRun, find_resumed_run
from eat_plugin.tasks.run_config import RunConfig
from tests.versions import fairseq_main, half_on_cpu

COSINE = {"lr_scheduler": {"_name": "cosine"}}
COPIES, MASTERS = "FP16Optimizer", "MemoryEfficientFP16Optimizer"


def make(**parts):
    """The task's options within a whole configuration."""
    return RunConfig(OmegaConf.create({"task": {"data": "x"}, **parts}).task)


def test_run_config__with_and_without_a_parent():
    assert make(common={"seed": 3}).get("common.seed") == 3
    for alone in (OmegaConf.create({"data": "x"}), object()):
        run = RunConfig(alone)
        assert run.root is None
        assert run.get("common.seed") is None
        assert check_run(run) is None


def test_get__unknown_option_is_none():
    root = OmegaConf.structured(FairseqConfig(lr_scheduler=PassThroughScheduleConfig()))
    root.task = {"data": "???"}
    OmegaConf.set_struct(root, True)
    run = RunConfig(root.task)
    assert run.get("optimization.max_update") == 0
    for path in ("lr_scheduler.warmup_updates", "ema.nothing", "nothing.at_all", "model.depth"):
        assert run.get(path) is None
    assert run.get("task.data") is None


@pytest.mark.parametrize("processes", [1, 2])
def test_check_run__every_process_reads_checkpoints(processes):
    run = make(
        distributed_training={"distributed_world_size": processes},
        checkpoint={"load_checkpoint_on_all_dp_ranks": False},
    )
    check_run(run)
    assert run.get("checkpoint.load_checkpoint_on_all_dp_ranks") is (processes == 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": {"batch_size": 0}}, "dataset.batch_size is 0; it must be 1 or more"),
        ({"dataset": {"batch_size": -4}}, "dataset.batch_size is -4; it must be 1 or more"),
        ({"dataset": {"batch_size_valid": 0}}, "dataset.batch_size_valid is 0; it must be 1"),
        ({"optimization": {"lr": []}}, r"optimization.lr is \[\]; .* optimization.lr=\[0.0005\]"),
        ({"optimization": {"lr": [-0.1]}}, r"optimization.lr is \[-0.1\]; .* above 0"),
        ({"optimization": {"lr": [0.1, 0]}}, r"optimization.lr is \[0.1, 0\]; .* above 0"),
        ({"optimization": {"lr": 0}}, r"optimization.lr is \[0\]; .* above 0"),
        ({"optimization": {"lr": [float("nan")]}}, r"optimization.lr is \[nan\]; .* above 0"),
        ({"optimization": {"max_update": 0}}, "optimization.max_update is 0; .* 1 or more"),
        ({"optimization": {"max_update": -1, "max_epoch": 3}}, "optimization.max_update is -1; "),
        (
            {"optimization": {"max_update": 0, "max_epoch": 3}, **COSINE},
            "optimization.max_update is 0; set it to the number of updates",
        ),
    ],
)
def test_options__invalid_one_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_run(make(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"dataset": {"batch_size": 1, "batch_size_valid": None}},
        {"dataset": {"batch_size": None}},
        {"optimization": {"lr": [0.1, 0.2], "max_update": 1}},
        {"optimization": {"lr": 0.1, "max_update": 0, "max_epoch": 3}},
        {
            "optimization": {"max_update": 0, "max_epoch": 3},
            "lr_scheduler": {"_name": "cosine", "lr_period_updates": 10},
        },
    ],
)
def test_options__valid_ones_are_accepted(options):
    check_run(make(**options))


@pytest.mark.parametrize(
    ("clips", "options", "warns"),
    [
        (12, {"batch_size": 12}, False), (12, {"batch_size": 13}, True),
        (12, {"batch_size": 6, "processes": 2}, False),
        (12, {"batch_size": 7, "processes": 2}, True),
        (12, {"batch_size": None, "processes": 2}, False),
        (8, {"batch_size": 4, "required_batch_size_multiple": 8}, False),
    ],
)  # fmt: skip
def test_batches__larger_than_an_epoch_are_logged(clips, options, warns, caplog):
    processes = options.pop("processes", 1)
    distributed = {"distributed_world_size": processes}
    check_batches(make(dataset=options, distributed_training=distributed), clips)
    where = "" if processes == 1 else f" in each of {processes} processes"
    message = f"dataset.batch_size={options['batch_size']}{where} is more than the 12 clips"
    assert (message in caplog.text) == warns


def test_batches__epoch_without_an_update_is_refused():
    with pytest.raises(ValueError, match=r"size_multiple is 8; an epoch of 5 .*; set it to 1$"):
        check_batches(make(dataset={"required_batch_size_multiple": 8}), 5)
    for clips, size in ((4, 4), (5, 4)):
        run = make(dataset={"batch_size": size}, optimization={"skip_remainder_batch": True})
        if clips > size:
            check_batches(run, clips)
            continue
        with pytest.raises(ValueError, match=r"skip_remainder_batch is true; .*set it to false"):
            check_batches(run, clips)


@pytest.mark.parametrize(
    ("common", "names"),
    [
        ({"fp16": True, "bf16": True}, "common.fp16 and common.bf16"),
        ({"bf16": True, "amp": True}, "common.bf16 and common.amp"),
    ],
)
def test_precision__two_options_are_refused(common, names):
    with pytest.raises(ValueError, match=f"{names} are true; set all but one to false"):
        check_run(make(common={"cpu": True, **common}))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "amp"])
def test_precision__half_needs_a_gpu_or_cpu_true(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = f"common.{precision}=true, and .* no GPU; .* common.cpu=true common.{precision}=false"
    with pytest.raises(ValueError, match=message):
        check_run(make(common={precision: True}))
    monkeypatch.setattr(option_checks, "OLDEST_FOR_HALF_ON_CPU", "2.0")
    check_run(make(common={precision: True, "cpu": True, "fp16_init_scale": 1}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_run(make(common={precision: True}))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision__half_on_a_cpu_needs_a_recent_pytorch(precision, monkeypatch):
    monkeypatch.setattr(option_checks, "OLDEST_FOR_HALF_ON_CPU", "99.0")
    message = rf"common.{precision}=true with .* needs PyTorch 99.0 .*; set common.{precision}=fal"
    with pytest.raises(ValueError, match=message):
        check_run(make(common={precision: True, "cpu": True}))
    check_run(make(common={"cpu": True}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_run(make(common={precision: True}))


@half_on_cpu
def test_precision__warns_of_amp(caplog):
    check_run(make(common={"cpu": True, "bf16": True}))
    assert not caplog.text
    check_run(make(common={"cpu": True, "amp": True}))
    assert "divides gradients by its loss scale twice" in caplog.text


@pytest.mark.parametrize(("steps", "most"), [(40, 40), (41, 40), (39, 40), (41, 0)])
def test_warm_up__of_all_updates_is_refused(steps, most):
    run = make(
        lr_scheduler={"warmup_updates": steps}, optimization={"max_update": most, "max_epoch": 3}
    )
    if not 0 < most <= steps:
        check_run(run)
        return
    with pytest.raises(ValueError, match=rf"is {steps}, but .*max_update is {most}; .*, as 4$"):
        check_run(run)


def with_optimizer(optimizer="eat_adamw", **common):
    return make(common={"cpu": True, **common}, optimizer={"_name": optimizer})


@fairseq_main
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("begun", [COPIES, MASTERS, ""])
@pytest.mark.parametrize("efficient", [False, True])
def test_masters__a_run_keeps_its_mode(precision, begun, efficient, monkeypatch, caplog):
    run = with_optimizer(**{precision: True, f"memory_efficient_{precision}": efficient})
    monkeypatch.setattr(checks, "find_resumed_run", lambda _: ResumedRun("a.pt", {}, {}, begun))
    if begun == (COPIES if efficient else MASTERS):
        advice = f"common.memory_efficient_fp16={str(not efficient).lower()}"
        message = f"a.pt was saved with {advice} .*; resume with {advice}"
        with pytest.raises(ValueError, match=message):
            check_run(run)
    else:
        check_run(run)
    assert not caplog.text


@pytest.mark.parametrize(
    ("begun", "precision", "other"),
    [("EatAdamW", None, "bf16"), (MASTERS, "bf16", None), ("AMPOptimizer", "amp", None)],
)
@half_on_cpu
def test_precision__a_run_keeps_its_kind(begun, precision, other, monkeypatch):
    saved = {name: name == precision for name in ("fp16", "bf16", "amp")}
    resumed = ResumedRun("a.pt", {"common": saved}, {}, begun)
    monkeypatch.setattr(checks, "find_resumed_run", lambda _: resumed)

    def run(name):
        return with_optimizer(memory_efficient_bf16=True, **({name: True} if name else {}))

    check_run(run(precision))
    with pytest.raises(OtherPrecisionError, match="^a.pt was saved in another precision; ") as info:
        check_run(run(other))
    shown = {f"common.{name}={str(value).lower()}" for name, value in saved.items()}
    assert set(info.value.overrides) == shown
    monkeypatch.setattr(checks, "find_resumed_run", lambda _: resumed._replace(optimizer=""))
    check_run(run(other))  # reset_optimizer


def test_precision__float16_continues_in_bfloat16_on_a_cpu(monkeypatch):
    resumed = ResumedRun("a.pt", {"common": {"fp16": True}}, {}, MASTERS)
    monkeypatch.setattr(checks, "find_resumed_run", lambda _: resumed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OtherPrecisionError) as info:
        check_run(with_optimizer())
    assert info.value.overrides == ["common.fp16=false", "common.bf16=true", "common.amp=false"]


@half_on_cpu
def test_masters__copies_without_options_are_refused(monkeypatch):
    check_run(with_optimizer("adam", bf16=True))
    check_run(with_optimizer(bf16=True, memory_efficient_bf16=True))
    monkeypatch.setattr(checks, "_copies_keep_overrides", lambda: False)
    check_run(with_optimizer("adam", bf16=True))
    check_run(with_optimizer(bf16=True, memory_efficient_bf16=True))
    with pytest.raises(ValueError, match="fairseq .* loses .*; set common.memory_efficient_fp16="):
        check_run(with_optimizer(bf16=True))


@half_on_cpu
def test_task__refuses_to_resume_in_the_other_mode(tmp_path):
    history = [{"optimizer_name": COPIES}]
    saved = {"cfg": {"task": {"norm_mean": -5.0, "norm_std": 3.0}}, "optimizer_history": history}
    torch.save(saved, tmp_path / "checkpoint_last.pt")
    checkpoint = {"save_dir": str(tmp_path), "restore_file": "checkpoint_last.pt"}

    def begin(**options):
        cfg = OmegaConf.create(
            {
                "common": {"cpu": True, "fp16": True, "memory_efficient_fp16": True, "seed": 1},
                "optimizer": {"_name": "eat_adamw"},
                "checkpoint": {**checkpoint, **options},
                "task": OmegaConf.structured(
                    PretrainingConfig(data=str(tmp_path), patch_size=16, seed=1)
                ),
            }
        )
        return EatPretrainingTask(cfg.task)

    with pytest.raises(ValueError, match=r"checkpoint_last\.pt was saved"):
        begin()
    begin(reset_optimizer=True)  # nothing of its state is used


def test_masters__float32_has_no_modes(caplog):
    check_run(with_optimizer("adam", memory_efficient_fp16=True))
    check_run(with_optimizer())
    assert not caplog.text


@half_on_cpu
@pytest.mark.parametrize("optimizer", ["adam", "composite"])
def test_masters__warns_of_optimizers_without_float32_weights(optimizer, caplog):
    check_run(with_optimizer(optimizer, fp16=True, memory_efficient_fp16=False))
    assert not caplog.text
    check_run(with_optimizer(optimizer, fp16=True, memory_efficient_fp16=True))
    assert f"optimizer {optimizer} keeps no float32 weights" in caplog.text


def configure(folder, **checkpoint):
    options = {"save_dir": str(folder), "restore_file": "checkpoint_last.pt", **checkpoint}
    task = {"_name": "eat_pretraining", "data": str(folder), "images": None,
            "norm_mean": None, "norm_std": None}  # fmt: skip
    return RunConfig(OmegaConf.create({"checkpoint": options, "task": task}).task)


@pytest.fixture
def saved(tmp_path):
    content = {
        "cfg": {"task": {"norm_mean": -5.0, "norm_std": 3.0}},
        "task_state": {"labels": {"dog": "0"}},
        "model": {"weight": torch.zeros(3)},
    }
    torch.save(content, tmp_path / "checkpoint_last.pt")
    return tmp_path


def test_find_resumed_run__finds_fairseqs_checkpoint(saved):
    found = find_resumed_run(configure(saved))
    assert found.path == str(saved / "checkpoint_last.pt")
    assert found.options == {"norm_mean": -5.0, "norm_std": 3.0}
    assert found.state == {"labels": {"dog": "0"}}
    (saved / "checkpoint_last.pt").rename(saved / "other.pt")
    other = str(saved / "other.pt")
    assert find_resumed_run(configure(saved, restore_file=other)).path == other


def test_find_resumed_run__a_new_run_or_no_checkpoint(saved, tmp_path):
    assert find_resumed_run(configure(tmp_path / "empty")) is None
    assert find_resumed_run(RunConfig(OmegaConf.create({"norm_mean": None}))) is None
    torch.save({"cfg": {"task": {}}, "args": Namespace()}, saved / "checkpoint_last.pt")
    assert find_resumed_run(configure(saved)) is None  # fairseq refuses Python objects


def test_find_resumed_run__ignores_finetune_from_model(saved):
    assert find_resumed_run(configure(saved, finetune_from_model="x.pt")) is not None


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("common.tpu", True, "no support of TPUs"),
        ("distributed_training.ddp_backend", "fully_sharded", "choose pytorch_ddp or legacy_ddp"),
        ("checkpoint.write_checkpoints_asynchronously", True, "no checkpoint_last.pt"),
        ("dataset.combine_valid_subsets", True, "dataset.valid_subset=a,b"),
    ],
)
def test_options__without_a_place_here_are_refused(option, value, reason):
    section, name = option.split(".")
    with pytest.raises(ValueError, match=rf"{option} is {value}; .*{reason}"):
        check_run(make(**{section: {name: value}}))


def test_precision__fp16_on_a_cpu_fails_at_the_first_overflow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="set common.fp16=false, or common.fp16_init_scale=1"):
        check_run(make(common={"fp16": True, "cpu": True, "fp16_init_scale": 128}))


@pytest.mark.parametrize("option", ["restore_file", "continue_once"])
def test_checkpoints__missing_file_is_refused(tmp_path, option):
    folder = tmp_path / "run"
    missing = {"save_dir": str(folder), option: str(tmp_path / "gone.pt")}
    with pytest.raises(ValueError, match=rf"checkpoint.{option} is .*gone.pt', which does not exi"):
        check_run(make(checkpoint=missing))
    # The first start of a run that will resume from its own folder.
    check_run(make(checkpoint={**missing, option: str(folder / "checkpoint_last.pt")}))


def test_find_resumed_run__with_a_suffix_or_continued_from_another_run(saved, tmp_path_factory):
    path, folder = saved / "checkpoint_last.pt", tmp_path_factory.mktemp("run")
    run = configure(folder, checkpoint_suffix="-a", continue_once=str(path))
    assert find_resumed_run(run).path == str(path)
    path.rename(folder / "checkpoint_last-a.pt")
    assert find_resumed_run(run).path == str(folder / "checkpoint_last-a.pt")


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("common.log_interval", 0, "1 or more"), ("common.seed", -1, "0 or more"),
        ("optimization.clip_norm", -1.0, "0 or more"), ("dataset.num_workers", -1, "0 or more"),
        ("lr_scheduler.warmup_updates", -1, "0 or more"),
        ("optimization.update_freq", [0], "a list of numbers from 1"),
        ("optimization.update_freq", [], "a list of numbers from 1"),
        ("dataset.max_tokens", 10, r"64 \(task.target_length\) or more"),
    ],
)  # fmt: skip
def test_options__out_of_range_are_refused(option, value, rule):
    section, name = option.split(".")
    with pytest.raises(ValueError, match=rf"^{option} is .*; it must be {rule}"):
        check_run(make(**{section: {name: value}, "task": {"target_length": 64}}))
    check_run(make(**{section: {name: None}}))


@pytest.mark.parametrize("option", ["restore_file", "continue_once", "finetune_from_model"])
def test_checkpoints__file_that_is_none_is_refused(tmp_path, option):
    path = tmp_path / "README.md"
    path.write_text("text")
    options = {"save_dir": str(tmp_path / "run"), option: str(path)}
    with pytest.raises(ValueError, match=rf"^checkpoint.{option} is .*README.md', which is not"):
        check_run(make(checkpoint=options))


def test_checkpoints__resumed_run_does_not_need_its_start(saved):
    check_run(configure(saved, finetune_from_model="/gone.pt", continue_once="/gone.pt"))
    with pytest.raises(ValueError, match="restore_file is '/gone.pt', which does not exist"):
        check_run(configure(saved, restore_file="/gone.pt"))


def test_find_resumed_run__file_of_an_old_pytorch(saved):
    path = saved / "checkpoint_last.pt"
    state = torch.load(path, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert find_resumed_run(configure(saved)).state == {"labels": {"dog": "0"}}
