"""Inner kernels of uniform grids on the CPU (Numba); `kernels.groups` says what they do and launches them.

Method: groups are worked on in tiles of `LANES`, turned so that one vector instruction does the same
thing to many groups. Every group's sums then run in the order of its own weights, whatever the width of
the machine's vectors, the number of threads or the neighbours in the tile: results are the same to the
bit, without `fastmath`, and equal to `kernels.reference`. (Sums along the group, with reassociation
allowed so that they vectorize, were 1.6 times slower here and depended on the width of the vectors.)

Errors are summed over residuals, never taken as differences of large sums: float32 is enough even for
8-bit codes.

Signatures are explicit, so each kernel is compiled once, for writable and read-only weights alike.
"""

import numpy as np
from numba import boolean, float32, int8, int64, njit, prange, types, void

LANES = 64
# Adding and taking away 1.5 * 2^23 rounds a float32 below 2^22 to the nearest integer, ties to even,
# in two instructions that every vector unit has.
_ROUNDER = np.float32(12582912.0)
_TINY = np.float32(1e-30)  # a smaller step counts as none: its inverse would overflow
_ZERO = np.float32(0)
_ONE = np.float32(1)
_INFINITE = np.float32(np.inf)

# Rows of the sums of a tile, and of `settle`'s result behind its two rows of levels.
_ERROR, _RQ, _R, _QQ, _Q, _W, _INVERSE = range(7)

_weights = types.Array(float32, 2, "C", readonly=True)
_row = types.Array(float32, 1, "C", readonly=True)
_out = float32[::1]
_rows_out = float32[:, ::1]


@njit(error_model="numpy")
def _load(weights: np.ndarray, importance: np.ndarray, first: int, x: np.ndarray, w: np.ndarray) -> None:
    """Turn groups first .. first + LANES into x, w [size, LANES]; spare lanes repeat the last group."""
    last = weights.shape[0] - 1
    period = importance.shape[0]
    for lane in range(LANES):
        group = min(first + lane, last)
        row = group % period
        for i in range(weights.shape[1]):
            x[i, lane] = weights[group, i]
            w[i, lane] = importance[row, i]


@njit(error_model="numpy")
def _measure(
    x: np.ndarray,
    w: np.ndarray,
    step: np.ndarray,
    shift: np.ndarray,
    low: np.float32,
    high: np.float32,
    affine: bool,
    sums: np.ndarray,
) -> None:
    """Round each lane to its (step, shift); sum w r r, w r q, w r, w q q, w q with r = x - (q step + shift).

    A symmetric grid has no use for the sums of w r and w q, which then stay 0.
    """
    for lane in range(LANES):
        inverse = _ONE / step[lane]
        sums[_INVERSE, lane] = inverse if abs(step[lane]) > _TINY else _ZERO
        for kind in range(_W):
            sums[kind, lane] = _ZERO
    if affine:
        for i in range(x.shape[0]):
            for lane in range(LANES):
                scaled = (x[i, lane] - shift[lane]) * sums[_INVERSE, lane]
                code = (min(max(scaled, low), high) + _ROUNDER) - _ROUNDER
                r = x[i, lane] - (code * step[lane] + shift[lane])
                wr = w[i, lane] * r
                wq = w[i, lane] * code
                sums[_ERROR, lane] += wr * r
                sums[_RQ, lane] += wr * code
                sums[_R, lane] += wr
                sums[_QQ, lane] += wq * code
                sums[_Q, lane] += wq
    else:
        for i in range(x.shape[0]):
            for lane in range(LANES):
                scaled = x[i, lane] * sums[_INVERSE, lane]
                code = (min(max(scaled, low), high) + _ROUNDER) - _ROUNDER
                r = x[i, lane] - code * step[lane]
                wr = w[i, lane] * r
                sums[_ERROR, lane] += wr * r
                sums[_RQ, lane] += wr * code
                sums[_QQ, lane] += w[i, lane] * code * code


@njit(error_model="numpy")
def _add_weights(w: np.ndarray, sums: np.ndarray) -> None:
    for lane in range(LANES):
        sums[_W, lane] = _ZERO
    for i in range(w.shape[0]):
        for lane in range(LANES):
            sums[_W, lane] += w[i, lane]


