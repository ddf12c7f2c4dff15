"""Points and bytes of the IQ1, IQ2 and IQ3 formats, one point and one byte at a time."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from gguf import quants

from kernels.reference.shapes import F32, SHAPES, Block, Shape


@cache
def points_of(name: str) -> np.ndarray:
    """gguf's points, int64 [points, 4 or 8]: magnitudes, or -1, 0 and 1."""
    kind = getattr(quants, name)
    kind.init_grid()
    return kind.grid.reshape(kind.grid_shape).astype(np.int64)


@cache
def index_of(name: str) -> dict[tuple[int, ...], int]:
    return {tuple(point): index for index, point in enumerate(points_of(name).tolist())}


# --------------------------------------------------------------------------------------- the nearest point


def nearest(scaled: np.ndarray, shape: Shape) -> np.ndarray:
    """Codes, float32 [blocks, groups, size], for weights divided by their steps, of the same shape."""
    bounded = np.clip(scaled, F32(-3 * shape.high), F32(3 * shape.high))
    fixed = np.rint(bounded * F32(shape.resolution)).astype(np.int64)
    runs = fixed.reshape(-1, shape.delta or 8)
    one = _nearest_with_delta if shape.delta else _nearest_with_signs
    codes = [one(run, shape) for run in runs]
    return np.array(codes, F32).reshape(scaled.shape)


def _nearest_with_signs(run: np.ndarray, shape: Shape) -> np.ndarray:
    """For 8 weights; where signs must be even and are not, that of the smallest is turned first."""
    signs = np.where(run < 0, -1, 1)
    sizes = np.abs(run)
    if shape.signs == "even" and np.prod(signs) < 0:
        least = sizes.argmin()
        sizes[least] *= -1
        signs[least] *= -1
    points = points_of(shape.points)
    found = [
        points[_squares(vector, points, shape).argmin()] for vector in sizes.reshape(-1, points.shape[1])
    ]
    return signs * np.concatenate(found)


def _nearest_with_delta(run: np.ndarray, shape: Shape) -> np.ndarray:
    """For weights that share a delta, which is 1 unless -1 brings the points nearer."""
    best, least = run, None
    for delta in (1, -1):
        points = 8 * points_of(shape.points) + delta
        squares = [_squares(vector, points, shape) for vector in run.reshape(-1, 8)]
        error = sum(int(one.min()) for one in squares)
        if least is None or error < least:
            best, least = np.concatenate([points[one.argmin()] for one in squares]), error
    return best


def _squares(vector: np.ndarray, points: np.ndarray, shape: Shape) -> np.ndarray:
    return ((vector - shape.resolution * points) ** 2).sum(axis=1)


# ------------------------------------------------------------------------------------------------ to bytes


