"""The best validation metric of a run as its result, for hydra's sweepers."""

from __future__ import annotations

from typing import Any

from fairseq import checkpoint_utils
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback


class ReportMetric(Callback):
    """Returns ``checkpoint.best_checkpoint_metric``; ``fairseq-hydra-train`` itself returns None.

    Use: ``+hydra.callbacks.metric._target_=eat_plugin.launch.sweep.ReportMetric`` (hydra 1.1 and
    later).
    """

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        """Set the result of a run that has ended well; hydra calls this."""
        best = getattr(checkpoint_utils.save_checkpoint, "best", None)
        if best is not None and job_return.status == JobStatus.COMPLETED:
            job_return.return_value = float(best)