@njit(error_model="numpy")
def _keep_refit(
    step: np.ndarray,
    shift: np.ndarray,
    sums: np.ndarray,
    affine: bool,
    shift_limit: np.float32,
    best: np.ndarray,
) -> None:
    """Step and shift of least squared error for the measured codes; kept in best where the error falls."""
    for lane in range(LANES):
        error, rq, r = sums[_ERROR, lane], sums[_RQ, lane], sums[_R, lane]
        qq, q, total = sums[_QQ, lane], sums[_Q, lane], sums[_W, lane]
        more_shift = _ZERO
        if affine:
            more_shift = (r * qq - rq * q) / (total * qq - q * q)
            if not abs(more_shift) < _INFINITE:  # all codes equal: any step would do
                more_shift = _ZERO
            if shift[lane] + more_shift > shift_limit:
                more_shift = shift_limit - shift[lane]
        more_step = (rq - more_shift * q) / qq
        if not abs(more_step) < _INFINITE:
            more_step = _ZERO
        error -= more_step * (rq + rq - more_step * qq)
        error -= more_shift * (r + r - more_shift * total - (more_step + more_step) * q)
        if error < best[2, lane]:
            best[0, lane] = step[lane] + more_step
            best[1, lane] = shift[lane] + more_shift
            best[2, lane] = error


@njit(error_model="numpy")
def _search_tile(
    x: np.ndarray,
    w: np.ndarray,
    low: np.float32,
    high: np.float32,
    affine: bool,
    shift_limit: np.float32,
    candidates: np.ndarray,
    rounds: int,
    best: np.ndarray,
) -> None:
    """best [step, shift, error][LANES]: the starting scales in, the best that were found out."""
    step = np.empty(LANES, np.float32)
    shift = np.empty(LANES, np.float32)
    start = best.copy()
    sums = np.empty((7, LANES), np.float32)
    best[2] = _INFINITE
    _add_weights(w, sums)
    for trial in range(candidates.shape[0] + rounds):
        for lane in range(LANES):
            if trial < candidates.shape[0]:
                step[lane] = start[0, lane] * candidates[trial, 0]
                shift[lane] = start[1, lane] + start[0, lane] * candidates[trial, 1]
            else:
                step[lane] = best[0, lane]
                shift[lane] = best[1, lane]
        _measure(x, w, step, shift, low, high, affine, sums)
        _keep_refit(step, shift, sums, affine, shift_limit, best)


