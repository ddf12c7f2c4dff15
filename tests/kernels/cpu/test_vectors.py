"""Each operation on sixteen lanes against NumPy's on arrays of sixteen."""

import math

import numpy as np
import pytest
from numba import njit

from kernels.cpu import vectors as v

NAN, INF = np.float32(np.nan), np.float32(np.inf)
A = np.array([0, -0.0, 1, -1, 2.5, -2.5, 1e-42, 3e38, INF, -INF, NAN, NAN, 0.1, 7, -7, 65504], np.float32)
B = np.array([-0.0, 0, 1, 1, -2.5, 3, 1e-42, -3e38, 2, INF, NAN, 1, 0.3, 3, 3, 1e-8], np.float32)
K = np.array([0, 1, -1, 2**31 - 1, -(2**31), 5, 6, -7, 100, 255, 256, 12, 13, -14, 15, 77], np.int32)
J = np.array([0, 1, 2, 3, 4, 5, 7, 7, 31, 16, 8, 1, 2, 3, 4, 5], np.int32)

# What is written alike for lanes and for arrays.
FLOATS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a * b + a, of two roundings": lambda a, b: a * b + a,
    "scalar on the right": lambda a, b: (a + 3) * 0.1 - 1.5 + b / 3,
    "scalar on the left": lambda a, b: 1.5 - 0.1 * (3 + a) + 2 / b,
}
WHOLE = {
    "i + j": lambda i, j: i + j,
    "i - j": lambda i, j: i - j,
    "i * j": lambda i, j: i * j,
    "i & j": lambda i, j: i & j,
    "i | j": lambda i, j: i | j,
    "i ^ j": lambda i, j: i ^ j,
    "i << j": lambda i, j: i << j,
    "scalar on the right": lambda i, j: ((i + 3) * 5 - 7 & 0xFFF | 2 ^ 9) << 3,
    "scalar on the left": lambda i, j: 3 + 5 * (7 - i) ^ 9 | 2 & j,
    "scalar shifted": lambda i, j: 1 << j,
}
COMPARISONS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "scalars": lambda a, b: (a < 2) & (1 > b) | (a == 7),  # noqa: SIM300
}


def on_lanes(operation, a, b, dtype):
    """operation(a, b) as a kernel computes it; a condition as 1 and 0."""
    compiled = njit(error_model="numpy")(operation)

    @njit(error_model="numpy")
    def kernel(a, b, out):
        v.store(out, 0, compiled(v.load(a, 0), v.load(b, 0)))

    out = np.empty(16, dtype)
    kernel(a, b, out)
    return out


def condition(operation):
    compiled = njit(error_model="numpy")(operation)

    def as_number(a, b):
        return v.select(compiled(a, b), v.splat(np.int32(1)), v.splat(np.int32(0)))

    return as_number


@pytest.mark.parametrize("name", FLOATS)
def test_float_arithmetic(name):
    with np.errstate(all="ignore"):
        expected = FLOATS[name](A, B)
    assert expected.dtype == np.float32
    got = on_lanes(FLOATS[name], A, B, np.float32)
    known = ~np.isnan(expected)  # the bits of a NaN are the machine's own
    np.testing.assert_array_equal(np.isnan(got), ~known)
    np.testing.assert_array_equal(got.view(np.int32)[known], expected.view(np.int32)[known])


@pytest.mark.parametrize("name", WHOLE)
def test_integer_arithmetic(name):
    expected = WHOLE[name](K, J)
    assert expected.dtype == np.int32
    np.testing.assert_array_equal(on_lanes(WHOLE[name], K, J, np.int32), expected)


def test_right_shifts_bring_in_zeros():
    expected = (K.view(np.uint32) >> J.view(np.uint32)).view(np.int32)
    np.testing.assert_array_equal(on_lanes(lambda i, j: i >> j, K, J, np.int32), expected)


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("pair", [(A, B), (K, J)], ids=["float", "int"])
def test_comparisons(name, pair):
    got = on_lanes(condition(COMPARISONS[name]), *pair, np.int32)
    np.testing.assert_array_equal(got, COMPARISONS[name](*pair))


@pytest.mark.parametrize(("extreme", "wins"), [(v.least, np.less), (v.most, np.greater)])
def test_extremes_are_the_second_where_equal_or_nan(extreme, wins):
    got = on_lanes(lambda a, b: extreme(a, b), A, B, np.float32)
    np.testing.assert_array_equal(got.view(np.int32), np.where(wins(A, B), A, B).view(np.int32))


def test_select_takes_its_lanes():
    got = on_lanes(lambda a, b: v.select(a < b, b, a), A, B, np.float32)
    np.testing.assert_array_equal(got.view(np.int32), np.where(A < B, B, A).view(np.int32))


