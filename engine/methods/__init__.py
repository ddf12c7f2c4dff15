"""How codes are chosen: the solvers, one file a method."""

from collections.abc import Iterable

import numpy as np

from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_EFFORT, DEFAULT_METHOD, FORMATS
from engine.api.model import Role
from engine.api.plan import TensorPlan
from engine.api.progress import Listener, Progress, silent
from engine.formats import format_of, refuse_pair
from engine.formats.floats import FloatFormat
from engine.methods import rtn, search
from kernels.compiled import is_compiled
from kernels.encoders import kernels_of

# Weights that `rtn` works on at a time: its scratch stays in the cache, and small beside the caller's chunk.
PIECE = 1 << 20


def encode(
    weights: np.ndarray,
    format_name: str,
    method: str = DEFAULT_METHOD,
    importance: np.ndarray | None = None,
    effort: str = DEFAULT_EFFORT,
    *,
    restored: bool = True,
) -> np.ndarray:
    """The bytes of finite [rows, columns] in that format, uint8 [rows, row bytes].

    weights: float32, float16, or uint16 for the bits of bfloat16. importance: float32 [columns], none
    negative: how much a squared error in each column matters. effort: of `search`, one of EFFORTS. Rows do
    not depend on each other: however they are cut up, the bytes are the same.

    restored: of `search`, whether blocks are stored longer than the least squared error leaves them. That
    leaves less KL divergence, but of attention's output matrix: there the least error leaves 8 % less as Q2_K
    and 10 % less as IQ2_XS (sample model, that matrix alone quantized).

    Raises RecipeError for an unknown format, method or effort, ExportError for a weight beyond a
    floating-point format, ValueError for NaN, Inf and shapes that do not fit.
    """
    reason = refuse_pair(method, format_name, effort)
    if reason is not None:
        raise RecipeError(reason)
    rows, columns = weights.shape
    row_bytes = FORMATS[format_name].row_bytes(columns)
    importance = _checked(importance, columns)
    if method == "search" and not FORMATS[format_name].exact:
        found = search.encode(weights, format_name, importance, effort, restored=restored)
        if found is None:
            raise ValueError("the weights hold NaN or Inf")
        return found
    data = np.empty((rows, row_bytes), np.uint8)
    height = max(1, PIECE // max(1, columns))
    for start in range(0, rows, height):
        data[start : start + height] = _rounded(as_float32(weights[start : start + height]), format_name)
    return data


def encode_as_planned(
    weights: np.ndarray, tensor: TensorPlan, importance: np.ndarray | None, effort: str
) -> np.ndarray:
    """`encode` for rows of a tensor of the output, as its plan says."""
    restored = tensor.role is not Role.O
    return encode(weights, tensor.format, tensor.method, importance, effort, restored=restored)


def _rounded(piece: np.ndarray, format_name: str) -> np.ndarray:
    if not np.isfinite(piece).all():
        raise ValueError("the weights hold NaN or Inf")
    form = format_of(format_name)
    return form.encode(piece) if isinstance(form, FloatFormat) else form.pack(*rtn.solve(piece, form))


def as_float32(weights: np.ndarray) -> np.ndarray:
    """float32, C-contiguous, of float32, float16, or uint16 for the bits of bfloat16."""
    if weights.dtype == np.uint16:
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(weights, np.float32)


def warm_up(format_names: Iterable[str], listener: Listener = silent) -> None:
    """Load what `search` needs for these formats; on the first use on a machine: compile it, and tell."""
    searched = [name for name in format_names if not FORMATS[name].exact]
    wanted = sorted(kernels_of(searched).items())
    missing = [pair for pair in wanted if not is_compiled(pair[0])]
    there = [pair for pair in wanted if pair not in missing]
    stages = (
        ("compile encoders", "kernels, once on this machine", missing),
        ("load encoders", "kernels", there),
    )
    for stage, unit, pairs in stages:
        names = [name for _, name in pairs]
        for done, name in enumerate(names):
            listener(
                Progress(
                    stage, done, len(names), "kernels, once on this machine" if not there else "kernels", name
                )
            )
            encode(np.ones((1, FORMATS[name].block_values), np.float32), name)
        if names:
            listener(Progress(stage, len(names), len(names), unit))


def are_compiled(format_names: Iterable[str]) -> bool:
    """Whether `warm_up` would have nothing to compile for these formats."""
    searched = [name for name in format_names if not FORMATS[name].exact]
    return all(map(is_compiled, kernels_of(searched)))


def _checked(importance: np.ndarray | None, columns: int) -> np.ndarray | None:
    if importance is None:
        return None
    if importance.shape != (columns,):
        raise ValueError(f"importance of shape {importance.shape} for {columns} columns")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance must be finite and not negative")
    return importance