@njit(
    void(_weights, _weights, float32, float32, boolean, float32, _weights, int64, _rows_out),
    error_model="numpy",
    parallel=True,
    cache=True,
)
def search(
    weights: np.ndarray,
    importance: np.ndarray,
    low: np.float32,
    high: np.float32,
    affine: bool,
    shift_limit: np.float32,
    candidates: np.ndarray,
    rounds: int,
    scales: np.ndarray,
) -> None:
    groups, size = weights.shape
    for tile in prange((groups + LANES - 1) // LANES):
        first = tile * LANES
        count = min(LANES, groups - first)
        x = np.empty((size, LANES), np.float32)
        w = np.empty((size, LANES), np.float32)
        best = np.zeros((3, LANES), np.float32)
        _load(weights, importance, first, x, w)
        best[:2, :count] = scales[:, first : first + count]
        _search_tile(x, w, low, high, affine, shift_limit, candidates, rounds, best)
        scales[:, first : first + count] = best[:2, :count]


@njit(error_model="numpy")
def _keep_levels(level: np.ndarray, sums: np.ndarray, best: np.ndarray) -> None:
    for lane in range(LANES):
        if sums[_ERROR, lane] < best[2, lane]:
            best[0, lane] = level[0, lane]
            best[1, lane] = level[1, lane]
            for kind in range(_W + 1):
                best[2 + kind, lane] = sums[kind, lane]


@njit(error_model="numpy")
def _settle_tile(
    x: np.ndarray,
    w: np.ndarray,
    units: np.ndarray,
    low: np.float32,
    high: np.float32,
    affine: bool,
    step_levels: tuple[np.float32, np.float32],
    shift_levels: tuple[np.float32, np.float32],
    reach: int,
    best: np.ndarray,
) -> None:
    """best [step level, shift level, sums ...][LANES]: the start in, the best and its sums out."""
    step = np.empty(LANES, np.float32)
    shift = np.empty(LANES, np.float32)
    start = best.copy()
    level = np.empty((2, LANES), np.float32)
    sums = np.empty((7, LANES), np.float32)
    best[2] = _INFINITE
    _add_weights(w, sums)
    looks = 2 if shift_levels[0] < shift_levels[1] else 1
    for offset in range(-reach, reach + 1):
        for lane in range(LANES):
            moved = start[0, lane] + np.float32(offset)
            level[0, lane] = min(max(moved, step_levels[0]), step_levels[1])
            level[1, lane] = start[1, lane]
        for _ in range(looks):
            for lane in range(LANES):
                step[lane] = units[0, lane] * level[0, lane]
                shift[lane] = units[1, lane] * level[1, lane]
            _measure(x, w, step, shift, low, high, affine, sums)
            _keep_levels(level, sums, best)
            for lane in range(LANES):  # the shift level of least error for these codes, for the second look
                moved = level[1, lane] + sums[_R, lane] / (sums[_W, lane] * units[1, lane])
                moved = min(max(moved, shift_levels[0]), shift_levels[1])
                moved = (moved + _ROUNDER) - _ROUNDER
                level[1, lane] = moved if abs(units[1, lane]) > _TINY else level[1, lane]


@njit(
    void(
        _weights,
        _weights,
        _weights,
        float32,
        float32,
        boolean,
        types.UniTuple(float32, 2),
        types.UniTuple(float32, 2),
        int64,
        _rows_out,
    ),
    error_model="numpy",
    parallel=True,
    cache=True,
)
def settle(
    weights: np.ndarray,
    importance: np.ndarray,
    units: np.ndarray,
    low: np.float32,
    high: np.float32,
    affine: bool,
    step_levels: tuple[np.float32, np.float32],
    shift_levels: tuple[np.float32, np.float32],
    reach: int,
    found: np.ndarray,
) -> None:
    groups, size = weights.shape
    for tile in prange((groups + LANES - 1) // LANES):
        first = tile * LANES
        count = min(LANES, groups - first)
        x = np.empty((size, LANES), np.float32)
        w = np.empty((size, LANES), np.float32)
        best = np.zeros((8, LANES), np.float32)
        unit = np.zeros((2, LANES), np.float32)
        _load(weights, importance, first, x, w)
        best[:2, :count] = found[:2, first : first + count]
        unit[:, :count] = units[:, first : first + count]
        _settle_tile(x, w, unit, low, high, affine, step_levels, shift_levels, reach, best)
        found[:, first : first + count] = best[:, :count]


# Minimum and maximum do not depend on the order, so here the compiler may choose it.
@njit(void(_weights, _out, _out), fastmath={"nnan", "nsz"}, parallel=True, cache=True)
def ranges(weights: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> None:
    for group in prange(weights.shape[0]):
        least = most = weights[group, 0]
        for i in range(weights.shape[1]):
            least = min(least, weights[group, i])
            most = max(most, weights[group, i])
        lowest[group] = least
        highest[group] = most


@njit(
    void(_weights, _row, _row, float32, float32, int8[:, ::1]),
    error_model="numpy",
    parallel=True,
    cache=True,
)
def round_codes(
    weights: np.ndarray,
    steps: np.ndarray,
    shifts: np.ndarray,
    low: np.float32,
    high: np.float32,
    codes: np.ndarray,
) -> None:
    for group in prange(weights.shape[0]):
        step, shift = steps[group], shifts[group]
        inverse = _ONE / step if abs(step) > _TINY else _ZERO
        for i in range(weights.shape[1]):
            scaled = min(max((weights[group, i] - shift) * inverse, low), high)
            codes[group, i] = np.int8((scaled + _ROUNDER) - _ROUNDER)
