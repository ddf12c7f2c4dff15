"""The oracle itself: its decoder against `gguf`, its encoder against a search by brute force."""

import gguf
import numpy as np
import pytest

from engine.api.formats import FORMATS
from kernels import reference
from kernels.efforts import effort_of


@pytest.mark.parametrize("name", FORMATS)
def test_decoder_agrees_with_gguf_on_random_bytes(name):
    data = np.random.default_rng(1).integers(0, 256, (3, FORMATS[name].row_bytes(512)), np.uint8)
    with np.errstate(all="ignore"):  # random F16 scales: some are Inf or NaN
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
        np.testing.assert_array_equal(reference.decode(data, name), expected)


@pytest.mark.parametrize(("effort", "share"), [("fast", 1.04), ("best", 1.02)])
@pytest.mark.parametrize("name", ["Q4_0", "Q5_0", "Q4_1"])
def test_search_comes_close_to_the_best_of_all_scales(name, effort, share):
    """A fine raster of steps (and for Q4_1 of shifts) tried for 40 blocks of 32; within a share."""
    weights = np.random.default_rng(2).normal(size=(40, 32)).astype(np.float32)
    shape = reference.SHAPES[name]
    data = reference.encode(weights, name, "search", effort=effort_of(name, effort))
    found = ((reference.decode(data, name) - weights) ** 2).sum()
    best = 0.0
    for row in weights:
        reach = np.abs(row).max()
        steps = np.linspace(0.6, 1.3, 400) * (np.ptp(row) / 15 if shape.affine else reach / -shape.low)
        if not shape.affine:
            steps = np.concatenate([steps, -steps])
        shifts = np.linspace(row.min() - 0.1, row.min() + 0.6, 100) if shape.affine else np.zeros(1)
        step, shift = steps[:, None, None], shifts[:, None]
        codes = np.rint((row - shift) / step).clip(shape.low, shape.high)
        best += ((codes * step + shift - row) ** 2).sum(axis=-1).min()
    assert found < share * best


@pytest.mark.parametrize("name", [name for name, shape in reference.SHAPES.items() if shape.points])
def test_lattice_search_is_better_than_rounding(name):
    """The best points for searched scales against the nearest points for covering ones."""
    weights = np.random.default_rng(3).normal(size=(4, 256)).astype(np.float32)
    errors = [
        ((reference.decode(data, name) - weights) ** 2).sum()
        for data in (
            reference.encode(weights, name, "search", effort=effort_of(name, "fast")),
            reference.encode(weights, name, "rtn"),
        )
    ]
    assert errors[0] < 0.95 * errors[1]
