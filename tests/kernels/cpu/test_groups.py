"""The kernels on their own: ragged tiles, neighbours, read-only input, launches from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kernels import groups
from kernels.groups import Codes

UNIFORM = np.ones((1, 32), np.float32)


def weights(count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, 32)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 17, 63, 64, 65, 200])
def test_ranges_are_exact(count):
    x = weights(count)
    lowest, highest = groups.ranges(x)
    np.testing.assert_array_equal(lowest, x.min(axis=1))
    np.testing.assert_array_equal(highest, x.max(axis=1))


@pytest.mark.parametrize("count", [1, 17, 63, 64, 65])
def test_a_group_does_not_see_its_neighbours(count):
    x = weights(count)
    codes = Codes(0, 15, affine=True)
    candidates = np.array([[1.0, 0.0], [0.9, 0.7]], np.float32)

    def found(part: np.ndarray) -> np.ndarray:
        lowest, highest = groups.ranges(part)
        start = (highest - lowest) / np.float32(15), lowest
        scales = groups.search(part, UNIFORM, codes, start, candidates, 2)
        levels = tuple(np.full(len(part), 7, np.float32) for _ in range(2))
        settled = groups.settle(
            part, UNIFORM, codes, (scales[0] / 7, scales[1] / 7), levels, ((0, 63),) * 2, 2
        )
        return np.stack([*scales, settled.step_levels, settled.shift_levels, settled.error, settled.rq])

    alone = np.concatenate([found(x[i : i + 1]) for i in range(count)], axis=1)
    np.testing.assert_array_equal(found(x), alone)


def test_importance_repeats_with_its_period():
    x = np.tile(weights(1), (6, 1))
    matters = np.random.default_rng(4).uniform(0, 1, (3, 32)).astype(np.float32)
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    settled = groups.settle(
        x, matters, Codes(-8, 7, False), (ones / 4, zeros), (ones, ones), ((1, 1), (1, 1)), 0
    )
    residual = x[0] - np.rint(x[0] * 4).clip(-8, 7) / 4
    expected = np.tile((matters * residual**2).sum(axis=1), 2)
    # Only the order of the 32 float32 additions differs.
    np.testing.assert_allclose(settled.error, expected, rtol=1e-5)
    np.testing.assert_allclose(settled.w, np.tile(matters.sum(axis=1), 2), rtol=1e-6)


def test_codes_are_the_nearest_ties_to_even():
    x = np.array([[-9, -8.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 7.4, 7.5, 80, 0, 0.49, 0.51, 1, 2]], np.float32)
    codes = groups.round_codes(x, Codes(-8, 7, False), np.ones(1, np.float32), np.zeros(1, np.float32))
    assert codes.tolist() == [[-8, -8, -2, -2, 0, 0, 2, 2, 7, 7, 7, 0, 0, 1, 1, 2]]
    assert codes.dtype == np.int8


def test_a_step_of_nothing_gives_code_zero():
    zeros = np.zeros(1, np.float32)
    assert not groups.round_codes(weights(1), Codes(-8, 7, False), zeros, zeros).any()


def test_read_only_weights_are_taken():
    x = weights(5)
    x.flags.writeable = False
    np.testing.assert_array_equal(groups.ranges(x)[0], x.min(axis=1))


def test_launches_from_several_threads_wait_for_each_other():
    x = weights(5000)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: groups.ranges(x)[1], range(64)))
    for highest in results:
        np.testing.assert_array_equal(highest, x.max(axis=1))
