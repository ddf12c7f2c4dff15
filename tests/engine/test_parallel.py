"""Work on several threads: order, how far ahead, exceptions, an end before the end."""

import threading
import time
from contextlib import closing

import pytest

from engine import parallel
from engine.parallel import AHEAD, in_order


def test_results_come_in_the_order_of_the_items():
    def late(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(in_order(late, range(20), threads=4)) == [item * item for item in range(20)]
    assert list(in_order(late, [], threads=2)) == []


def test_items_are_taken_no_further_ahead_than_results_may_wait():
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), threads=2)
    for count, _ in enumerate(results, start=1):
        assert len(taken) <= count + 2 + AHEAD


def test_work_goes_on_on_as_many_threads_as_asked():
    both = threading.Barrier(2, timeout=10)
    assert sum(in_order(lambda item: both.wait() >= 0, range(4), threads=2)) == 4


def test_an_exception_comes_in_its_place_and_what_was_begun_is_waited_for():
    ended = []

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        time.sleep(0.01)
        ended.append(item)
        return item

    results = in_order(work, range(10), threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    count = len(ended)
    time.sleep(0.05)
    assert len(ended) == count


def test_work_that_never_ends_does_not_keep_the_others_waiting(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.05)
    never = threading.Event()
    results = in_order(lambda item: never.wait() if item > 3 else item, range(9), threads=2)
    assert next(results) == 0
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 2
    never.set()


def test_closing_ends_the_threads():
    with closing(in_order(lambda item: item, range(100), threads=3)) as results:
        assert next(results) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
