r"""Write the curves of a healthy run that `eat report` draws behind those of others.

    eat pretrain --data DATA --size tiny --out RUN optimization.max_update=1000 \
      common.log_interval=25 task.monitor.data=LABELLED
    python -m benchmarks.healthy_run RUN "size=tiny on ESC-10, 1,000 updates"

They go to eat_plugin/report/healthy_run.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from eat_plugin.report.build import HEALTHY
from eat_plugin.report.example import find_checkpoint, read_configuration
from eat_plugin.report.page import flatten
from eat_plugin.report.panels import group_names
from eat_plugin.report.runlog import CLIPS_A_SECOND, parse_all, read_series

MOST_POINTS = 60
OF_THE_MACHINE = (CLIPS_A_SECOND, "monitor_time")
# Runs compare if these agree; they decide how large the losses are.
OPTIONS = (
    "depth", "embed_dim", "average_top_k_layers", "d2v_loss", "cls_loss", "recon_loss",
    "cls_target", "retention_loss", "dino_loss",
    "modalities.image.patch_size", "modalities.image.mask_prob", "modalities.image.mask_length",
)  # fmt: skip


def main() -> int:
    """Write the file."""
    folder, description = Path(sys.argv[1]), sys.argv[2]
    options = dict(flatten({"model": read_configuration(find_checkpoint(folder))["model"]}))
    series = read_series(folder, parse_all)
    shown = [name for names in group_names(list(series)).values() for name in names]
    curves = {}
    for name in (name for name in shown if name not in OF_THE_MACHINE):
        updates, values = series[name]
        step = -(-len(updates) // MOST_POINTS)
        kept = range((len(updates) - 1) % step, len(updates), step)
        curves[name] = [[updates[i] for i in kept], [float(f"{values[i]:.4g}") for i in kept]]
    kept_options = {f"model.{name}": options[f"model.{name}"] for name in OPTIONS}
    run = {"description": f"a healthy run, {description}", "options": kept_options}
    HEALTHY.write_text(json.dumps({"run": run, "curves": curves}) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
