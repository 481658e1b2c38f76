"""The checks of `eat doctor` in their order: software, machine, configuration, data."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eat_plugin.cli import training
from eat_plugin.cli.outputs import check_folder
from eat_plugin.doctor.finding import (
    CONFIGURATION,
    DATA,
    ELSEWHERE,
    ERROR,
    MACHINE,
    OK,
    WARNING,
    Finding,
    of_problem,
)
from eat_plugin.prepare.amounts import count

if TYPE_CHECKING:
    from eat_plugin.doctor.cost import Cost
    from eat_plugin.doctor.machine import Load, Machine

CONFIG = "pretrain"
# What the number of clips decides, without clips.
WITHOUT_CLIPS = ("checkpoint.save_interval=1", "dataset.validate_interval=1")
FROM_CLIPS = "window and patches of this size are chosen from your clips"
NORM_WARNING = "inputs are normalised by AudioSet"  # `inputs.check_normalisation` says more


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield what is found; without data or a configuration, of software and machine alone."""
    from eat_plugin.doctor.machine import check_machine, read_machine
    from eat_plugin.doctor.software import check_software, read_software

    software = read_software()
    yield from check_software(software)
    missing = [name for name in software.failures if name != "soundfile"]
    if {"torch", "numpy"} & set(missing):
        yield _leave_out(MACHINE, missing)
        return
    machine = read_machine()
    yield from check_machine(machine)
    if args.data is None and not (args.config_name or args.size or args.overrides):
        return
    if args.data is not None:
        try:
            training.check_data(args.data)
        except ValueError as error:
            yield of_problem(DATA, error)
            return
    found = None
    if missing:
        yield _leave_out(CONFIGURATION, missing)
    else:
        found = yield from _check_run(args, machine)
    if args.data is not None:
        yield from _check_data(args.data.expanduser().resolve(), found)


def _leave_out(group: str, missing: list[str]) -> Finding:
    seen = f"not checked, since {' and '.join(missing)} cannot be imported"
    return Finding(group, ERROR, seen, "see the lines of software")


class _Run(NamedTuple):
    """A run as training would start it.

    Attributes:
        cfg: its configuration.
        task: its task.
        folder: of the run.
        has_data: it has a data folder.
        has_norm: the configuration has mean and deviation of the inputs.
        dataset: the training clips; None if they cannot be used. The task has the other splits.
        model: without values; None if it cannot be built.
    """

    cfg: Any
    task: Any
    folder: Path
    has_data: bool
    has_norm: bool
    dataset: Any = None
    model: Any = None


def _check_run(args: argparse.Namespace, machine: Machine) -> Generator[Finding, None, _Run | None]:
    """Check a configuration and what its run asks of the machine; return the run."""
    with tempfile.TemporaryDirectory() as empty:
        found = yield from _start(args, Path(empty))
        if found is not None and found.model is not None:
            yield from _check_cost(found, machine, args.time)
        return found


def _start(args: argparse.Namespace, empty: Path) -> Generator[Finding, None, _Run | None]:
    """Compose a configuration and set up its run; ``empty`` is the data folder without one."""
    from eat_plugin.data.frontend import find_spectra
    from eat_plugin.launch import checks, launchers

    has_data = args.data is not None
    overrides = [] if args.size is None else [f"size={args.size}"]
    try:
        name, folder = training.find_names(args, CONFIG)
        check_folder(folder, "the folder of the run")
        if not has_data:
            args = argparse.Namespace(**{**vars(args), "data": empty})
            chosen = {text.partition("=")[0] for text in args.overrides}
            overrides += [one for one in WITHOUT_CLIPS if one.partition("=")[0] not in chosen]
        cfg, _, _ = training.compose(args, name, overrides, folder, launchers.find_place())
        start = checks.check_settings(cfg, folder)
    except (ValueError, OSError) as error:
        if not has_data and str(empty) in str(error):
            yield Finding(CONFIGURATION, WARNING, FROM_CLIPS, "give them with --data")
        else:
            yield of_problem(CONFIGURATION, error)
        return None
    choices = f"; chosen at start: {' '.join(start.choices)}" if start.choices and has_data else ""
    yield Finding(CONFIGURATION, OK, f"{name} is valid{choices}")
    if start.nothing_to_do:
        yield of_problem(CONFIGURATION, f"{start.nothing_to_do}; choose another --out", WARNING)
    has_norm = "norm_mean" in cfg.task and cfg.task.norm_mean is not None
    has_norm = has_norm or find_spectra(start.task.cfg.frontend).norm is not None
    with checks.working_in(folder), checks.collecting_warnings() as later:
        found, problems = _load(_Run(start.cfg, start.task, folder, has_data, has_norm))
    yield from problems
    for text in dict.fromkeys([*start.warnings, *later]):
        if not text.startswith(NORM_WARNING):
            yield of_problem(CONFIGURATION, text, WARNING)
    return found


def _load(found: _Run) -> tuple[_Run, list[Finding]]:
    """Load the splits of a run and build its model, as far as they can be."""
    from eat_plugin.launch.trial import build_without_values

    problems = []
    if found.has_data:
        options = found.cfg.dataset
        held_out = [] if options.disable_validation else options.valid_subset.split(",")
        for split in [options.train_subset, *held_out]:
            try:
                found.task.load_dataset(split)
            except (ValueError, OSError) as error:
                problems.append(of_problem(DATA, error))
        found = found._replace(dataset=found.task.datasets.get(options.train_subset))
    try:
        model = build_without_values(found.task, found.cfg, found.has_data)
        found = found._replace(model=model)
    except (ValueError, OSError) as error:
        problems.append(of_problem(CONFIGURATION, error))
    return found, problems


