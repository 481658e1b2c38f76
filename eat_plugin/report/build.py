"""The sections of a report, from the log, the checkpoint and the clips of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..metrics import confusion_matrix, summarize
from ..records import CONSOLE
from ..reproduction import describe_record
from . import clips as shown
from . import panels
from .charts import STYLE, styled_figure
from .draw_example import draw_example, draw_features
from .example import find_longest, make_example
from .features import view_features
from .media import embed_figure, embed_sound, embed_spectrogram
from .page import Media, Row, Section, flatten
from .references import find_references
from .runlog import Curves, without_unused_rate

if TYPE_CHECKING:
    from ..inference import Loaded

QUERIES, NEIGHBOURS, WORST, EXAMPLES = 3, 3, 6, 2
CHOSEN = (-1, [-1], "auto")  # in a recipe
MOST_ITEMS = 6  # of a list
WIDTH, EXAMPLE_HEIGHT = 11.0, 4.0  # inches
HEALTHY = Path(__file__).with_name("healthy_run.json")
# Paths, and copies of other options.
UNCOMPARED = {
    "task.data", "common.user_dir", "common.tensorboard_logdir", "model.max_update",
    "distributed_training.fp16", "distributed_training.memory_efficient_fp16",
    "distributed_training.bf16", "distributed_training.memory_efficient_bf16",
    "optimizer.lr", "lr_scheduler.lr", "lr_scheduler.max_update",
}  # fmt: skip


class Run(NamedTuple):
    """What is known of a run.

    Attributes:
        name: on the page.
        folder: of the run.
        curves: all logged values.
        cfg: the configuration in its checkpoint; empty without one.
        checkpoint: the newest one; None before the first.
        record: that of the run in its checkpoint, see ``reproduction``; None without.
        problem: why there is no checkpoint.
    """

    name: str
    folder: Path
    curves: Curves
    cfg: Mapping[str, Any]
    checkpoint: Path | None
    record: Mapping[str, Any] | None = None
    problem: str = ""


@lru_cache(maxsize=1)
def read_healthy() -> tuple[dict[str, Any], Curves]:
    """Return what the healthy run was, and its curves."""
    saved = json.loads(HEALTHY.read_text(encoding="utf-8"))
    return saved["run"], {name: tuple(curve) for name, curve in saved["curves"].items()}


def resembles_healthy(run: Run) -> bool:
    """Whether the healthy run has the shape and the losses of a run, so that curves compare."""
    options = dict(flatten({"model": run.cfg.get("model") or {}}))
    return all(options.get(name) == value for name, value in read_healthy()[0]["options"].items())


def describe(run: Run) -> Section:
    """Say what the run is, and how far it is."""
    updates = max(found[-1] for found, _ in run.curves.values())
    planned = (run.cfg.get("optimization") or {}).get("max_update")
    logs = [*run.folder.glob("*.log"), run.folder / CONSOLE]
    last = max(path.stat().st_mtime for path in logs if path.is_file())
    model = run.cfg.get("model") or {}
    facts = {
        "updates": f"{updates:,}" + (f" of {planned:,}" if planned else ""),
        "last line of the log": datetime.fromtimestamp(last).strftime("%Y-%m-%d %H:%M"),
        "folder": str(run.folder.resolve()),
    }
    if run.cfg:
        encoder = (model.get("pretrained_model_args") or {}).get("model") or model
        facts["kind"] = "fine-tuning" if "num_classes" in model else "pre-training"
        if encoder.get("depth"):
            facts["model"] = f"{encoder['depth']} blocks, width {encoder.get('embed_dim')}"
        batch = (run.cfg.get("dataset") or {}).get("batch_size")
        world = (run.cfg.get("distributed_training") or {}).get("distributed_world_size") or 1
        often = ((run.cfg.get("optimization") or {}).get("update_freq") or [1])[0]
        if batch:
            facts["clips per update"] = f"{batch * world * often}"
        facts["seed"] = str((run.cfg.get("common") or {}).get("seed"))
    return Section("Run" if run.name == "" else f"Run {run.name}", run.problem, facts)


def list_records(runs: list[Run]) -> Iterator[Section]:
    """List what has to be known to repeat the runs."""
    for run in runs:
        if run.record is not None:
            lines = [(line.strip(),) for line in describe_record(run.record)]
            title = f"Record of {run.name}: revision, versions, data, hours"
            yield Section(title, table=lines, is_folded=True)


def draw_curves(runs: list[Run]) -> Iterator[Section]:
    """Draw all logged values, a section per kind; several runs in the same axes."""
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    healthy = read_healthy()[1] if all(resembles_healthy(run) for run in runs) else None
    curves = {run.name: without_unused_rate(run.curves, run.cfg) for run in runs}
    references = find_references(runs[0].cfg) if len(runs) == 1 else {}
    for title, group in panels.group_names(names).items():
        charts = [
            panels.draw_curve(
                name, {run.name: curves[run.name] for run in runs},
                references.get(name, ()), healthy,
            )
            for name in group
        ]  # fmt: skip
        behind = ""
        if healthy and set(group) & healthy.keys():
            behind = f"Dotted: {read_healthy()[0]['description']}."
        yield Section(title, behind, charts=charts)


def show_clips(loaded: Loaded, most: int) -> Iterator[Section]:
    """Show what a model makes of clips of its run, up to ``most`` of them."""
    if loaded.labels is None:
        yield _draw_pictures(loaded)
    found = shown.read_clips(loaded, most)
    if found.clips:
        ranked = shown.rank_scores(found.clips)
        if ranked is not None and loaded.labels is not None:
            yield _score(loaded, found, ranked)
        yield _list_neighbours(loaded, found)
    if found.unusable:
        rows = [(name, reason) for name, reason in found.unusable.items()]
        yield Section("Clips that cannot be used", header=("clip", "reason"), table=rows)


def _draw_pictures(loaded: Loaded) -> Section:
    """Draw masks and predictions of clips; without a reconstruction loss their features too."""
    pictures = []
    found = find_longest(loaded, EXAMPLES)
    examples = [make_example(loaded, name, energies) for name, energies in found]
    for example in examples:
        with styled_figure(WIDTH, EXAMPLE_HEIGHT, STYLE) as figure:
            draw_example(figure, example)
            pictures.append((f"{example.name}: masks and predictions", embed_figure(figure)))
    if examples[0].reconstructions is None:
        sources = [loaded.front_end.finish(energies) for _, energies in found]
        for example, view in zip(examples, view_features(loaded.encoder, sources)):
            with styled_figure(WIDTH, EXAMPLE_HEIGHT, STYLE) as figure:
                draw_features(figure, example, view)
                pictures.append((f"{example.name}: features of the patches", embed_figure(figure)))
    return Section("Clips of the training split", pictures=pictures)


def _list_neighbours(loaded: Loaded, found: shown.ReadClips) -> Section:
    text = (
        f"Of {len(found.clips)} clips of the split {found.split} ({found.listed} listed), those "
        "whose features are nearest to the first of each row: cosine of the mean over the patches "
        "of the first window, last block."
    )
    rows = []
    for query, *others in shown.find_neighbours(found.clips, QUERIES, NEIGHBOURS):
        members = [found.clips[number] for number in (query, *others)]
        rows.append(Row(members[0].name, [_show(clip, loaded) for clip in members]))
    return Section("Nearest neighbours", text, rows=rows)


def _show(clip: shown.ReadClip, loaded: Loaded, note: str = "") -> Media:
    caption = clip.name + (f" ({', '.join(clip.labels)})" if clip.labels else "") + note
    sound = embed_sound(clip.entry, loaded.front_end.channels)
    return Media(caption, embed_spectrogram(clip.spectrogram), sound)


def _score(loaded: Loaded, found: shown.ReadClips, ranked: Any) -> Section:
    """Show how a classifier scores the clips, and its worst ones."""
    assert loaded.labels is not None
    names = list(loaded.labels.names)
    text = (
        f"{len(found.clips)} clips of the split {found.split} ({found.listed} listed), scored by "
        "the first window of each: an impression. eat evaluate measures the whole split."
    )
    facts = {name: f"{value:.4f}" for name, value in summarize(ranked, loaded.single_label).items()}
    charts = [
        panels.draw_classes(names, ranked.average_precision(), ranked.targets.sum(axis=0)),
    ]
    if loaded.single_label:
        charts.insert(0, panels.draw_confusion(names, confusion_matrix(ranked)))
    worst = []
    for number, margin in shown.rank_worst(found.clips, WORST):
        clip = found.clips[number]
        assert clip.scores is not None
        guess = names[int(clip.scores.argmax())]
        worst.append(_show(clip, loaded, f"; predicted {guess}, margin {margin:.2f}"))
    return Section("Scores", text, facts, charts, rows=[Row("Worst-scored clips", worst)])


def list_options(
    runs: list[Run], packaged: Mapping[str, object] | None, name: str
) -> Iterator[Section]:
    """List the options that differ, between runs and from the packaged recipe; then all.

    Args:
        runs: with their configurations.
        packaged: options of the recipe, as ``section.option``; None where it is not known.
        name: of the recipe.
    """
    options = [dict(flatten(run.cfg)) for run in runs]
    keys = list(dict.fromkeys(key for each in options for key in each))
    if len(runs) > 1:
        rows = [
            (key, *(_text(each.get(key)) for each in options))
            for key in keys
            if len({_exact(each.get(key)) for each in options}) > 1
        ]
        header = ("option", *(run.name for run in runs))
        yield Section("Options that differ between the runs", header=header, table=rows)
    if packaged is not None:
        rows = [
            (key, _text(options[0][key]), _text(packaged[key]))
            for key in keys
            if key in packaged
            and key not in UNCOMPARED
            and packaged[key] not in CHOSEN
            and _exact(options[0][key]) != _exact(packaged[key])
        ]
        header = ("option", "this run", name)
        text = "The published settings. Left out: what a recipe chooses at the start of a run."
        yield Section(f"Options that differ from {name}", text, header=header, table=rows)
    rows = [(key, _text(options[0].get(key))) for key in keys]
    yield Section("All options", header=("option", "value"), table=rows, is_folded=True)


def _exact(value: object) -> object:
    """Return a value in one form, for comparisons: numbers as floats, names as text."""
    if isinstance(value, (list, tuple)):
        return tuple(_exact(item) for item in value)
    if isinstance(value, Enum):
        return value.name
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else str(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, (list, tuple)):
        items = [_text(item) for item in value[:MOST_ITEMS]]
        rest = [f"... {len(value)} in all"] if len(value) > MOST_ITEMS else []
        return f"[{', '.join(items + rest)}]"
    return str(value)
