"""Statistics from one sweep, held against plain NumPy in float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kernels import statistics
from kernels.reference import statistics as reference
from kernels.statistics import Distribution, Frame, Sweep, Swept, channels, frame_of
from tests.kernels.arrays import hostile, ordinary

SHAPES = [(1, 1), (1, 40), (40, 1), (3, 7), (33, 257), (32, 256), (66, 528)]
"""Less than a step, whole tiles, and one more than a tile in both directions."""

DTYPES = ["float32", "float16", "bfloat16"]


def arrays(rows: int, columns: int) -> dict[str, np.ndarray]:
    """All that weights may be, and what is hard for sums of powers."""
    found = ordinary(rows, columns)
    if columns > 5:
        found |= hostile(rows, columns)
    noise = found["gaussian"]
    mixed = noise.copy()
    mixed[::3] *= np.float32(1e-12)
    mixed[:, ::5] *= np.float32(1e9)
    found["rows and columns of other sizes"] = mixed
    found["far from 0"] = noise + np.float32(50)
    found["most are 0"] = np.where(np.abs(noise) < 0.03, 0, noise).astype(np.float32)
    found["zeros of both signs"] = np.where(noise < 0, np.float32(-0.0), np.float32(0))
    return found


def stored(weights: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """As a checkpoint gives them, and what they then are as float32."""
    if dtype == "bfloat16":
        halves = (weights.view(np.uint32) >> 16).astype(np.uint16)
        return halves, (halves.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        there = weights.astype(dtype)
    return there, there.astype(np.float32)


def swept(weights: np.ndarray) -> Swept:
    sweep = Sweep(weights.shape[1], frame_of(weights))
    assert sweep.add(weights)
    return sweep.swept()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_figures_are_those_of_the_reference(shape, dtype):
    for name, weights in arrays(*shape).items():
        given, values = stored(weights, dtype)
        if not np.isfinite(values).all():
            continue
        found, frame = swept(given), frame_of(given)
        np.testing.assert_array_equal(found.counts, reference.counts(values), name)
        rows, columns = shape
        for axis, sums, count in (
            (1, found.rows, columns),
            (0, found.columns, rows),
            (None, statistics.whole(found.rows), rows * columns),
        ):
            expected = reference.channels(values, axis)
            for figure, right in expected.items():
                told = getattr(channels(sums, count, frame), figure).reshape(right.shape)
                if figure in ("min", "max", "absmax", "zeros"):
                    np.testing.assert_array_equal(told, right, f"{name}, {figure}")
                else:
                    # float32 within a tile; a mean may be 0, and is as exact as its weights lie apart
                    size = np.abs(right) + (expected["std"] if figure == "mean" else 0)
                    assert (np.abs(told - right) <= 1e-6 * size).all(), (name, figure, axis)


def test_channels_far_from_the_rest_are_exact_enough_for_the_eye():
    """Ten standard deviations away: the one limit that is documented."""
    weights = ordinary(64, 512)["gaussian"]
    weights[5] += 0.2
    weights[:, 7] -= 0.2
    found, frame = swept(weights), frame_of(weights)
    for axis, sums, count in ((1, found.rows, 512), (0, found.columns, 64)):
        expected, told = reference.channels(weights, axis), channels(sums, count, frame)
        np.testing.assert_allclose(told.std, expected["std"], rtol=1e-5)
        np.testing.assert_allclose(told.kurtosis, expected["kurtosis"], rtol=2e-3)


def test_a_channel_far_away_from_the_others_is_no_outlier_by_its_kurtosis():
    """Sums around 0 do not tell it; nothing is said, rather than thousands."""
    weights = np.random.default_rng(5).standard_normal((2048, 64)).astype(np.float32)
    weights[:, 5] -= 300
    weights[:, 9] += 20
    frame = Frame(np.float32(0), np.float32(1))
    sweep = Sweep(64, frame)
    assert sweep.add(weights)
    told = channels(sweep.swept().columns, 2048, frame)
    right = reference.channels(weights, 0)
    assert told.kurtosis[5] == 0
    assert told.kurtosis[9] == pytest.approx(right["kurtosis"][9], rel=0.02)
    np.testing.assert_allclose(told.std, right["std"], rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_voids_all(dtype, bad):
    weights = ordinary(33, 257)["gaussian"]
    for row, column in ((0, 0), (32, 256), (17, 200), (3, 256), (32, 4)):
        broken = weights.copy()
        broken[row, column] = bad
        given, _ = stored(broken, dtype)
        assert not Sweep(257, frame_of(given)).add(given)
    assert Sweep(257, frame_of(weights)).add(stored(weights, dtype)[0])


def test_the_same_to_the_bit_on_four_threads_at_once():
    pieces = [part for part in ordinary(70, 300).values() for _ in range(4)]
    once = [swept(piece) for piece in pieces]
    with ThreadPoolExecutor(4) as pool:
        for first, second in zip(once, pool.map(swept, pieces), strict=True):
            for one, other in zip(
                (*first.rows, *first.columns), (*second.rows, *second.columns), strict=True
            ):
                np.testing.assert_array_equal(one, other)


def test_rows_added_one_after_the_other_are_one_matrix():
    weights = ordinary(70, 300)["laplace"]
    frame = frame_of(weights)
    sweep = Sweep(300, frame)
    for part in np.split(weights, [1, 34]):
        assert sweep.add(np.ascontiguousarray(part))
    found, expected = sweep.swept(), swept(weights)
    np.testing.assert_array_equal(found.counts, expected.counts)
    for one, other, count in ((found.rows, expected.rows, 300), (found.columns, expected.columns, 70)):
        told, right = channels(one, count, frame), channels(other, count, frame)
        np.testing.assert_allclose(told.std, right.std, rtol=1e-6)
        np.testing.assert_array_equal(told.absmax, right.absmax)


# ---------------------------------------------------------------------------------------- distributions

PERCENTS = (0, 0.1, 1, 5, 25, 50, 75, 95, 99, 99.9, 100)


def distribution(values: np.ndarray, *, exact: bool = False) -> Distribution:
    return Distribution(reference.counts(values), float(values.min()), float(values.max()), exact=exact)


def test_percentiles_of_bfloat16_are_numpys():
    for name, weights in arrays(33, 257).items():
        _, values = stored(weights, "bfloat16")
        found = distribution(values, exact=True).percentiles(PERCENTS)
        np.testing.assert_allclose(
            found, np.percentile(values.astype(float), PERCENTS), rtol=1e-12, err_msg=name
        )


def test_percentiles_of_float32_are_numpys_but_for_the_width_of_a_bin():
    for name, weights in arrays(33, 257).items():
        found = distribution(weights).percentiles(PERCENTS)
        expected = np.percentile(weights.astype(float), PERCENTS)
        assert (np.abs(found - expected) <= np.abs(expected) * 2**-7 + 1e-40).all(), name
        assert (found[0], found[-1]) == (weights.min(), weights.max())


def test_how_many_lie_outside():
    weights = ordinary(300, 300)["heavy-tailed"]
    _, values = stored(weights, "bfloat16")
    for low, high in ((-0.05, 0.05), (-6.0, 0.1), (-np.inf, 0.0), (0.0, np.inf), (-1.0, -0.02)):
        exact = distribution(values, exact=True).outside(low, high)
        assert exact == ((values < low) | (values > high)).sum()
        about = distribution(weights).outside(low, high)
        right = ((weights < low) | (weights > high)).sum()
        assert abs(about - right) <= 3 + 0.02 * right


def test_the_bounds_of_bins_are_those_of_float32s_upper_half():
    edges = distribution(ordinary(3, 7)["gaussian"]).edges
    assert (np.diff(edges) >= 0).all()
    assert edges[32768] == 0
    for value in (1.0, -1.0, 0.02, -3e38, 1e-39):
        upper = int(np.array(value, np.float32).view(np.uint32)) >> 16
        place = upper + 0x8000 if upper < 0x8000 else 0xFFFF - upper
        assert edges[place] <= np.float32(value) <= edges[place + 1]
