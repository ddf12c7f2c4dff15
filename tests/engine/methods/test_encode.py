"""`encode`: the same bytes as the slow reference, however rows are cut up and whatever the input."""

import tracemalloc

import gguf
import numba
import numpy as np
import pytest

import engine.methods
from engine.api.errors import ExportError, RecipeError
from engine.api.formats import FORMATS, METHODS
from engine.formats import Codes, Grid, Lattice, decode, format_of
from engine.methods import encode, warm_up
from kernels import reference
from tests.kernels.arrays import hostile, importance, ordinary

GRIDS = [name for name in FORMATS if isinstance(format_of(name), Grid)]
# What the searching method is tried on so far.
SEARCHED = ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K"]
PAIRS = [(name, "rtn") for name in GRIDS] + [(name, "search") for name in SEARCHED]
FLOATS = [(name, method) for name in ("F32", "F16", "BF16") for method in METHODS]


def methods_for(name: str) -> list[str]:
    return [method for method in METHODS if (name, method) in PAIRS]


@pytest.mark.parametrize("rows", [1, 17, 33])
@pytest.mark.parametrize(("name", "method"), PAIRS + FLOATS)
def test_bytes_are_the_references(name, method, rows):
    weights = ordinary(rows, 512)["heavy-tailed"]
    for matters in (None, importance(512)):
        np.testing.assert_array_equal(
            encode(weights, name, method, matters), reference.encode(weights, name, method, matters)
        )


def worst_error(name: str, extreme: float) -> float:
    """The most that a weight may be off in a row of weights up to `extreme`, all within reach of F16 scales.

    A part of the extreme, and what the coarsest steps add: the unit is rounded to multiples of 2^-24.
    """
    grid = format_of(name)
    if isinstance(grid.codes, Lattice):
        part = 1  # rows that no point resembles; the searching method has better scales for them
    elif name.startswith("TQ") or name in ("MXFP4", "NVFP4"):
        part = 1 / 2  # of steps of 1; or of steps that may be half of what would cover the range
    else:
        # A symmetric grid has 7 steps of 4 bits on its shorter side, Q3_K 3; Q2_K has 3 for both sides.
        part = {"Q3_K": 1 / 4, "Q2_K": 1 / 2, "IQ4_NL": 1 / 6, "IQ4_XS": 1 / 6}.get(name, 1 / 7)
    if grid.own_steps is not None:
        return part * extreme + grid.codes.high * grid.own_steps[0] / 2
    greatest = max(map(abs, grid.step_levels)) * grid.fraction
    return part * extreme + max(-grid.codes.low, grid.codes.high, 2) * greatest * 2.0**-25


@pytest.mark.parametrize("kind", hostile(1, 256))
@pytest.mark.parametrize("name", GRIDS)
def test_hostile_weights(name, kind):
    """Bytes as the reference's; finite values; none far off where the format reaches that far."""
    weights = hostile(3, 512)[kind]
    extreme = float(np.abs(weights).max())
    within_reach = extreme < (2600 if name == "NVFP4" else 65504)  # UE4M3 ends at 448
    for method in methods_for(name):
        data = encode(weights, name, method)
        np.testing.assert_array_equal(data, reference.encode(weights, name, method))
        decoded = decode(data, name, 512)
        assert np.isfinite(decoded).all()
        if within_reach:
            assert np.abs(decoded - weights).max() <= worst_error(name, extreme)
        elif extreme > 1e30 and not isinstance(format_of(name).codes, Lattice):
            # Out of reach: the largest that the format holds, on the right side of 0.
            assert (decoded * np.sign(weights) >= 0).all()


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_zeros_stay_zero(name, method):
    assert not decode(encode(hostile(2, 512)["zeros"], name, method), name, 512).any()


@pytest.mark.parametrize("name", [name for name in GRIDS if type(format_of(name).codes) is Codes])
def test_one_weight_among_zeros_is_kept_to_f16s_precision(name):
    """By codes that are whole numbers; tables and lattices have no 0, or steps of their own."""
    weights = hostile(2, 512)["one weight a row"]
    for method in methods_for(name):
        decoded = decode(encode(weights, name, method), name, 512)
        # Both the unit of steps and that of shifts are off by up to 2^-11 of the 0.5 that they span.
        np.testing.assert_allclose(decoded, weights, rtol=0, atol=0.5 * 2**-10)


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_bytes_do_not_depend_on_threads_nor_on_how_rows_are_cut_up(name, method, monkeypatch):
    weights = ordinary(67, 768)["laplace"]
    matters = importance(768)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        expected = encode(weights, name, method, matters)
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        np.testing.assert_array_equal(encode(weights, name, method, matters), expected)
    finally:
        numba.set_num_threads(before)
    parts = [encode(weights[a:b], name, method, matters) for a, b in ((0, 1), (1, 18), (18, 51), (51, 67))]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    monkeypatch.setattr(engine.methods, "PIECE", 5 * 768)
    np.testing.assert_array_equal(encode(weights, name, method, matters), expected)