def _check_cost(found: _Run, machine: Machine, timed: bool) -> Iterator[Finding]:
    """Say what a run costs, and compare it with the machine."""
    from eat_plugin.doctor import configuration, cost
    from eat_plugin.doctor.machine import Load, check_load, free_bytes

    cfg, dataset = found.cfg, found.dataset
    is_gpu = bool(machine.gpus) and not cfg.common.cpu
    work = cost.weigh(cfg, found.model, is_gpu)
    batches = configuration.count_batches(cfg, *_count_clips(dataset))
    yield configuration.describe_batches(batches)
    yield configuration.describe_model(cfg, found.model, work)
    yield from configuration.describe_losses(found.model, batches)
    available = min(gpu.memory for gpu in machine.gpus) if is_gpu else machine.memory
    estimate = work.memory(batches.size) + (0 if is_gpu else cost.LIBRARIES)
    # Out of memory, a GPU raises an error, and a system without one kills the process.
    fits = is_gpu or available is None or estimate <= available
    try:
        rate, memory, source = _measure_speed(found, work, batches.size, timed, fits)
    except RuntimeError as error:  # as out of memory
        reason = str(error).split("\n")[0]
        yield Finding(CONFIGURATION, ERROR, f"an update fails: {reason}", ELSEWHERE)
        return
    own = getattr(found.model, "model", found.model).cfg
    yield configuration.check_time(cfg, batches, rate, source, own.embed_dim)
    how = "measured" if memory else "estimated"
    needed = memory or estimate
    yield configuration.check_memory(needed, available, is_gpu, how, own.recompute)
    place = next(path for path in (found.folder, *found.folder.parents) if path.is_dir())
    free = free_bytes(str(place))
    yield configuration.check_disk(cfg, batches, work.checkpoint, free, str(place))
    here = min(batches.processes, len(machine.gpus)) if is_gpu else 1
    load = Load(
        here, cfg.dataset.num_workers, 0 if is_gpu else machine.threads,
        _weigh_batch(found, batches.size),
    )  # fmt: skip
    yield from check_load(machine, load)
    if dataset is not None:
        yield _check_reading(dataset, here * rate, load, machine.cores)


def _count_clips(dataset: Any) -> tuple[int, float]:
    """Return the clips of an epoch and the frames of a clip, on average; 0 if they are unknown."""
    import numpy as np

    if dataset is None:
        return 0, 0
    return dataset.epoch_size, float(dataset.num_tokens_vec(np.arange(len(dataset))).mean())


def _check_reading(dataset: Any, needed: float, load: Load, cores: int) -> Finding:
    from eat_plugin.doctor import loader

    try:
        speed = loader.measure_reading(dataset, loader.SECONDS)
    except RuntimeError as error:  # no clip can be read
        return of_problem(DATA, error)
    return loader.check_reading(speed, needed, load.workers, load.processes, cores)


def _measure_speed(
    found: _Run, work: Cost, size: int, timed: bool, fits: bool
) -> tuple[float, float, str]:
    """Return clips per second, bytes (0 if not measured), and the source in words.

    Args:
        found: the run.
        work: of its model.
        size: clips of a batch.
        timed: measure, if there are clips.
        fits: a batch is expected to fit in memory; without it nothing is measured.

    Raises:
        RuntimeError: an update fails.
    """
    from eat_plugin.doctor import cost

    if timed and fits and found.dataset is not None:
        from eat_plugin.launch.trial import time_updates

        timing = time_updates(found.cfg, found.task, found.dataset, size)
        return timing.rate, timing.memory, f"{count(timing.updates, 'update')} timed"
    rate, products = cost.expect_rate(work, found.cfg)
    source = f"{work.flops / 1e9:.4g} GFLOP a clip, products at {products / 1e9:,.0f} GFLOP/s"
    advice = "--time measures it" if fits else "not timed, since a batch does not fit in memory"
    return rate, 0.0, f"estimated from {source}; {advice}"


def _weigh_batch(found: _Run, size: int) -> float:
    """Return the bytes of a batch; without clips those of its spectrograms."""
    if found.dataset is None:
        return 4.0 * 128 * size * found.cfg.task.target_length
    try:
        batch = found.dataset.collater([found.dataset[0]])
    except RuntimeError:  # no clip can be read; named when reading is measured
        return 0.0
    return float(size * _count_bytes(batch))


def _count_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count_bytes, value.values()))
    return value.nbytes if hasattr(value, "nbytes") else 0


def _check_data(path: Path, found: _Run | None) -> Iterator[Finding]:
    """Check a data folder, for a run on it if there is one."""
    from eat_plugin.data.channels import MEAN
    from eat_plugin.data.entries import Storage
    from eat_plugin.doctor import data, inputs

    task = None if found is None else found.task.cfg
    channels = MEAN if task is None else task.channels
    single_label = task is not None and "single_label" in task and bool(task.single_label)
    loaded = {} if found is None else found.task.datasets
    known = {split: dataset.reader.manifest for split, dataset in loaded.items()}
    folder, findings = data.read_folder(path, single_label, known)
    yield from findings
    yield from data.check_overlap(folder, checked=data.TRAIN in known)
    manifest = folder.manifests.get(data.TRAIN)
    if manifest is None or manifest.entry(0).storage is Storage.IMAGE:
        return
    sample = data.decode_sample(manifest, channels)
    yield from data.check_sample(sample)
    if found is None or not found.has_norm:
        yield from inputs.check_statistics_file(path, channels)
    if task is not None and not sample.failures:
        yield from inputs.check_normalisation(manifest, task)
    if task is not None and sample.clips:
        yield from inputs.check_window(sample.clips, task)
