"""The oracle of every test: encoders and decoders of all formats, slow and plain, in NumPy alone.

Nothing here is shared with the code it judges. Blocks are packed and unpacked one byte at a time, as
llama.cpp's ggml-common.h describes them; the search goes through a group weight by weight. Arithmetic is
float32 in the order of the weights (units and sums over groups: float64), so that the fast encoders, which
do the same in another arrangement, must give the same bytes.
"""

from dataclasses import dataclass

import numpy as np

F32 = np.float32
TINY = F32(1e-30)


@dataclass(frozen=True)
class Shape:
    """Codes low .. high; groups of `size` weights, `groups` of them a block; bounds of the integer levels."""

    low: int
    high: int
    affine: bool
    size: int = 32
    groups: int = 1
    step_levels: tuple[int, int] = (1, 1)
    shift_levels: tuple[int, int] = (1, 1)


SHAPES = {
    "Q8_0": Shape(-127, 127, affine=False),
    "Q4_0": Shape(-8, 7, affine=False),
    "Q4_1": Shape(0, 15, affine=True),
    "Q5_0": Shape(-16, 15, affine=False),
    "Q5_1": Shape(0, 31, affine=True),
    "Q4_K": Shape(0, 15, True, 32, 8, (0, 63), (0, 63)),
    "Q5_K": Shape(0, 31, True, 32, 8, (0, 63), (0, 63)),
    "Q6_K": Shape(-32, 31, False, 16, 16, (-128, 127)),
}

# Per block: unit of steps, unit of shifts, levels of steps, levels of shifts, codes (integers as stored).
Block = tuple[np.float16, np.float16, list[int], list[int], list[int]]


def encode(
    weights: np.ndarray, format_name: str, method: str, importance: np.ndarray | None = None
) -> np.ndarray:
    """uint8 [rows, row bytes] of finite float32 [rows, columns]; method "rtn" or "search"."""
    if format_name == "F32":
        return weights.astype("<f4").view(np.uint8)
    if format_name == "F16":
        return weights.astype("<f2").view(np.uint8)
    if format_name == "BF16":
        return np.array([[_bf16(value) for value in row] for row in weights], "<u2").view(np.uint8)
    shape = SHAPES[format_name]
    x = weights.reshape(-1, shape.groups, shape.size)
    if importance is None:
        matters = np.ones_like(x)
    else:
        relative = np.maximum(importance / importance.mean(dtype=np.float64), 1e-6).astype(F32)
        matters = np.tile(relative, len(weights)).reshape(x.shape)
    with np.errstate(all="ignore"):
        scales = _covering(x, shape) if method == "rtn" else _searched(x, matters, shape)
        units, levels = scales
        codes = _round(x, units[0][:, None] * levels[0], units[1][:, None] * levels[1], shape)
    packed = [
        _pack(
            format_name,
            (
                np.float16(units[0][block]),
                np.float16(units[1][block]),
                [int(level) for level in levels[0][block]],
                [int(level) for level in levels[1][block]],
                [int(code) for code in codes[block].ravel()],
            ),
        )
        for block in range(len(x))
    ]
    return np.frombuffer(b"".join(packed), np.uint8).reshape(len(weights), -1)


def decode(data: np.ndarray, format_name: str) -> np.ndarray:
    """float32 [rows, columns] of uint8 [rows, row bytes]."""
    if format_name == "F32":
        return data.view("<f4")
    if format_name == "F16":
        return data.view("<f2").astype(F32)
    if format_name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(F32)
    size = len(_pack(format_name, _ZERO_BLOCK))
    values = []
    for block in data.reshape(-1, size):
        unit_step, unit_shift, step_levels, shift_levels, codes = _unpack(format_name, block.tobytes())
        shape = SHAPES[format_name]
        for index, code in enumerate(codes):
            group = index // shape.size
            value = F32(code) * (F32(unit_step) * F32(step_levels[group]))
            if shape.affine:
                value += F32(unit_shift) * F32(shift_levels[group])
            values.append(value)
    return np.array(values, F32).reshape(len(data), -1)


# ---------------------------------------------------------------------------------------- bytes of a block

_ZERO_BLOCK: Block = (np.float16(0), np.float16(0), [0] * 16, [0] * 16, [0] * 256)