@pytest.mark.parametrize("name", SEARCHED)
def test_search_is_never_worse_than_rounding_in_any_block(name):
    block = FORMATS[name].block_values
    for kind, weights in (ordinary(33, 512) | hostile(3, 512)).items():
        if np.abs(weights).max() > 1e15:  # squares beyond float32: both methods give the covering scales
            continue
        for matters in (np.ones(512, np.float32), importance(512)):
            errors = []
            for method in ("search", "rtn"):
                wrong = decode(encode(weights, name, method, matters), name, 512).astype(np.float64) - weights
                errors.append((wrong**2 * matters).reshape(-1, block).sum(axis=1))
            # Compared in float32 inside: equal there may be a little apart here.
            assert (errors[0] <= errors[1] * (1 + 1e-5) + 1e-37).all(), kind


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        ("Q4_0", 0.0080),
        ("Q4_1", 0.0062),
        ("Q5_0", 0.0021),
        ("Q5_1", 0.0015),
        ("Q8_0", 3.0e-5),
        ("Q4_K", 0.0056),
        ("Q5_K", 0.0014),
        ("Q6_K", 4.0e-4),
    ],
)
def test_error_on_gaussian_weights(name, ceiling):
    """Relative squared error: a ceiling a few per cent above what was measured."""
    weights = ordinary(64, 1024)["gaussian"]
    decoded = decode(encode(weights, name), name, 1024)
    assert ((decoded - weights) ** 2).sum() < ceiling * (weights**2).sum()


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        ("Q3_K", 0.025),
        ("Q2_K", 0.11),
        ("IQ4_NL", 0.0066),
        ("IQ4_XS", 0.0066),
        ("IQ3_S", 0.020),
        ("IQ3_XXS", 0.036),
        ("IQ2_S", 0.070),
        ("IQ2_XS", 0.097),
        ("IQ2_XXS", 0.13),
        ("IQ1_M", 0.26),
        ("IQ1_S", 0.35),
        ("NVFP4", 0.0095),
        ("MXFP4", 0.0128),
    ],
)
def test_error_of_rounding_on_gaussian_weights(name, ceiling):
    """As above, of formats that are not searched yet. NVFP4 has steps fit for weights of about 1."""
    weights = ordinary(64, 1024)["gaussian"] * np.float32(50)
    decoded = decode(encode(weights, name, "rtn"), name, 1024)
    assert ((decoded - weights) ** 2).sum() < ceiling * (weights**2).sum()


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "heavy-tailed"])
def test_mxfp4_is_nowhere_worse_than_ggufs(kind):
    weights = ordinary(33, 512)[kind]
    kinds = gguf.GGMLQuantizationType
    peer = gguf.quants.dequantize(gguf.quants.quantize(weights, kinds.MXFP4), kinds.MXFP4)
    ours = decode(encode(weights, "MXFP4", "rtn"), "MXFP4", 512)
    errors = [((got.astype(np.float64) - weights) ** 2).reshape(-1, 32).sum(axis=1) for got in (ours, peer)]
    assert (errors[0] <= errors[1]).all()
    assert errors[0].sum() < 0.98 * errors[1].sum()


def test_columns_that_were_never_seen_are_still_encoded():
    weights = ordinary(4, 512)["gaussian"]
    unseen = np.zeros(512, np.float32)
    np.testing.assert_array_equal(encode(weights, "Q4_K", importance=unseen), encode(weights, "Q4_K"))
    unseen[256:] = 3
    decoded = decode(encode(weights, "Q4_K", importance=unseen), "Q4_K", 512)
    assert ((decoded - weights)[:, :256] ** 2).sum() < 0.007 * (weights[:, :256] ** 2).sum()


def test_the_scale_of_importance_means_nothing():
    weights, matters = ordinary(4, 512)["laplace"], importance(512)
    expected = encode(weights, "Q4_K", importance=matters)
    for factor in (2.0**-100, 2.0**100):
        np.testing.assert_array_equal(
            encode(weights, "Q4_K", importance=matters * np.float32(factor)), expected
        )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(name, bad):
    weights = ordinary(3, 256)["gaussian"]
    weights[1, 200] = bad
    with pytest.raises(ValueError, match="NaN or Inf"):
        encode(weights, name)


def test_f16_overflow_is_an_error_of_the_users():
    with pytest.raises(ExportError, match="A weight of 1e"):
        encode(np.full((2, 8), 1e6, np.float32), "F16")


@pytest.mark.parametrize("bad", [np.ones(64), np.full(32, -1.0), np.full(32, np.nan)])
def test_importance_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="importance"):
        encode(np.ones((2, 32), np.float32), "Q4_0", importance=bad.astype(np.float32))


def test_unknown_words_are_refused_by_name():
    weights = np.ones((1, 32), np.float32)
    with pytest.raises(RecipeError, match="no format 'Q4_Z'"):
        encode(weights, "Q4_Z")
    with pytest.raises(RecipeError, match="no method 'guess'"):
        encode(weights, "Q4_0", "guess")
    with pytest.raises(RecipeError, match="search has no parameter 'damp'"):
        encode(weights, "Q4_0", "search", params={"damp": 0.1})
    with pytest.raises(ValueError, match="48 columns do not divide"):
        encode(np.ones((1, 48), np.float32), "Q4_0")


def test_warm_up_takes_every_pair():
    warm_up(FORMATS, ["rtn"])
    warm_up(SEARCHED, METHODS)


@pytest.mark.parametrize(("name", "method"), PAIRS + FLOATS)
def test_memory_beside_the_chunk_is_bounded(name, method):
    """Result and scratch together stay under 3 chunks of 4 MiB, and under 1.1 of 16 MiB."""
    weights = ordinary(1024, 4096)["gaussian"]
    peaks = []
    for chunk in (weights[:256], weights):
        tracemalloc.start()
        encode(chunk, name, method, importance(4096))
        peaks.append(tracemalloc.get_traced_memory()[1] / chunk.nbytes)
        tracemalloc.stop()
    assert peaks[0] < 3
    assert peaks[1] < 1.1
