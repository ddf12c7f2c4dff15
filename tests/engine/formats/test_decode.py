"""Stored bytes to weights and back: equal to the bit to `gguf`, nothing lost between unpack and pack."""

import gguf
import numpy as np
import pytest

from engine.api.errors import ExportError
from engine.api.formats import FORMATS
from engine.checkpoint.finite import SCALE_OFFSETS
from engine.formats import Grid, Scales, decode, format_of, refuse_pair
from engine.formats.floats import FloatFormat
from engine.formats.grid import storable

GRIDS = [name for name in FORMATS if isinstance(format_of(name), Grid)]
# FP4: 0 and -0. NVFP4: steps 0x00, 0x7F and 0x80; bit 7 of the others. TQ1_0: 243 numbers in a byte.
SEVERAL_BYTES_MEAN_THE_SAME = ("MXFP4", "NVFP4", "TQ1_0")


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
    """Byte for byte; where several bytes mean the same, to the first of these."""
    grid = format_of(name)
    data = random_bytes(name, 3)
    blocks = data.reshape(-1, FORMATS[name].block_bytes)
    for offset in SCALE_OFFSETS.get(name, [54] * (name == "IQ1_M")):
        blocks[:, offset + 1] &= 0xBF  # a finite F16: a NaN may come back as another NaN
    packed = grid.pack(*grid.unpack(data))
    if name in SEVERAL_BYTES_MEAN_THE_SAME:
        assert (packed != data).any()
        with np.errstate(over="ignore"):  # MXFP4's largest steps make infinite weights
            np.testing.assert_array_equal(decode(packed, name, 1536), decode(data, name, 1536))
        data = packed
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


@pytest.mark.parametrize("name", [name for name in GRIDS if format_of(name).own_steps is None])
def test_scales_near_the_wished_ones(name):
    grid = format_of(name)
    rng = np.random.default_rng(6)
    steps = rng.uniform(0.01, 0.02, (4, 16 * grid.groups)).astype(np.float32)
    shifts = -rng.uniform(0.1, 0.2, steps.shape).astype(np.float32) * grid.codes.affine
    scales = grid.scales(steps, shifts)
    assert np.isin(scales.step_levels, list(grid.step_levels)).all()
    assert np.isin(scales.shift_levels, list(grid.shift_levels)).all()
    # Half a level of the extreme one, and the rounding of the unit to 11 bits.
    for found, wished, levels in (
        (scales.steps, steps, grid.step_levels),
        (scales.shifts, shifts, grid.shift_levels),
    ):
        rounding = levels.step / 2 / max(map(abs, levels)) if len(levels) > 1 else 0
        assert np.abs(found - wished).max() <= (rounding + 2**-11) * np.abs(wished).max()


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4"])
def test_steps_of_a_formats_own(name):
    """The nearest that can be stored; nothing but 0 becomes 0, nothing becomes infinite."""
    grid = format_of(name)
    own = grid.own_steps
    wished = np.concatenate([own, np.geomspace(1e-45, 3e38, 997)]).astype(np.float32)
    wished = np.resize(wished, (1, len(wished) // 4 * 4))
    scales = grid.scales(wished, np.zeros_like(wished))
    distance = np.abs(own.astype(np.float64)[:, None] - wished).min(axis=0)
    np.testing.assert_array_equal(np.abs(scales.steps[0].astype(np.float64) - wished[0]), distance)
    assert (scales.steps > 0).all()
    codes = np.full((1, wished.size * grid.group), grid.codes.high, np.int8)
    data = grid.pack(codes, scales)
    again, kept = grid.unpack(data)
    np.testing.assert_array_equal(kept.steps, scales.steps)
    assert np.isfinite(grid.values(again, kept)).all()


def test_own_steps_are_those_that_gguf_reads():
    mxfp4, nvfp4 = format_of("MXFP4").own_steps, format_of("NVFP4").own_steps
    np.testing.assert_array_equal(mxfp4, gguf.quants.MXFP4.e8m0_to_fp32_half(np.arange(253)))
    np.testing.assert_array_equal(nvfp4, gguf.quants.NVFP4.ue4m3_to_fp32(np.arange(1, 0x7F, dtype=np.uint8)))


@pytest.mark.parametrize("step", [0.0, np.nan, np.inf, 1e-31])
@pytest.mark.parametrize("name", GRIDS)
def test_a_step_that_is_none_gives_the_least_code(name, step):
    grid = format_of(name)
    weights = np.random.default_rng(7).normal(size=(2, grid.block)).astype(np.float32)
    units = np.full((2, 1), step, np.float32)
    ones = np.ones((2, 1, grid.groups), np.float32)
    codes = grid.round(weights, Scales(units, np.zeros_like(units), ones, ones))
    least = {"IQ4_NL": 1, "IQ4_XS": 1, "IQ3_S": 1, "IQ3_XXS": 4, "IQ1_M": 1, "IQ1_S": 1}
    assert (codes == (8 if name.startswith("IQ2") else least.get(name, 0))).all()


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
