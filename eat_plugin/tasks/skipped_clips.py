"""The account of clips that cannot be used: how many, and how many are too many."""

from typing import Any, Dict, List

from fairseq.logging import metrics

FEWEST_TOLERATED = 10
SKIPPED, LISTED = "skipped_clips", "_listed_clips"  # fairseq does not show names with _


def count_clips(sample: Dict[str, Any], log: Dict[str, Any]) -> None:
    """Add the clips of a batch of validation to its log, and those that others replace."""
    log[SKIPPED] = int(sample["replaced"].sum()) if sample else 0
    log[LISTED] = len(sample["id"]) if sample else 0


def report_missing(logs: List[Dict[str, Any]]) -> None:
    """Log the missing clips of a validation with its metrics; take them out of ``logs``.

    ``skipped_clips`` is their number. If some are missing, ``clips`` is that of the others.
    """
    skipped, listed = (sum(log.pop(name, 0) for log in logs) for name in (SKIPPED, LISTED))
    metrics.log_scalar_sum(SKIPPED, skipped, round=0)
    metrics.log_scalar_sum(LISTED, listed)
    if int(skipped):
        metrics.log_derived("clips", _count_used)


def _count_used(meters: Any) -> float:
    skipped, listed = (int(meters[name].sum) for name in (SKIPPED, LISTED))
    return float(listed - skipped)


def check_share(skipped: int, drawn: int, share: float) -> str:
    """Return what is wrong if too many of the clips drawn in an epoch were skipped, or nothing.

    Args:
        skipped: number of skipped clips.
        drawn: number of clips of the epoch.
        share: the largest share, ``task.max_skipped_share``.
    """
    tolerated = max(FEWEST_TOLERATED, int(share * drawn))
    if skipped <= tolerated:
        return ""
    return (
        f"{skipped} of the {drawn} clips of this epoch cannot be used; at most {tolerated} "
        f"are tolerated (task.max_skipped_share={share}, and never fewer than "
        f"{FEWEST_TOLERATED}). The log names each with its reason"
    )
