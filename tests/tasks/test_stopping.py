"""Agreement of several processes to end a run."""

import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist

from eat_plugin.tasks import stopping
from eat_plugin.tasks.stopping import CONTINUE, FAILED, PREEMPTED, Stopping


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def agree_as(rank, port, backend, finds, queue):
    """One of two processes; the second one gets a signal, then the first one fails."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dist.get_backend = lambda: backend
    stopping._finds_network = lambda: finds[rank]
    one = Stopping()
    one.begin(torch.device("cpu"))
    kinds = [one.agree()]
    if rank == 1:
        signal.raise_signal(signal.SIGTERM)
    kinds.append(one.agree())
    if rank == 0:
        one.fail("no data")
    kinds.append(one.agree())
    try:
        one.end(kinds[-1])
    except RuntimeError as error:
        queue.put((rank, kinds, one._group is dist.group.WORLD, str(error)))


def test_handle__data_workers_go_on(capfd):
    one = Stopping()
    one.begin(torch.device("cpu"))
    try:
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert one.agree() == CONTINUE
    finally:
        one.release()
    assert "SIGINT" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("backend", "finds", "is_world"),
    [("gloo", (True, True), True), ("nccl", (True, True), False), ("nccl", (True, False), True)],
)
def test_agree__all_processes_learn_the_same(backend, finds, is_world):
    context = torch.multiprocessing.get_context("spawn")
    queue, port = context.Queue(), free_port()
    processes = [
        context.Process(target=agree_as, args=(rank, port, backend, finds, queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    expected = [CONTINUE, PREEMPTED, FAILED]
    assert results == [
        (0, expected, is_world, "no data"),
        (1, expected, is_world, "another process of the run failed; see its log"),
    ]
