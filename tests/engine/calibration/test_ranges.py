"""Range estimators against brute force and against cases whose answer is known."""

import numpy as np
import pytest

from engine.calibration import ranges
from engine.calibration.ranges import (
    divergence,
    least_divergence,
    least_squared_error,
    min_max,
    moving_average,
    percentile,
    squared_error,
)
from kernels.statistics import Distribution, Frame, Sweep


def seen(values: np.ndarray) -> Distribution:
    values = values.astype(np.float32).reshape(1, -1)
    sweep = Sweep(values.shape[1], Frame(np.float32(0), np.float32(1)))
    assert sweep.add(values)
    return Distribution(sweep.swept().counts, float(values.min()), float(values.max()))


@pytest.fixture(scope="module")
def spiky() -> np.ndarray:
    """A normal distribution, and one value far away."""
    return np.append(np.random.default_rng(1).standard_normal(6_000), 40.0)


def test_min_max_and_percentile(spiky):
    assert min_max(seen(spiky)) == (pytest.approx(spiky.min()), 40.0)
    for percent in (99.0, 99.9):
        exact = np.percentile(spiky, [(100 - percent) / 2, (100 + percent) / 2])
        assert percentile(seen(spiky), percent) == pytest.approx(tuple(exact), rel=0.01)


def test_a_moving_average_forgets_slowly():
    assert moving_average(np.array([[-1.0, 2.0]])) == (-1, 2)
    assert moving_average(np.array([[-1.0, 2.0], [-3.0, 2.0]]), 0.25) == (-1.5, 2)
    many = np.array([[-1.0, 0.0]] + [[-5.0, 7.0]] * 200)
    assert moving_average(many) == pytest.approx((-5, 7), abs=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_least_squared_error_is_that_of_trying_each_range(spiky, bits, symmetric):
    values = spiky if symmetric else np.abs(spiky)
    low, high = least_squared_error(seen(values), bits, symmetric=symmetric)
    most = np.abs(values).max()

    def error(share: float) -> float:
        return squared_error(
            values, np.ones(len(values)), -share * most if symmetric else 0.0, share * most, bits
        )

    best = min(np.arange(1, 101) / 100, key=error)
    assert high / most == pytest.approx(best, abs=0.011)
    assert low == pytest.approx(-high if symmetric else 0)
    assert high < most


def test_what_a_grid_holds_exactly_is_not_clipped():
    levels = np.repeat(np.arange(-8, 8), 9) / 4
    low, high = least_squared_error(seen(levels), 4)
    assert (low, high) == (-2, 1.75)
    assert squared_error(levels, np.ones(len(levels)), low, high, 4) == 0
    assert squared_error(np.array([3.0]), np.array([2.0]), 1.0, 1.0, 4) == 8, "no range: all is one value"


def test_divergence_is_that_of_its_definition():
    generator = np.random.default_rng(2)
    counts = generator.integers(0, 5, 24).astype(float)
    counts[[3, 9, 15]] = 4
    for stop in (15, 16, 20, 24):
        wanted = counts[:stop].copy()
        wanted[-1] += counts[stop:].sum()
        given = np.zeros(stop)
        for level in range(4):
            own = [at for at in range(stop) if at * 4 // stop == level]
            filled = [at for at in own if counts[at]]
            for at in filled:
                given[at] = sum(counts[own]) / len(filled)
        p, q = wanted / wanted.sum(), given / given.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.nansum(np.where(p > 0, p * np.log(p / q), 0))
        assert divergence(counts, stop, 4) == pytest.approx(expected)


def test_the_least_divergence_is_that_of_trying_each_clip(spiky, monkeypatch):
    monkeypatch.setattr(ranges, "MAGNITUDES", 256)
    values = spiky.astype(np.float32)
    low, high = least_divergence(seen(values), 5)
    edges = np.linspace(0, 40, 257)
    counts = np.histogram(np.abs(values), edges)[0].astype(float)
    counts[0] = 0
    lost = [divergence(counts, stop, 16) for stop in range(16, 257)]
    assert high == pytest.approx(edges[16 + int(np.argmin(lost))], rel=0.05)
    assert low == max(float(values.min()), -high)
    assert high < 20, "the lonely value is clipped"


def test_a_layer_of_zeros_has_an_empty_range():
    nothing = seen(np.zeros(8))
    for found in (
        min_max(nothing),
        percentile(nothing),
        least_squared_error(nothing, 8),
        least_divergence(nothing, 8),
    ):
        assert found == (0, 0)


def test_even_values_need_all_of_their_range():
    even = seen(np.linspace(-1, 1, 20_001))
    assert least_divergence(even, 8)[1] > 0.97
    assert least_squared_error(even, 8)[1] == pytest.approx(1, abs=0.02)


def test_values_far_from_zero_keep_a_range_of_their_own():
    """The first bins hold nothing there: a clip just above them would lose nothing of them."""
    far = np.random.default_rng(4).uniform(5, 9, 50_000)
    for sign in (1, -1):
        low, high = sorted(sign * end for end in least_divergence(seen(sign * far), 8))
        assert max(abs(low), abs(high)) > 8.5