def _pack(name: str, block: Block) -> bytes:
    unit_step, unit_shift, a, b, codes = block
    step = unit_step.tobytes()
    if name == "Q8_0":
        return step + bytes(code & 255 for code in codes[:32])
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        stored = [code - SHAPES[name].low for code in codes[:32]]
        fifth = sum((code >> 4) << place for place, code in enumerate(stored)).to_bytes(4, "little")
        nibbles = bytes(stored[j] & 15 | (stored[j + 16] & 15) << 4 for j in range(16))
        shift = unit_shift.tobytes() if SHAPES[name].affine else b""
        return step + shift + (fifth if name.startswith("Q5") else b"") + nibbles
    if name == "Q6_K":
        stored = [code + 32 for code in codes]
        low, upper = bytearray(128), bytearray(64)
        for index, code in enumerate(stored):
            half, place = divmod(index, 128)
            low[64 * half + place % 64] |= (code & 15) << 4 * (place // 64)
            upper[32 * half + place % 32] |= (code >> 4) << 2 * (place // 32)
        return bytes(low) + bytes(upper) + bytes(level & 255 for level in a) + step
    levels = bytearray(12)
    for j in range(4):
        levels[j] = a[j] | a[j + 4] >> 4 << 6
        levels[j + 4] = b[j] | b[j + 4] >> 4 << 6
        levels[j + 8] = a[j + 4] & 15 | (b[j + 4] & 15) << 4
    lows, fifths = bytearray(128), bytearray(32)
    for index, code in enumerate(codes):
        group, place = divmod(index, 32)
        lows[32 * (group // 2) + place] |= (code & 15) << 4 * (group % 2)
        fifths[place] |= (code >> 4) << group
    minimum = np.float16(-unit_shift).tobytes()
    return step + minimum + bytes(levels) + (bytes(fifths) if name == "Q5_K" else b"") + bytes(lows)


def _unpack(name: str, data: bytes) -> Block:
    zero = np.float16(0)
    if name == "Q6_K":
        codes = []
        for index in range(256):
            half, place = divmod(index, 128)
            low = data[64 * half + place % 64] >> 4 * (place // 64) & 15
            upper = data[128 + 32 * half + place % 32] >> 2 * (place // 32) & 3
            codes.append((low | upper << 4) - 32)
        levels = [_signed(byte) for byte in data[192:208]]
        return _half(data, 208), zero, levels, [0] * 16, codes
    if name == "Q8_0":
        return _half(data, 0), zero, [1], [1], [_signed(byte) for byte in data[2:]]
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        shift = _half(data, 2) if SHAPES[name].affine else zero
        fifth = int.from_bytes(data[-20:-16], "little") if name.startswith("Q5") else 0
        codes = [
            (data[-16 + j % 16] >> 4 * (j // 16) & 15 | (fifth >> j & 1) << 4) + SHAPES[name].low
            for j in range(32)
        ]
        return _half(data, 0), shift, [1], [1], codes
    packed = data[4:16]
    a = [packed[j] & 63 for j in range(4)] + [packed[j + 8] & 15 | packed[j] >> 6 << 4 for j in range(4)]
    b = [packed[j + 4] & 63 for j in range(4)]
    b += [packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4 for j in range(4)]
    codes = []
    for index in range(256):
        group, place = divmod(index, 32)
        code = data[-128 + 32 * (group // 2) + place] >> 4 * (group % 2) & 15
        codes.append(code | (data[16 + place] >> group & 1) << 4 if name == "Q5_K" else code)
    return _half(data, 0), -_half(data, 2), a, b, codes


def _half(data: bytes, offset: int) -> np.float16:
    return np.frombuffer(data, "<f2", 1, offset)[0]


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _bf16(value: np.float32) -> int:
    """The nearer of the two neighbours whose lower 16 bits are 0, the even one between them."""
    bits = int(np.array(value, "<f4").view("<u4"))
    upper, lower = divmod(bits, 1 << 16)
    return upper + (lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1))


# ---------------------------------------------------------------------------------- scales, block by block
# x and w: float32 [blocks, groups, size]; units: pairs of float32 [blocks]; levels: [blocks, groups]; each
# pair is (of steps, of shifts). Scales are (units, levels).

Pair = tuple[np.ndarray, np.ndarray]
Scales = tuple[Pair, Pair]


def _wished(x: np.ndarray, shape: Shape) -> Pair:
    """Steps and shifts that just cover the range of each group."""
    lowest, highest = x.min(axis=-1), x.max(axis=-1)
    if shape.affine:
        if shape.groups > 1:  # the shared unit of shifts lets them be negative only
            lowest = np.minimum(lowest, F32(0))
            highest = np.maximum(highest, lowest)
        return (highest - lowest) / F32(shape.high), lowest
    extreme = np.where(highest > -lowest, highest, lowest)
    if shape.low == -shape.high:
        return np.abs(extreme) / F32(shape.high), np.zeros_like(extreme)
    return extreme / F32(shape.low), np.zeros_like(extreme)


def _storable(units: np.ndarray) -> np.ndarray:
    size = np.clip(np.abs(units), F32(2.0**-24), F32(65504)).astype(np.float16).astype(F32)
    return np.where(units == 0, F32(0), np.where(units < 0, -size, size))


def _levels(wished: np.ndarray, bounds: tuple[int, int]) -> Pair:
    """Units that make the extreme of each block the greatest level, and the levels nearest to the wishes."""
    units, levels = np.zeros(len(wished), F32), np.zeros_like(wished)
    greatest = bounds[0] if abs(bounds[0]) > abs(bounds[1]) else bounds[1]
    for block, row in enumerate(wished):
        units[block] = _storable(row[np.abs(row).argmax()] / F32(greatest))
        if units[block] != 0:
            levels[block] = np.rint(np.clip(row / units[block], *bounds))
    return units, levels


def _stored(wished: Pair, shape: Shape) -> Scales:
    unit_steps, step_levels = _levels(wished[0], shape.step_levels)
    unit_shifts, shift_levels = _levels(wished[1], shape.shift_levels)
    return (unit_steps, unit_shifts), (step_levels, shift_levels)


def _covering(x: np.ndarray, shape: Shape) -> Scales:
    return _stored(_wished(x, shape), shape)


def _round(x: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
    inverse = np.where(np.abs(step) > TINY, F32(1) / step, F32(0))
    scaled = (x - shift[..., None]) * inverse[..., None]
    return np.rint(np.clip(scaled, F32(shape.low), F32(shape.high)))


def _sums(x: np.ndarray, w: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
    """Sums of w r r, w r q, w r, w q q, w q and w over each group, float32 [6, blocks, groups]."""
    codes = _round(x, step, shift, shape)
    sums = np.zeros((6, *step.shape), F32)
    for i in range(shape.size):
        weight, q = w[..., i], codes[..., i]
        r = x[..., i] - (q * step + shift)
        terms = (weight * r * r, weight * r * q, weight * r, weight * q * q, weight * q, weight)
        for total, term in zip(sums, terms, strict=True):
            total += term
    return sums


def _searched(x: np.ndarray, w: np.ndarray, shape: Shape) -> Scales:
    covering = _stored(_wished(x, shape), shape)
    start = _stored(_free_search(x, w, shape), shape)
    reach, turns = (2, 3) if shape.groups > 1 else (0, 1)
    best = latest = _settled(x, w, start, shape, reach)
    for _ in range(turns):
        latest = _settled(x, w, _refitted(latest, shape), shape, reach)
        best = _better(latest, best)
    return _better(_settled(x, w, covering, shape, 0), best)[0]


def _free_search(x: np.ndarray, w: np.ndarray, shape: Shape) -> Pair:
    """Steps and shifts, free of what can be stored, of the least error found."""
    step, shift = _wished(x, shape)
    if shape.affine:
        ends, span = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0), shape.high
        trials = [((span - a - b) / span, a) for a in ends for b in ends]
    else:
        trials = [(factor, 0.0) for factor in np.linspace(0.75, 1.15, 33)]
    limit = F32(0) if shape.groups > 1 else F32(np.inf)
    best = [step, shift, np.full_like(step, np.inf)]
    for factor, offset in trials:
        _try_refit(x, w, step * F32(factor), shift + step * F32(offset), shape, limit, best)
    _try_refit(x, w, best[0], best[1], shape, limit, best)
    return best[0], best[1]


def _try_refit(
    x: np.ndarray,
    w: np.ndarray,
    step: np.ndarray,
    shift: np.ndarray,
    shape: Shape,
    limit: np.float32,
    best: list[np.ndarray],
) -> None:
    """Codes for (step, shift), then the least-squares step and shift for these codes; kept where better."""
    error, rq, r, qq, q, total = _sums(x, w, step, shift, shape)
    more_shift = np.zeros_like(step)
    if shape.affine:
        more_shift = (r * qq - rq * q) / (total * qq - q * q)
        more_shift = np.where(np.isfinite(more_shift), more_shift, F32(0))
        more_shift = np.where(shift + more_shift > limit, limit - shift, more_shift)
    more_step = (rq - more_shift * q) / qq
    more_step = np.where(np.isfinite(more_step), more_step, F32(0))
    error = error - more_step * (rq + rq - more_step * qq)
    error = error - more_shift * (r + r - more_shift * total - (more_step + more_step) * q)
    wins = error < best[2]
    best[:] = [
        np.where(wins, new, old)
        for new, old in zip((step + more_step, shift + more_shift, error), best, strict=True)
    ]


# Scales, their sums float32 [6, blocks, groups], the error of each block float64 [blocks].
Trial = tuple[Scales, np.ndarray, np.ndarray]


def _settled(x: np.ndarray, w: np.ndarray, scales: Scales, shape: Shape, reach: int) -> Trial:
    """The best levels near the given ones: steps up to `reach` away, with two looks at the shift level."""
    units, (step_levels, shift_levels) = scales
    step_unit, shift_unit = units[0][:, None], units[1][:, None]
    kept_step, kept_shift = np.array(step_levels), np.array(shift_levels)
    kept = np.zeros((6, *step_levels.shape), F32)
    kept[0] = np.inf
    for offset in range(-reach, reach + 1):
        a, b = np.clip(step_levels + F32(offset), *shape.step_levels), shift_levels
        for _ in range(2 if shape.shift_levels != (1, 1) else 1):
            sums = _sums(x, w, step_unit * a, shift_unit * b, shape)
            wins = sums[0] < kept[0]
            kept_step, kept_shift = np.where(wins, a, kept_step), np.where(wins, b, kept_shift)
            kept = np.where(wins, sums, kept)
            moved = np.rint(np.clip(b + sums[2] / (sums[5] * shift_unit), *shape.shift_levels))
            b = np.where(np.abs(shift_unit) > TINY, moved, b)
    return (units, (kept_step, kept_shift)), kept, _over_groups(kept[0])


def _refitted(trial: Trial, shape: Shape) -> Scales:
    """Units of least squared error for the codes and levels of the trial."""
    ((unit_steps, unit_shifts), levels), (_, rq, r, qq, q, w), _ = trial
    a, b = levels[0].astype(np.float64), levels[1].astype(np.float64)
    aa, ar = _over_groups(a * a * qq), _over_groups(a * rq)
    if shape.affine:
        ab, bb, br = _over_groups(a * b * q), _over_groups(b * b * w), _over_groups(b * r)
        determinant = aa * bb - ab * ab
        more_step = np.where(determinant > 0, (ar * bb - br * ab) / determinant, 0)
        more_shift = np.where(determinant > 0, (br * aa - ar * ab) / determinant, 0)
    else:
        more_step, more_shift = np.where(aa > 0, ar / aa, 0), np.zeros_like(ar)
    new = (unit_steps + more_step).astype(F32), (unit_shifts + more_shift).astype(F32)
    return (_storable(new[0]), _storable(new[1])), levels


def _over_groups(values: np.ndarray) -> np.ndarray:
    """Sum over the groups of each block, one after the other, in float64."""
    total = np.zeros(len(values))
    for group in range(values.shape[1]):
        total = total + values[:, group]
    return total


def _better(first: Trial, second: Trial) -> Trial:
    """Block by block the trial of smaller error, the second where they are equal."""
    wins = first[2] < second[2]
    (units, levels), (other_units, other_levels) = first[0], second[0]
    chosen = tuple(np.where(wins, a, b) for a, b in zip(units, other_units, strict=True))
    chosen_levels = tuple(np.where(wins[:, None], a, b) for a, b in zip(levels, other_levels, strict=True))
    scales = (chosen[0], chosen[1]), (chosen_levels[0], chosen_levels[1])
    return scales, np.where(wins[None, :, None], first[1], second[1]), np.where(wins, first[2], second[2])
