"""How codes are chosen: the solvers, one file a method. They work through a grid and know no bytes.

A solver is a function of weights float32 [rows, columns], a grid, and importance float32 [columns] or None;
it returns codes int8 [rows, columns] and the grid's scales.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_METHOD, FORMATS
from engine.formats import Grid, Scales, format_of, refuse_pair
from engine.methods import rtn, search

Solver = Callable[[np.ndarray, Grid, np.ndarray | None], tuple[np.ndarray, Scales]]


def _search(weights: np.ndarray, grid: Grid, importance: np.ndarray | None) -> tuple[np.ndarray, Scales]:
    """`search.solve`, which still wants levels as (least, greatest). To go with its rewriting."""
    pairs = {
        name: (levels[0], levels[-1])
        for name, levels in (("step_levels", grid.step_levels), ("shift_levels", grid.shift_levels))
    }
    old = SimpleNamespace(
        codes=grid.codes, group=grid.group, groups=grid.groups, scales=grid.scales, round=grid.round, **pairs
    )
    return search.solve(weights, cast(Grid, old), importance)


SOLVERS: dict[str, Solver] = {"rtn": rtn.solve, "search": _search}

# Weights that are worked on at a time: their scratch stays in the cache, and small beside the caller's chunk.
PIECE = 1 << 20


def encode(
    weights: np.ndarray,
    format_name: str,
    method: str = DEFAULT_METHOD,
    importance: np.ndarray | None = None,
    params: dict[str, Any] | None = None,
) -> np.ndarray:
    """The bytes of finite float32 [rows, columns] in that format, uint8 [rows, row bytes].

    importance: float32 [columns], none negative: how much a squared error in each column matters. Rows do
    not depend on each other, nor on the number of threads: however they are cut up, the bytes are the same.

    Raises RecipeError for an unknown format or method or a parameter the method does not have, ExportError
    for a weight beyond a floating-point format, ValueError for NaN, Inf and shapes that do not fit.
    """
    reason = refuse_pair(method, format_name)
    if reason is not None:
        raise RecipeError(reason)
    if params:
        raise RecipeError(f"The method {method} has no parameter {next(iter(params))!r}; leave it out.")
    rows, columns = weights.shape
    importance = _checked(importance, columns)
    data = np.empty((rows, FORMATS[format_name].row_bytes(columns)), np.uint8)
    form, solve = format_of(format_name), SOLVERS[method]
    height = max(1, PIECE // max(1, columns))
    for start in range(0, rows, height):
        piece = np.ascontiguousarray(weights[start : start + height], np.float32)
        if not np.isfinite(piece).all():
            raise ValueError("the weights hold NaN or Inf")
        if isinstance(form, Grid):
            data[start : start + height] = form.pack(*solve(piece, form, importance))
        else:
            data[start : start + height] = form.encode(piece)
    return data


def warm_up(format_names: Iterable[str], methods: Iterable[str] = (DEFAULT_METHOD,)) -> None:
    """Load (on the first use on a machine: compile) what `encode` needs for these, and start its threads."""
    for name in format_names:
        for method in methods:
            encode(np.ones((1, FORMATS[name].block_values), np.float32), name, method)


def _checked(importance: np.ndarray | None, columns: int) -> np.ndarray | None:
    if importance is None:
        return None
    if importance.shape != (columns,):
        raise ValueError(f"importance of shape {importance.shape} for {columns} columns")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance must be finite and not negative")
    return importance
