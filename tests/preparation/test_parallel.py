import os
import signal
import subprocess
import sys
import time

import pytest

from rsa_jax.preparation.parallel import WorkerDiedError, parallel_map


def double(number):
    return 2 * number


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_order(workers):
    assert list(parallel_map(double, range(30), workers)) == [(i, 2 * i) for i in range(30)]


@pytest.mark.parametrize("count", [4, 100])
def test_a_dead_worker_is_an_error(count):
    with pytest.raises(WorkerDiedError, match=r"worker process died .* on one of: .*\b3\b"):
        list(parallel_map(die_at_three, range(count), 2))


def test_items_are_taken_as_needed():
    taken = []
    results = parallel_map(double, (taken.append(i) or i for i in range(1000)), 2)
    next(results)
    assert len(taken) < 20
    results.close()


PARENT = """
import multiprocessing, time
from rsa_jax.preparation.parallel import parallel_map
if __name__ == "__main__":
    for _ in parallel_map(time.sleep, [0] * 8 + [60] * 8, 2):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        children = parent.stdout.readline().split()
        assert children
        parent.kill()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.1)