def test_conversions():
    within = np.where(np.abs(A) < 1e9, A, np.float32(-3.999))
    np.testing.assert_array_equal(
        on_lanes(lambda a, b: v.to_int(a), within, B, np.int32), within.astype(np.int32)
    )
    np.testing.assert_array_equal(
        on_lanes(lambda i, j: v.to_float(i), K, J, np.float32), K.astype(np.float32)
    )
    np.testing.assert_array_equal(on_lanes(lambda a, b: v.bits(a), A, B, np.int32), A.view(np.int32))
    got = on_lanes(lambda i, j: v.from_bits(i), K, J, np.float32)
    np.testing.assert_array_equal(got.view(np.int32), K)


def test_square_roots_are_the_nearest():
    values = np.concatenate([np.abs(A)[:12], np.array([0, 1e-45, 3e38, 2], np.float32)])
    got = on_lanes(lambda a, b: v.square_root(a), values, B, np.float32)
    np.testing.assert_array_equal(got, np.sqrt(values.astype(np.float64)).astype(np.float32))


def test_splat_fills_all_lanes():
    got = on_lanes(lambda a, b: v.splat(np.float32(0.1)), A, B, np.float32)
    np.testing.assert_array_equal(got, np.full(16, 0.1, np.float32))


@njit(error_model="numpy")
def _moved(source, begin, target, at):
    v.store(target, at, v.load(source, begin))


@njit(error_model="numpy")
def _gathered(table, index, out):
    v.store(out, 0, v.gather(table, v.load(index, 0)))


@njit(error_model="numpy")
def _turned(rows, start, stride, tile, at):
    v.turn(rows, start, stride, tile, at)


@njit(error_model="numpy")
def _any(marks):
    return v.any_lane(v.load(marks, 0) > 0)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_memory_is_reached_at_any_place(dtype):
    """Of read-only arrays, too, and not beyond the sixteen."""
    numbers = np.arange(1000, 1400).astype(dtype)
    numbers.flags.writeable = False
    out = np.zeros(40, dtype)
    _moved(numbers, 7, out, 11)
    np.testing.assert_array_equal(out[11:27], numbers[7:23])
    assert not out[:11].any()
    assert not out[27:].any()
    index = (J * 97 % 400).astype(np.int32)
    out = np.empty(16, dtype)
    _gathered(numbers, index, out)
    np.testing.assert_array_equal(out, numbers[index])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_turning_transposes(dtype):
    rows, stride, start, at = np.arange(5 + 16 * 23).astype(dtype), 23, 3, 32
    tile = np.zeros(at + 256 + 8, dtype)
    _turned(rows, start, stride, tile, at)
    places = start + stride * np.arange(16)[None, :] + np.arange(16)[:, None]
    np.testing.assert_array_equal(tile[at : at + 256].reshape(16, 16), rows[places])
    assert not tile[:at].any()
    assert not tile[at + 256 :].any()


def test_any_lane_sees_each_lane():
    assert not _any(np.zeros(16, np.int32))
    for lane in range(16):
        marks = np.zeros(16, np.int32)
        marks[lane] = 1
        assert _any(marks)


def test_sums_keep_the_order_of_their_own_lane():
    """What makes results the same on every machine: sixteen sums side by side, never one of sixteen parts."""
    terms = np.random.default_rng(5).normal(size=(64, 16)).astype(np.float32)

    @njit(error_model="numpy")
    def total(terms, out):
        sums = v.splat(np.float32(0))
        for i in range(64):
            sums = sums + v.load(terms, 16 * i)
        v.store(out, 0, sums)

    out = np.empty(16, np.float32)
    total(terms.reshape(-1), out)
    np.testing.assert_array_equal(out, terms.cumsum(axis=0, dtype=np.float32)[-1])
    assert not math.isclose(out[0], math.fsum(terms[:, 0].tolist()), rel_tol=1e-9)  # the order can be seen


@njit(error_model="numpy")
def _halves(array, index, out):
    v.store(out, 0, v.load_halves(array, index))


def test_halves_are_widened_without_a_sign():
    array, out = np.arange(0, 65536, 999).astype(np.uint16)[::-1].copy(), np.empty(16, np.int32)
    for index in (0, 1, 7, array.size - 16):
        _halves(array, index, out)
        np.testing.assert_array_equal(out, array[index : index + 16])


@njit(error_model="numpy")
def _tallied(table, first, places, index, others):
    if others:
        v.tally_every_other(table, first, places, index)
    else:
        v.tally(table, first, places, index)


@pytest.mark.parametrize("others", [False, True])
def test_equal_places_are_counted_each(others):
    places = np.array([5, 65535, 0, 5, 5, 40000, 5, 5] * 6, np.uint16)
    for index in (0, 3, 16):
        table = np.zeros(10 + 65536, np.uint32)
        _tallied(table, 10, places, index, others)
        counted = places[index : index + 32 : 2] if others else places[index : index + 16]
        expected = np.bincount(counted, minlength=65536)
        np.testing.assert_array_equal(table[10:], expected)
        assert not table[:10].any()
