"""`encode` of both methods: the same bytes however rows are cut up, bounds of error, refusals.

That the bytes of `search` are right is for tests/kernels to say.
"""

import tracemalloc

import gguf
import numpy as np
import pytest

import engine.methods
from engine.api.errors import ExportError, RecipeError
from engine.api.formats import EFFORTS, FORMATS, METHODS
from engine.api.progress import Progress
from engine.formats import Codes, Grid, Lattice, decode, format_of
from engine.methods import are_compiled, encode, warm_up
from engine.parallel import in_order
from kernels import reference
from tests.kernels.arrays import hostile, importance, ordinary
from tests.kernels.losses import lost_at_any_scale, squared_error

GRIDS = [name for name in FORMATS if isinstance(format_of(name), Grid)]
PAIRS = [(name, method) for name in GRIDS for method in METHODS]
FLOATS = [(name, method) for name in ("F32", "F16", "BF16") for method in METHODS]


@pytest.mark.parametrize("rows", [1, 17, 33])
@pytest.mark.parametrize("name", FORMATS)
def test_bytes_of_rounding_are_the_references(name, rows):
    weights = ordinary(rows, 512)["heavy-tailed"]
    np.testing.assert_array_equal(encode(weights, name, "rtn"), reference.encode(weights, name, "rtn"))


def worst_error(name: str, extreme: float) -> float:
    """The most that a weight may be off in a row of weights up to `extreme`, all within reach of F16 scales.

    A part of the extreme, and what the coarsest steps add: the unit is rounded to multiples of 2^-24.
    """
    grid = format_of(name)
    if isinstance(grid.codes, Lattice):
        part = 1  # rows that no point resembles; the searching method has better scales for them
    elif name.startswith("TQ"):
        part = 1  # three values for 256 weights: the largest are cut off
    elif name in ("MXFP4", "NVFP4"):
        part = 1 / 2  # of steps that may be half of what would cover the range
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
    for method in METHODS:
        data = encode(weights, name, method)
        if method == "rtn":
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
    for method in METHODS:
        decoded = decode(encode(weights, name, method), name, 512)
        # Both the unit of steps and that of shifts are off by up to 2^-11 of the 0.5 that they span.
        np.testing.assert_allclose(decoded, weights, rtol=0, atol=0.5 * 2**-10)


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_bytes_do_not_depend_on_threads_nor_on_how_rows_are_cut_up(name, method, monkeypatch):
    weights = ordinary(67, 768)["laplace"]
    matters = importance(768)
    expected = encode(weights, name, method, matters)
    ranges = [(0, 1), (1, 18), (18, 51), (51, 67)]
    parts = in_order(lambda cut: encode(weights[slice(*cut)], name, method, matters), ranges, threads=3)
    np.testing.assert_array_equal(np.concatenate(list(parts)), expected)
    monkeypatch.setattr(engine.methods, "PIECE", 5 * 768)
    np.testing.assert_array_equal(encode(weights, name, method, matters), expected)


@pytest.mark.parametrize("name", [name for name in GRIDS if not isinstance(format_of(name).codes, Lattice)])
def test_search_is_never_worse_than_rounding_in_any_block(name):
    block = FORMATS[name].block_values
    for kind, weights in (ordinary(33, 512) | hostile(3, 512)).items():
        if np.abs(weights).max() > 1e15:  # squares beyond float32: both methods give the covering scales
            continue
        for matters in (np.ones(512, np.float32), importance(512)):
            searched, plain = (
                decode(encode(weights, name, method, matters), name, 512) for method in ("search", "rtn")
            )
            lost = lost_at_any_scale(searched, weights, matters, block)
            # Compared in float32 inside: equal there may be a little apart here. Two larger scales of few
            # weights are rounded to F16 apart from each other.
            apart = 0.015 if name in ("Q4_1", "Q5_1") else 1e-5
            limit = squared_error(plain, weights, matters, block) * (1 + apart)
            assert (lost <= limit + 1e-37).all(), kind


