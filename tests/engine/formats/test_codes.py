"""Rounding to codes: the nearest by brute force, signs and deltas as the formats want them."""

import numpy as np
import pytest

from engine.api.formats import FORMATS
from engine.formats import Grid, Lattice, Table, format_of

GRIDS = [format_of(name) for name in FORMATS if isinstance(format_of(name), Grid)]
TABLES = [grid for grid in GRIDS if isinstance(grid.codes, Table)]
LATTICES = [grid for grid in GRIDS if isinstance(grid.codes, Lattice)]


def named(grid: Grid) -> str:
    return grid.name


def normal(grid: Grid, groups: int) -> np.ndarray:
    """Float32 [groups, size] that reach a little beyond the largest code."""
    scaled = np.random.default_rng(8).normal(size=(groups, grid.group)) * grid.codes.high / 2.5
    return scaled.astype(np.float32)


@pytest.mark.parametrize("grid", TABLES, ids=named)
def test_tables_round_to_the_nearest_and_ties_to_even_indices(grid):
    scaled = np.arange(-150, 150, 1 / 8, dtype=np.float32).reshape(-1, 8)
    stored = list(grid.codes.numbers)
    expected = [
        min((abs(value - number), place % 2, place) for place, number in enumerate(stored))[2]
        for value in scaled.ravel().tolist()
    ]
    codes = grid.codes.nearest(scaled.copy())
    assert codes.ravel().tolist() == [stored[place] for place in expected]
    assert (grid.codes.stored[grid.codes.index_of(codes)] == codes).all()


@pytest.mark.parametrize("grid", LATTICES, ids=named)
def test_every_point_rounds_to_itself(grid):
    lattice = grid.codes
    points = lattice.points.reshape(-1, grid.group)
    np.testing.assert_array_equal(lattice.nearest(points.astype(np.float32)), points)
    index = lattice.index_of(lattice.points)
    assert (index == np.arange(lattice.points.shape[1])).all()
    if lattice.signs == "free":
        np.testing.assert_array_equal(lattice.nearest(-points.astype(np.float32)), -points)


@pytest.mark.parametrize("grid", LATTICES, ids=named)
def test_lattices_round_to_the_nearest_point(grid):
    """Of all points by exact distances, within the rounding of the input."""
    lattice, scaled = grid.codes, normal(grid, 300)
    codes = lattice.nearest(scaled.copy())
    vectors = scaled.astype(np.float64).reshape(-1, lattice.size)
    distances = ((vectors - codes.reshape(vectors.shape)) ** 2).sum(axis=1)
    if lattice.signs != "none":
        vectors = np.abs(vectors)
    every = np.stack([((vectors[:, None] - points) ** 2).sum(axis=2) for points in lattice.points])
    runs = max(lattice.shared // lattice.size, 1)
    least = every.min(axis=2).reshape(len(every), -1, runs).sum(axis=2).min(axis=0)
    distances = distances.reshape(-1, runs).sum(axis=1)
    if lattice.signs == "even":  # one sign may have to be turned
        turned = (codes.reshape(-1, 8) * scaled.reshape(-1, 8) < 0).any(axis=1)
        assert 100 < turned.sum() < len(turned) - 100
        kept = ~np.repeat(turned, 8 // lattice.size)
        assert (distances >= least - 1e-9).all()
        distances, least = distances[kept], least[kept]
    # Each input is off by up to 1 / (2 resolution); so are differences of distances by that times 4 reaches.
    slack = 4 * grid.codes.high * lattice.size * runs / lattice.resolution
    np.testing.assert_allclose(distances, least, rtol=0, atol=slack)
    assert np.mean(distances - least) < 0.01 * slack


@pytest.mark.parametrize("grid", [grid for grid in LATTICES if grid.codes.signs == "even"], ids=named)
def test_an_even_number_of_eight_is_negative(grid):
    codes = grid.codes.nearest(normal(grid, 300)).reshape(-1, 8)
    assert ((codes < 0).sum(axis=1) % 2 == 0).all()
    # At most one sign is not that of its weight, and that weight is the smallest of the eight.
    weights = normal(grid, 300).reshape(-1, 8)
    turned = (codes < 0) != (weights < 0)
    assert (turned.sum(axis=1) <= 1).all()
    where = turned.any(axis=1)
    # Of weights alike to 1 / resolution any may be taken.
    smallest = np.abs(weights[where]).min(axis=1)
    assert (np.abs(weights[turned]) <= smallest + 1 / grid.codes.resolution).all()


@pytest.mark.parametrize("grid", [grid for grid in LATTICES if grid.codes.shared], ids=named)
def test_weights_share_a_delta(grid):
    codes = grid.codes.nearest(normal(grid, 300)).reshape(-1, grid.codes.shared)
    deltas = codes & 7
    assert (deltas == deltas[:, :1]).all()
    assert set(deltas.ravel().tolist()) == {1, 7}


@pytest.mark.parametrize("grid", LATTICES, ids=named)
def test_huge_inputs_go_to_the_outermost_points(grid):
    scaled = np.full((1, grid.group), np.inf, np.float32)
    scaled[:, 8:] = 3e38
    codes = grid.codes.nearest(scaled)
    assert codes.max() > grid.codes.high / 2
    assert codes.min() > 0


@pytest.mark.parametrize("grid", LATTICES, ids=named)
def test_codes_that_cannot_be_stored_are_refused(grid):
    codes, scales = grid.unpack(np.zeros((1, FORMATS[grid.name].block_bytes), np.uint8))
    wrong = codes.copy()
    wrong[0, 7] = 2
    with pytest.raises(ValueError, match=f"codes are no point of {grid.name}"):
        grid.pack(wrong, scales)
    if grid.codes.signs == "even":
        wrong = codes.copy()
        wrong[0, 3] *= -1
        with pytest.raises(ValueError, match="an odd number of 8 codes is negative"):
            grid.pack(wrong, scales)
    if grid.codes.shared:
        half = grid.codes.shared // 2
        wrong = codes.copy()
        wrong[0, :half], wrong[0, half : 2 * half] = -1, 1
        with pytest.raises(ValueError, match=f"codes that share a delta in {grid.name}"):
            grid.pack(wrong, scales)