def pack(name: str, block: Block) -> bytes:
    step = np.float16(block.unit_step).tobytes()
    levels = [(int(level) - 1) // 2 for level in block.step_levels]
    if name.startswith("IQ1"):
        return _pack_with_delta(name, step, levels, block.codes)
    width = points_of(name).shape[1]
    index = [
        index_of(name)[tuple(abs(code) for code in block.codes[k : k + width])] for k in range(0, 256, width)
    ]
    signs = [sum((block.codes[8 * k + j] < 0) << j for j in range(8)) for k in range(32)]
    if name in ("IQ2_XXS", "IQ3_XXS"):
        words = [
            (levels[g] << 28 | sum((signs[4 * g + k] & 127) << 7 * k for k in range(4))).to_bytes(4, "little")
            for g in range(8)
        ]
        if name == "IQ3_XXS":
            return step + bytes(index) + b"".join(words)
        return step + b"".join(bytes(index[4 * g : 4 * g + 4]) + words[g] for g in range(8))
    halves = bytes(levels[j] | levels[j + 1] << 4 for j in range(0, len(levels), 2))
    if name == "IQ2_XS":
        pairs = [(index[k] | (signs[k] & 127) << 9).to_bytes(2, "little") for k in range(32)]
        return step + b"".join(pairs) + halves
    low = bytes(one & 255 for one in index)
    if name == "IQ2_S":
        upper = bytes(sum((index[4 * j + k] >> 8) << 2 * k for k in range(4)) for j in range(8))
        return step + low + bytes(signs) + upper + halves
    upper = bytes(sum((index[8 * j + k] >> 8) << k for k in range(8)) for j in range(8))
    return step + low + upper + bytes(signs) + halves


def _pack_with_delta(name: str, step: bytes, levels: list[int], codes: list[int]) -> bytes:
    deltas = [1 if codes[8 * k] % 8 == 1 else -1 for k in range(32)]
    index = [index_of(name)[tuple((codes[8 * k + j] - deltas[k]) // 8 for j in range(8))] for k in range(32)]
    low = bytes(one & 255 for one in index)
    if name == "IQ1_S":
        words = [
            sum((index[4 * g + k] >> 8) << 3 * k for k in range(4))
            | levels[g] << 12
            | (deltas[4 * g] < 0) << 15
            for g in range(8)
        ]
        return step + low + b"".join(word.to_bytes(2, "little") for word in words)
    nibbles = [index[k] >> 8 | (deltas[k] < 0) << 3 for k in range(32)]
    upper = bytes(nibbles[k] | nibbles[k + 1] << 4 for k in range(0, 32, 2))
    number = int.from_bytes(step, "little")
    words = [
        sum(levels[4 * j + k] << 3 * k for k in range(4)) | (number >> 4 * j & 15) << 12 for j in range(4)
    ]
    return low + upper + b"".join(word.to_bytes(2, "little") for word in words)


# -------------------------------------------------------------------------------------------- from bytes


def values(name: str, data: bytes) -> Iterator[np.float32]:
    """The 256 weights of a block, in ggml's arithmetic: (scale * point) * sign, scale * (point + delta)."""
    if name.startswith("IQ1"):
        yield from _values_with_delta(name, data)
        return
    points, shape = points_of(name), SHAPES[name]
    d = np.frombuffer(data, "<f2", 1)[0].astype(F32)
    index, signs, levels = FIELDS[name](data)
    half = {"IQ2": F32(0.25), "IQ3": F32(0.5)}[name[:3]]
    for place in range(256):
        s = F32(levels[place // shape.size])
        scale = d * (F32(1) + F32(2) * s) if name == "IQ3_S" else d * (F32(0.5) + s) * half
        vector, inside = divmod(place, points.shape[1])
        sign = F32(-1) if signs[place // 8] >> place % 8 & 1 else F32(1)
        yield scale * F32(points[index[vector]][inside]) * sign


Fields = tuple[list[int], list[int], list[int]]


def _with_eighth(seven: int) -> int:
    """The stored 7 bits of signs and the eighth, which makes their number even."""
    return seven | (bin(seven).count("1") & 1) << 7


def _words(data: bytes) -> tuple[list[int], list[int]]:
    """Signs and levels of 32-bit words."""
    words = [int.from_bytes(data[k : k + 4], "little") for k in range(0, len(data), 4)]
    return [_with_eighth(word >> 7 * k & 127) for word in words for k in range(4)], [w >> 28 for w in words]


def _halves(data: bytes) -> list[int]:
    return [byte >> shift & 15 for byte in data for shift in (0, 4)]


def _iq2_xxs(data: bytes) -> Fields:
    groups = [data[2 + 8 * g : 10 + 8 * g] for g in range(8)]
    index = [byte for group in groups for byte in group[:4]]
    return index, *_words(b"".join(group[4:] for group in groups))


def _iq2_xs(data: bytes) -> Fields:
    pairs = [data[k] | data[k + 1] << 8 for k in range(2, 66, 2)]
    return [pair & 511 for pair in pairs], [_with_eighth(pair >> 9) for pair in pairs], _halves(data[66:])


def _iq2_s(data: bytes) -> Fields:
    index = [data[2 + k] | (data[66 + k // 4] >> 2 * (k % 4) & 3) << 8 for k in range(32)]
    return index, list(data[34:66]), _halves(data[74:])


def _iq3_xxs(data: bytes) -> Fields:
    return list(data[2:66]), *_words(data[66:])


def _iq3_s(data: bytes) -> Fields:
    index = [data[2 + k] | (data[66 + k // 8] >> k % 8 & 1) << 8 for k in range(64)]
    return index, list(data[74:106]), _halves(data[106:])


FIELDS = {
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
}


def _values_with_delta(name: str, data: bytes) -> Iterator[np.float32]:
    if name == "IQ1_S":
        d = np.frombuffer(data, "<f2", 1)[0].astype(F32)
        words = [data[34 + 2 * g] | data[35 + 2 * g] << 8 for g in range(8)]
        index = [data[2 + k] | (words[k // 4] >> 3 * (k % 4) & 7) << 8 for k in range(32)]
        levels = [words[k // 4] >> 12 & 7 for k in range(32)]
        minus = [words[k // 4] >> 15 for k in range(32)]
    else:
        words = [data[48 + 2 * j] | data[49 + 2 * j] << 8 for j in range(4)]
        number = sum((word >> 12) << 4 * j for j, word in enumerate(words))
        d = np.frombuffer(number.to_bytes(2, "little"), "<f2")[0].astype(F32)
        nibbles = _halves(data[32:48])
        index = [data[k] | (nibbles[k] & 7) << 8 for k in range(32)]
        levels = [words[k // 8] >> 3 * (k // 2 % 4) & 7 for k in range(32)]
        minus = [nibble >> 3 for nibble in nibbles]
    for k in range(32):
        scale = d * F32(2 * levels[k] + 1)
        delta = F32(-0.125) if minus[k] else F32(0.125)
        for number in points_of(name)[index[k]]:
            yield scale * (F32(number) + delta)
