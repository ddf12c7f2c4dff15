"""Tiles of sixteen blocks: what is read into them, F16 numbers in them, and the bytes written from them."""

import numpy as np
import pytest
from numba import njit

from kernels.cpu import tiles
from kernels.cpu.vectors import load, store

HALVES = np.arange(1 << 16, dtype=np.uint16)
FINITE = HALVES[np.isfinite(HALVES.view(np.float16))]


@njit(error_model="numpy")
def _storable(values, out):
    for i in range(0, values.size, 16):
        store(out, i, tiles.storable(load(values, i)))


@njit(error_model="numpy")
def _half_bits(values, out):
    for i in range(0, values.size, 16):
        store(out, i, tiles.half_bits(load(values, i)))


@njit(error_model="numpy")
def _rounded(values, out):
    for i in range(0, values.size, 16):
        store(out, i, tiles.rounded(load(values, i)))


_load_tile = njit(error_model="numpy")(
    lambda plain, stored, kind, size, first, blocks, rows, x: tiles.load_tile(
        plain, stored, kind, size, first, blocks, rows, x
    )
)


def storable(values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    _storable(values, out)
    return out


def tile_of(blocks: np.ndarray, first: int) -> tuple[bool, np.ndarray]:
    """Whether all are finite, and the tile, float32 [size, 16], of blocks [blocks, size] of any kind."""
    size = blocks.shape[1]
    rows, x = np.empty(16 * size, np.float32), np.empty(16 * size, np.float32)
    plain, stored, kind = np.empty(0, np.float32), np.empty(0, np.uint16), tiles.F32
    if blocks.dtype == np.float32:
        plain = blocks.reshape(-1)
    else:
        stored, kind = (
            blocks.reshape(-1).view(np.uint16),
            tiles.F16 if blocks.dtype == np.float16 else tiles.BF16,
        )
    finite = _load_tile(plain, stored, kind, size, first, len(blocks), rows, x)
    return finite, x.reshape(size, 16)


# ---------------------------------------------------------------------------------------------- F16 numbers


def test_every_half_is_storable_as_it_is():
    values = FINITE.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(storable(values), values)
    bits = np.empty(len(values), np.int32)
    _half_bits(values, bits)
    np.testing.assert_array_equal(bits, FINITE)


def test_storable_is_numpys_rounding_within_bounds():
    """Ties to even; the largest number for more; the smallest for less, but 0 for 0."""
    halves = FINITE.view(np.float16).astype(np.float32)
    between = (np.sort(halves)[:-1] + np.sort(halves)[1:]) / np.float32(2)
    rng = np.random.default_rng(6)
    anything = rng.integers(0, 1 << 32, 1 << 16, np.uint32).view(np.float32)
    near = rng.normal(size=1 << 14).astype(np.float32) * np.float32(2.0) ** rng.integers(-30, 18, 1 << 14)
    values = np.concatenate(
        [
            between,
            np.nextafter(between, np.float32(np.inf)),
            np.nextafter(between, np.float32(-np.inf)),
            anything[~np.isnan(anything)],
            near,
            np.array([0, -0.0, np.inf, -np.inf, 65520, 1e-45, -1e-45, 2.0**-25], np.float32),
        ]
    ).astype(np.float32)
    values = values[: len(values) // 16 * 16]
    clipped = np.clip(np.abs(values), np.float32(2.0**-24), np.float32(65504))
    expected = np.copysign(clipped.astype(np.float16).astype(np.float32), values)
    expected[values == 0] = 0
    np.testing.assert_array_equal(storable(values).view(np.int32), expected.view(np.int32))


def test_rounding_is_to_even():
    values = np.arange(-40, 40, 0.25, dtype=np.float32)
    values = np.concatenate([values, np.array([2**21 + 0.5, -(2**21) - 1.5] * 8, np.float32)])
    out = np.empty_like(values)
    _rounded(values, out)
    np.testing.assert_array_equal(out, np.rint(values))


# -------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_every_number_of_sixteen_bits_is_read(kind):
    """Denormals, both zeros; tiles with NaN or Inf are refused."""
    if kind == "f16":
        stored, values = HALVES.view(np.float16), HALVES.view(np.float16).astype(np.float32)
    else:
        stored, values = HALVES, (HALVES.astype(np.uint32) << 16).view(np.float32)
    finite = np.flatnonzero(np.isfinite(values))
    finite = finite[: len(finite) // 512 * 512]
    for begin in range(0, len(finite), 512):
        some = finite[begin : begin + 512]
        ok, tile = tile_of(stored[some].reshape(16, 32), 0)
        assert ok
        np.testing.assert_array_equal(tile.T.reshape(-1).view(np.int32), values[some].view(np.int32))
    for place in np.flatnonzero(~np.isfinite(values))[:: 97 if kind == "f16" else 13]:
        one = np.zeros((1, 32), stored.dtype)
        one[0, place % 32] = stored[place]
        assert not tile_of(one, 0)[0]


@pytest.mark.parametrize("blocks", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_short_tile_repeats_its_last_block(blocks, dtype):
    weights = np.random.default_rng(7).normal(size=(blocks, 48)).astype(dtype)
    for first in range(0, blocks, 16):
        finite, tile = tile_of(weights, first)
        assert finite
        places = np.minimum(first + np.arange(16), blocks - 1)
        np.testing.assert_array_equal(tile, weights[places].T.astype(np.float32))


def test_importance_follows_the_columns():
    importance = np.random.default_rng(8).uniform(size=96).astype(np.float32)
    loaded = njit(error_model="numpy")(
        lambda importance, size, first, blocks, rows, x, w: tiles.load_importance(
            importance, size, first, blocks, rows, x, w
        )
    )
    rows, w = np.empty(16 * 32, np.float32), np.ones(16 * 32, np.float32)
    blocks = np.minimum(16 + np.arange(16), 20) % 3
    columns = importance.reshape(3, 32)[blocks].T
    zeros = np.zeros(16 * 32, np.float32)
    assert loaded(importance, 32, 16, 21, rows, zeros, w) == 16
    np.testing.assert_array_equal(w.reshape(32, 16), columns)
    x = np.random.default_rng(9).normal(size=(32, 16)) * 10.0 ** np.linspace(-42, 37, 16)
    x = x.astype(np.float32).astype(np.float64)
    assert loaded(importance, 32, 16, 21, rows, x.astype(np.float32).reshape(-1), w) == 16
    part = x / np.abs(x).max(axis=0)
    expected = columns * np.sqrt(2 * (part**2).mean(axis=0) + part**2)
    np.testing.assert_allclose(w.reshape(32, 16), expected, rtol=1e-6)
    w[:] = 1
    assert loaded(importance[:0], 32, 16, 21, rows, zeros, w) == 0
    assert (w == 1).all()


# -------------------------------------------------------------------------------------------------- writing

_write_bytes = njit(error_model="numpy")(
    lambda data, size, first, blocks, words, rows, out: tiles.write_bytes(
        data, size, first, blocks, words, rows, out
    )
)


@pytest.mark.parametrize("blocks", [1, 5, 16, 33])
def test_bytes_of_blocks_of_any_size(blocks):
    for size in range(17, 211):
        data = np.random.default_rng(size).integers(0, 256, (size, 16)).astype(np.int32)
        words = -(-size // 64) * 256
        out = np.full(blocks * size + 8, 7, np.uint8)
        first = (blocks - 1) // 16 * 16
        scratch = np.zeros(words, np.int32), np.empty(words, np.int32)
        _write_bytes(data.reshape(-1), size, first, blocks, *scratch, out)
        expected = data.T[: blocks - first].astype(np.uint8).reshape(-1)
        np.testing.assert_array_equal(out[first * size : blocks * size], expected)
        assert (out[: first * size] == 7).all()
        assert (out[blocks * size :] == 7).all()
