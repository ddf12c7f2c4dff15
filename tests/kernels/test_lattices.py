"""The tables of lattice points: gguf's values, and the nearest of them by brute force."""

import numpy as np
import pytest
from gguf import quants

from kernels.lattices import NEIGHBOURS, lattice

NAMES = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


def grid_of(name: str) -> np.ndarray:
    """gguf's points, int64 [points, 4 or 8]; of IQ1 eight times as large, as the kernels have them."""
    kind = getattr(quants, "IQ1_S" if name == "IQ1_M" else name)
    kind.init_grid()
    grid = kind.grid.reshape(kind.grid_shape).astype(np.int64)
    return grid * 8 if name.startswith("IQ1") else grid


def levels_of(packed: np.ndarray, name: str) -> np.ndarray:
    """int64 [..., width] of packed points."""
    table = lattice(name)
    return packed[..., None].astype(np.int64) >> table.bits * np.arange(table.width) & (1 << table.bits) - 1


def values_of(levels: np.ndarray, name: str) -> np.ndarray:
    table = lattice(name)
    return table.base + table.slope * levels + table.knee * np.maximum(levels - table.last, 0)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_ggufs(name):
    """Every point of the grid is its own nearest, under its index, and its levels give its values."""
    table, grid = lattice(name), grid_of(name)
    numbers = values_of(np.arange(table.levels), name)
    levels = np.abs(grid[..., None] - numbers).argmin(axis=-1)
    np.testing.assert_array_equal(values_of(levels, name), grid)
    digits = table.levels ** np.arange(table.width - 1, -1, -1)
    nearest = table.near.reshape(-1, NEIGHBOURS)[levels @ digits, 0]
    np.testing.assert_array_equal(nearest >> 16, np.arange(len(grid)))
    np.testing.assert_array_equal(levels_of(nearest, name), levels)


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_are_the_nearest_points(name):
    """For 400 patterns; of two as near the one of the lower index comes first."""
    table, grid = lattice(name), grid_of(name)
    assert table.near.dtype == np.int32
    assert not table.near.flags.writeable
    patterns = np.random.default_rng(9).integers(0, table.levels**table.width, 400)
    digits = table.levels ** np.arange(table.width - 1, -1, -1)
    wanted = values_of(patterns[:, None] // digits % table.levels, name).astype(np.int64)
    distances = ((wanted[:, None] - grid) ** 2).sum(axis=-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    packed = table.near.reshape(-1, NEIGHBOURS)[patterns]
    np.testing.assert_array_equal(packed >> 16, nearest)
    np.testing.assert_array_equal(values_of(levels_of(packed, name), name), grid[nearest])
