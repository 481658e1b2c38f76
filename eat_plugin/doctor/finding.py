"""A finding of a check: what was seen, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARNING, ERROR = LEVELS = ("ok", "warning", "error")
SOFTWARE, MACHINE, CONFIGURATION, DATA = GROUPS = ("software", "machine", "configuration", "data")
ELSEWHERE = "look for the message in docs/troubleshooting.md"


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes:
        group: one of ``GROUPS``.
        level: one of ``LEVELS``; an error is what a run fails of.
        seen: what was seen.
        fix: what to do; empty if nothing is to be done.
    """

    group: str
    level: str
    seen: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<8} {self.group:<14} {self.seen}"
        return f"{text}; fix: {self.fix}" if self.fix else text


def of_problem(group: str, problem: object, level: str = ERROR) -> Finding:
    """Make a finding of a message of ours: what follows its last semicolon is the fix."""
    seen, _, fix = " ".join(str(problem).split()).rpartition("; ")
    return Finding(group, level, seen, fix) if seen else Finding(group, level, fix, ELSEWHERE)


def find_worst(findings: Iterable[Finding]) -> str:
    """Return the worst level."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=OK)
