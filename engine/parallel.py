"""Work on several threads, its results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 1
"""Results that may wait: threads go on while one is written. Sixteen gained nothing."""


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """`work(item)` for each item, done on `threads` threads, in the order of the items.

    `items` are taken as they are needed, at most `threads` + `AHEAD` beyond the result that is waited for:
    that bounds the memory of results. An exception comes in the place of its result; what was begun by then
    is waited for.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="encode") as pool:
        running: deque[Future[Result]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > threads + AHEAD:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
