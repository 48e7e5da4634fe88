"""Parallel map over worker processes: ordered, with bounded memory, never waiting for a dead worker."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process ended without a result."""


def _exit_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A killed parent cannot stop its workers, so each worker watches it.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[tuple[Item, Result]]:
    """Yields (item, function(item)) in the order of `items`, with at most a few pending results per worker.

    With one worker it runs in this process. Otherwise function, items and results are pickled.

    Raises:
      WorkerDiedError: If a worker dies; names the items that it may have worked on.
    """
    if workers == 1:
        yield from ((item, function(item)) for item in items)
        return
    # Not fork: the parent holds TensorFlow's threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker)
    waiting: collections.deque[tuple[Item, concurrent.futures.Future[Result]]] = collections.deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) == 4 * workers:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        yield from ((item, future.result()) for item, future in waiting)
    except BrokenProcessPool as error:
        # Items start in order, so the dead worker's item is among the first without a result.
        lost = [str(item) for item, future in waiting if future.exception()]
        raise WorkerDiedError(
            f"A worker process died (killed, or out of memory?) on one of: {'; '.join(lost[:workers])}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
