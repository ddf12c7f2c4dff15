"""The property tests of a reader: `no_damage` and `no_bytes` make them, for the test files of each reader."""

from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, check, mutate
from tests.fuzz.seeds import committed


def _bounded(examples: int) -> settings:
    """The same examples in every run; how long one takes is judged by `check`, on this thread's clock."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=slow
    )


def no_damage(name: str, examples: int = 250) -> Callable[[], None]:
    """A test: whatever is done to the files of the corpus, they are read, or refused in order."""
    reader = READERS[name]

    @_bounded(examples)
    @given(st.sampled_from(list(committed(name).values())), st.randoms(use_true_random=False))
    def test(data: bytes, random: Random) -> None:
        damaged = mutate(reader, data, random)
        note(f"{damaged!r}")
        check(reader, damaged)

    return test


def no_bytes(name: str, examples: int = 60) -> Callable[[], None]:
    """A test: the same for random bytes, alone and behind the beginning of a good file."""
    reader = READERS[name]
    starts = [data[:size] for data in committed(name).values() for size in (0, 4, 8, 24, 60)]

    @_bounded(examples)
    @given(st.sampled_from(starts), st.binary(max_size=300))
    def test(start: bytes, rest: bytes) -> None:
        check(reader, start + rest)

    return test