# Relative squared error on Gaussian weights, of rtn and of search: ceilings a few per cent above what was
# measured.
CEILINGS = {
    "Q8_0": (2.93e-05, 2.35e-05),
    "Q5_1": (0.00149, 0.00113),
    "Q5_0": (0.0019, 0.00165),
    "Q4_1": (0.00633, 0.00487),
    "Q4_0": (0.00757, 0.00671),
    "Q6_K": (0.00036, 0.00028),
    "Q5_K": (0.00152, 0.00123),
    "Q4_K": (0.00635, 0.00499),
    "Q3_K": (0.0248, 0.0213),
    "Q2_K": (0.113, 0.0726),
    "IQ4_NL": (0.00662, 0.00556),
    "IQ4_XS": (0.00665, 0.00566),
    "IQ3_S": (0.0195, 0.0173),
    "IQ3_XXS": (0.0367, 0.0327),
    "IQ2_S": (0.0701, 0.0588),
    "IQ2_XS": (0.0978, 0.0883),
    "IQ2_XXS": (0.132, 0.117),
    "IQ1_M": (0.257, 0.194),
    "IQ1_S": (0.351, 0.23),
    "NVFP4": (0.00813, 0.00683),
    "MXFP4": (0.0128, 0.0128),
    "TQ2_0": (0.666, 0.217),
    "TQ1_0": (0.666, 0.217),
}


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_error_on_gaussian_weights(name, method):
    """NVFP4 has steps fit for weights of about 1."""
    weights = ordinary(64, 1024)["gaussian"] * np.float32(50)
    decoded = decode(encode(weights, name, method), name, 1024)
    error = float(((decoded - weights) ** 2).sum() / (weights**2).sum())
    assert 0.9 < error / CEILINGS[name][method == "search"] < 1


@pytest.mark.parametrize("name", GRIDS)
def test_fast_costs_little_error(name):
    weights, matters = ordinary(32, 1024)["laplace"], importance(1024)
    for given in (None, matters):
        errors = {}
        for effort in EFFORTS:
            wrong = decode(encode(weights, name, importance=given, effort=effort), name, 1024) - weights
            errors[effort] = float((wrong**2 * (1 if given is None else given)).sum())
        assert errors["best"] / 1.003 < errors["fast"] < (1.6 if name == "Q8_0" else 1.12) * errors["best"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_16_bits_are_taken_as_they_are(name, method):
    halves = ordinary(5, 512)["laplace"].astype(np.float16)
    brains = ordinary(5, 512)["laplace"].view(np.uint32) >> 16
    np.testing.assert_array_equal(
        encode(halves, name, method), encode(halves.astype(np.float32), name, method)
    )
    np.testing.assert_array_equal(
        encode(brains.astype(np.uint16), name, method), encode((brains << 16).view(np.float32), name, method)
    )


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
    with pytest.raises(RecipeError, match="no effort 'some'"):
        encode(weights, "Q4_0", effort="some")
    with pytest.raises(ValueError, match="48 columns do not divide"):
        encode(np.ones((1, 48), np.float32), "Q4_0")


def test_warm_up_says_what_it_does_and_leaves_nothing_to_compile():
    told: list[Progress] = []
    warm_up(FORMATS, told.append)
    assert are_compiled(FORMATS)
    ends = [one for one in told if one.done == one.total]
    assert {one.stage for one in ends} <= {"compile encoders", "load encoders"}
    assert sum(one.total for one in ends) == 5, "kernels: symmetric, affine, in a table, stepped, lattices"
    again: list[Progress] = []
    warm_up(["Q4_K", "Q6_K", "F16"], again.append)
    assert [(one.stage, one.done, one.total) for one in again] == [("load encoders", n, 2) for n in range(3)]


@pytest.mark.parametrize(("name", "method"), PAIRS + FLOATS)
def test_memory_beside_the_chunk_is_bounded(name, method):
    """Result and scratch together stay under 3 chunks of 4 MiB."""
    weights = np.tile(ordinary(16, 4096)["gaussian"], (16, 1))
    encode(weights[:1], name, method, importance(4096))  # loads the encoder and its tables
    tracemalloc.start()
    encode(weights, name, method, importance(4096))
    assert tracemalloc.get_traced_memory()[1] < 3 * weights.nbytes
    tracemalloc.stop()
