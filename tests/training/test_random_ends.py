"""Runs that are ended at random moments and started again give the result of one run.

Shows the counts: bash scripts/test.sh -m slow -n 0 -s tests/training/test_random_ends.py
"""

import random
import re
import shutil
import signal
import sys
import time
from collections import Counter

import pytest

from eat_plugin.choices import PREEMPTED_STATUS
from tests.training.test_processes import start_two

TRIALS = 20  # of each test
MOMENTS = ("start-up", "update", "save", "validation")  # in turn
MOST, INTERVAL = 10, 5  # updates before an end; between saves and between validations
UPDATES = TRIALS * (MOST + 2 * INTERVAL)  # more than the trials take
OPTIONS = [
    f"optimization.max_update={UPDATES}", f"checkpoint.save_interval_updates={INTERVAL}",
    "checkpoint.keep_interval_updates=1", "dataset.disable_validation=false",
    f"dataset.validate_interval_updates={INTERVAL}",
]  # fmt: skip
GRACE = 5  # seconds that a launcher leaves the others after the death of one
REPORTED, VALIDATES = re.compile('"num_updates": "'), "begin validation"


class Run:
    """The processes of a run, from one start to its end, and what they have logged since."""

    def __init__(self, trainer, name, processes):
        self._folder = trainer.folder / name
        path = self._folder / "hydra_train.log"
        self._begins = path.stat().st_size if path.exists() else 0
        if processes == 2:
            self.processes = start_two(trainer, *OPTIONS, name=name)
        else:
            self.processes = [trainer.start("dataset.num_workers=1", *OPTIONS, name=name)]

    def statuses(self):
        return [process.poll() for process in self.processes]

    def wait(self, happens):
        while not happens():
            assert None in self.statuses(), self.outputs()
            time.sleep(0.002)

    def wait_for_update(self, number):
        self.wait(lambda: len(REPORTED.findall(self._log())) >= number)

    def wait_for(self, moment):
        if moment == "save":
            self.wait(lambda: any((self._folder / "checkpoints").glob(".checkpoint*.tmp")))
        elif moment == "validation":
            self.wait(lambda: VALIDATES in self._log().rstrip().rpartition("\n")[2])

    def finish(self):
        """End the others once one has died, as a launcher does; return the exit codes."""
        while None in self.statuses():
            time.sleep(0.02)
            if set(self.statuses()) - {None, 0, PREEMPTED_STATUS}:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    for process in self.processes:
                        process.send_signal(number)
                    until = time.monotonic() + GRACE
                    while None in self.statuses() and time.monotonic() < until:
                        time.sleep(0.02)
        return self.statuses()

    def outputs(self):
        self.finish()
        return "\n".join(process.communicate()[0][-3000:] for process in self.processes)

    def _log(self):
        path = self._folder / "hydra_train.log"
        if not path.exists():
            return ""
        with path.open(encoding="utf-8") as log:
            log.seek(self._begins)
            return log.read()


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGUSR1), (signal.SIGKILL,)])
@pytest.mark.parametrize("processes", [1, 2])
def test_random_ends__do_not_change_the_result(trainer, assert_same, numbers, processes):
    shutil.copytree(trainer.folder / "audio", trainer.folder / "held_out")
    manifest = (trainer.folder / "train.tsv").read_text()
    (trainer.folder / "valid.tsv").write_text(manifest.replace("/audio\n", "/held_out\n"))
    began, straight = time.monotonic(), Run(trainer, "straight", processes)
    straight.wait_for_update(1)
    start_up = time.monotonic() - began
    assert straight.finish() == [0] * processes, straight.outputs()

    draws, counts = random.Random(1), Counter()
    for trial in range(TRIALS):
        moment, number = MOMENTS[trial % len(MOMENTS)], draws.choice(numbers)
        run = Run(trainer, "stopped", processes)
        if moment == "start-up":
            time.sleep(draws.uniform(0, start_up))
        else:
            run.wait_for_update(draws.randint(1, MOST))
            run.wait_for(moment)
        target = draws.choice(["one", "all"])
        for process in run.processes if target == "all" else [draws.choice(run.processes)]:
            process.send_signal(number)
        statuses = run.finish()
        if statuses == [PREEMPTED_STATUS] * processes:
            outcome = "saved"
        else:  # one has died of it; others fail, or are ended by the launcher
            assert number == signal.SIGKILL or moment == "start-up", run.outputs()
            assert -number in statuses, run.outputs()
            assert set(statuses) <= {1, -signal.SIGTERM, -signal.SIGKILL, -number}, run.outputs()
            outcome = "dead"
        counts[number.name, target, moment, outcome] += 1
    for key, count in sorted(counts.items()):
        sys.stdout.write("{} processes, {} to {}, {}: {} {}\n".format(processes, *key, count))

    last = Run(trainer, "stopped", processes)
    assert last.finish() == [0] * processes, last.outputs()
    one, two = trainer.checkpoint("straight"), trainer.checkpoint("stopped")
    assert one["optimizer_history"][-1]["num_updates"] == UPDATES
    assert two["optimizer_history"][-1]["num_updates"] == UPDATES
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])
