"""Stored bytes to weights and back: equal to the bit to `gguf`, nothing lost between unpack and pack."""

import gguf
import numpy as np
import pytest

from engine.api.errors import ExportError
from engine.api.formats import FORMATS
from engine.formats import Grid, decode, format_of, refuse_pair
from engine.formats.floats import FloatFormat
from engine.formats.grid import storable

GRIDS = [name for name in FORMATS if isinstance(format_of(name), Grid)]


def random_bytes(name: str, rows: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (rows, FORMATS[name].row_bytes(1536)), np.uint8)


@pytest.mark.parametrize("rows", [1, 17, 33])
@pytest.mark.parametrize("name", FORMATS)
def test_random_bytes_decode_as_gguf_does(name, rows):
    data = random_bytes(name, rows)
    with np.errstate(all="ignore"):  # random F16 scales: some are Inf or NaN
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
        decoded = decode(data, name, 1536)
    assert decoded.shape == (rows, 1536)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected)
    zeros = expected == 0
    np.testing.assert_array_equal(np.signbit(decoded[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("name", GRIDS)
def test_packing_undoes_unpacking(name):
    grid = format_of(name)
    data = random_bytes(name, 3)
    blocks = data.reshape(-1, FORMATS[name].block_bytes)
    blocks[:, :4] &= 0x3B  # finite units: a NaN of F16 may come back as another NaN
    blocks[:, -2:] &= 0x3B
    np.testing.assert_array_equal(grid.pack(*grid.unpack(data)), data)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_says_what_its_block_is(name):
    grid = format_of(name)
    assert grid.block == FORMATS[name].block_values
    codes, scales = grid.unpack(np.zeros((2, FORMATS[name].row_bytes(1536)), np.uint8))
    assert codes.shape == (2, 1536)
    assert scales.steps.shape == scales.shifts.shape == (2, 1536 // grid.group)


def test_bytes_of_another_width_are_refused():
    with pytest.raises(ValueError, match="17 bytes are not a row of 32 weights in Q4_0"):
        decode(np.zeros((2, 17), np.uint8), "Q4_0", 32)


@pytest.mark.parametrize(
    ("wished", "stored"),
    [
        (0.0, 0.0),
        (-0.5, -0.5),
        (0.1, float(np.float16(0.1))),
        (1e-12, 2.0**-24),
        (-1e-12, -(2.0**-24)),
        (1e9, 65504.0),
        (-np.inf, -65504.0),
    ],
)
def test_units_become_f16_numbers_but_never_infinite_and_never_nothing(wished, stored):
    assert storable(np.array([wished], np.float32)).tolist() == [stored]


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q4_1"])
def test_scales_near_the_wished_ones(name):
    grid = format_of(name)
    rng = np.random.default_rng(6)
    steps = rng.uniform(0.01, 0.02, (4, 16 * grid.groups)).astype(np.float32)
    shifts = -rng.uniform(0.1, 0.2, steps.shape).astype(np.float32) * grid.codes.affine
    scales = grid.scales(steps, shifts)
    # Half a level of the extreme one, and the rounding of the unit to 11 bits.
    slack = 0.5 / max(map(abs, grid.step_levels)) + 2**-11 if grid.groups > 1 else 2**-11
    assert np.abs(scales.steps - steps).max() <= slack * 0.02
    assert np.abs(scales.shifts - shifts).max() <= slack * 0.2


def test_f16_refuses_what_it_cannot_hold():
    weights = np.array([[1.0, 65519.0], [2.0, -70000.0]], np.float32)
    assert FloatFormat("F16").decode(FloatFormat("F16").encode(weights[:1])).tolist() == [[1.0, 65504.0]]
    with pytest.raises(ExportError, match=r"A weight of -70000 does not fit F16.*BF16 or F32"):
        FloatFormat("F16").encode(weights)


def test_bf16_refuses_what_it_cannot_hold():
    with pytest.raises(ExportError, match=r"does not fit BF16.*F32"):
        FloatFormat("BF16").encode(np.array([[3.4e38]], np.float32))


def test_pairs():
    assert refuse_pair("search", "Q4_K") is None
    assert refuse_pair("rtn", "F16") is None
    assert "no format 'Q4_Z'" in refuse_pair("rtn", "Q4_Z")
    assert "no method 'guess'" in refuse_pair("guess", "Q4_K")
