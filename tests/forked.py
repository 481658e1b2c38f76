"""Programs in processes of their own, without the seconds that an import of fairseq takes.

A server that has imported PyTorch and fairseq, and not this package, forks a process for each
program. It has its own folder, environment, streams and signals, as with ``subprocess``.
"""

import atexit
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from unittest import mock

import tests.hydra_store  # noqa: F401, faster compositions

CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports; then what PyTorch imports late.
IMPORTED = ["fairseq_cli.hydra_train", "soundfile"]
IMPORTED += ["torch._dynamo", "torch.distributed.fsdp", "torch.utils.tensorboard"]
CONTEXT.set_forkserver_preload(IMPORTED)


def run(program, arguments, folder, environment, streams):
    """Be the program, with these pipes as standard output and standard error."""
    for number, stream in zip((1, 2), streams):
        os.dup2(stream.fileno(), number)
    for stream in streams:
        stream.close()
    # As everywhere else: this process would start others as it was started itself.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    module, _, function = program.partition(":")
    if module.startswith("eat_plugin"):  # sets up logging before it imports fairseq
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
    try:
        sys.exit(getattr(import_module(module), function)())
    finally:
        atexit._run_exitfuncs()  # which a process of `multiprocessing` does not


def read(connection, found):
    """Read a pipe to its end."""
    with os.fdopen(os.dup(connection.fileno()), "rb") as stream:
        found.append(stream.read().decode("utf-8"))


class Forked:
    """A running program, as `subprocess.Popen` has it.

    Args:
        program: ``module:function``.
        separate: whether standard error is apart from standard output.
    """

    def __init__(self, program, arguments, folder, separate=False):
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2 if separate else 1)]
        streams = [writer for _, writer in pipes]
        both = streams if separate else streams * 2
        arguments = list(map(str, arguments))
        # One thread: several processes run at the same time on a small machine.
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            given = [program, arguments, str(folder), dict(os.environ), both]
            self._process = CONTEXT.Process(target=run, args=given)
            self._process.start()
        self._found = [[] for _ in pipes]
        self._readers = []
        for (connection, writer), found in zip(pipes, self._found):
            writer.close()
            arguments = (connection, found)
            self._readers.append(threading.Thread(target=read, args=arguments, daemon=True))
            self._readers[-1].start()
        self.pid = self._process.pid
        atexit.register(self.kill)  # a failed test may have left it

    @property
    def returncode(self):
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        """Wait for the end; return standard output and, if it is separate, standard error."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        for reader in self._readers:
            reader.join()
        output, error = [*(found[0] for found in self._found), None][:2]
        return output, error
