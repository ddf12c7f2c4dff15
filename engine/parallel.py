"""Work on several threads, its results in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 1
"""Results that may wait: threads go on while one is written. Sixteen gained nothing."""

PATIENCE = 2.0
"""Seconds that what was begun is waited for where the results are wanted no more."""


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """`work(item)` for each item, done on `threads` threads, in the order of the items.

    `items` are taken as they are needed, at most `threads` + `AHEAD` beyond the result that is waited for:
    that bounds the memory of results. An exception comes in the place of its result. What was begun by then
    is waited for, but not for ever: the threads do not keep the process alive.
    """
    asked: queue.SimpleQueue[tuple[Future[Result], Item] | None] = queue.SimpleQueue()
    workers = [
        threading.Thread(target=_serve, args=(work, asked), name=f"encode {number}", daemon=True)
        for number in range(threads)
    ]
    running: deque[Future[Result]] = deque()
    try:
        for worker in workers:
            worker.start()
        for item in items:
            future: Future[Result] = Future()
            running.append(future)
            asked.put((future, item))
            if len(running) > threads + AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
        for _ in workers:
            asked.put(None)
        for worker in workers:
            if worker.ident is not None:  # one may have had no memory to begin with
                worker.join(PATIENCE)


def _serve(
    work: Callable[[Item], Result], asked: "queue.SimpleQueue[tuple[Future[Result], Item] | None]"
) -> None:
    """Until there is nothing more to be done."""
    while (task := asked.get()) is not None:
        future, item = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(item))
        except BaseException as error:  # it is raised where the result is taken
            future.set_exception(error)
        del future, item, task  # a result must not stay until the next one comes
