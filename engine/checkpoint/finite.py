"""Finds NaN and infinity in a checkpoint before anything is made of it, at the speed of reading.

Floats are judged by their bits, in place: a value is not finite exactly if all bits of its exponent are set,
so the largest pattern without the sign says it for a whole piece. An F64 that float32 makes infinite counts
as infinite: float32 is what is read. GGML's block types are judged by their
half-precision scales, the only fields of a block that can make a weight infinite or NaN; types whose scales
are stored otherwise are decoded. Integers are finite.
"""

from collections.abc import Callable, Iterator

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from engine.api.progress import Listener, Progress, silent
from engine.checkpoint.checkpoint import Checkpoint, Tensor
from engine.checkpoint.errors import NonFiniteError
from engine.parallel import in_order

PIECE = 1 << 20
TELLING = 64 << 20
"""Bytes between two reports of progress."""

THREADS = 2
"""One reads while another judges; more wait for each other's memory."""

# Bits without the sign, and the smallest pattern that is not finite in float32.
_PATTERNS = {
    "F64": (np.uint64, 0x7FFFFFFFFFFFFFFF, 0x47EFFFFFF0000000),
    "F32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F8_E4M3": (np.uint8, 0x7F, 0x7F),
    "F8_E5M2": (np.uint8, 0x7F, 0x7C),
    "F8_E8M0": (np.uint8, 0xFF, 0xFF),
}

# Offsets of the half-precision scales within a block (ggml-common.h).
SCALE_OFFSETS = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ4_NL", "IQ4_XS"), (0,)),
}
_DECODED = ("IQ1_M", "MXFP4")  # NVFP4 has no scale that is not finite


def check_finite(checkpoint: Checkpoint, listener: Listener = silent) -> None:
    """Reads all weights of the text part once; raises `NonFiniteError` for the first that is NaN or infinite.

    The error names the tensor and the position; in GGML's block types that of the first weight of the block.
    Reports `Progress("check weights", …)` in bytes. Integers, and weights of a type that cannot be decoded,
    are passed over: they are copied or refused.
    """
    total = sum(tensor.bytes for tensor in checkpoint.tensors.values())
    done = told = 0
    listener(Progress("check weights", done, total, "bytes"))
    judged = in_order(lambda piece: (piece, _first_bad(checkpoint, *piece)), _pieces(checkpoint), THREADS)
    for (tensor, start, size), position in judged:
        if position is not None:
            raise _error(tensor, position)
        done += size
        if start == 0 or done - told >= TELLING:
            told = done
            listener(Progress("check weights", done, total, "bytes", tensor.name))
    listener(Progress("check weights", done, total, "bytes"))


def _pieces(checkpoint: Checkpoint) -> Iterator[tuple[Tensor, int, int]]:
    """All stored weights: tensor, first byte, bytes; whole units."""
    for tensor in checkpoint.tensors.values():
        _, unit_bytes, first_bad = _judge(tensor.dtype)
        step = tensor.bytes if first_bad is None else PIECE // unit_bytes * unit_bytes
        for start in range(0, tensor.bytes, step or 1):
            yield tensor, start, min(step, tensor.bytes - start)


def _first_bad(checkpoint: Checkpoint, tensor: Tensor, start: int, size: int) -> int | None:
    """The position in the tensor of the first weight in a piece that is not finite."""
    unit_values, unit_bytes, first_bad = _judge(tensor.dtype)
    if first_bad is None:
        return None
    piece = np.empty(size, np.uint8)
    checkpoint.read_bytes(tensor, start, piece)
    unit = first_bad(piece)
    return None if unit is None else (start // unit_bytes + unit) * unit_values


def _error(tensor: Tensor, position: int) -> NonFiniteError:
    where = ", ".join(str(index) for index in np.unravel_index(position, tensor.shape))
    return NonFiniteError(
        f"{tensor.name} in {tensor.file} is NaN or infinite at [{where}]: the model is damaged; "
        "download it again or ask its author."
    )


def _judge(dtype: str) -> tuple[int, int, Callable[[np.ndarray], int | None] | None]:
    """Values and bytes of a unit, and a function from bytes (which it spoils) to the first bad unit."""
    if dtype in _PATTERNS:
        unsigned, mask, limit = _PATTERNS[dtype]
        width = np.dtype(unsigned).itemsize
        return 1, width, lambda piece: _first_at_least(piece.view(unsigned), mask, limit)
    if dtype in SCALE_OFFSETS:
        values, width = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
        return values, width, lambda piece: _first_bad_scale(piece.reshape(-1, width), SCALE_OFFSETS[dtype])
    if dtype in _DECODED:
        kind = GGMLQuantizationType[dtype]
        values, width = GGML_QUANT_SIZES[kind]
        return values, width, lambda piece: _first_bad_decoded(piece, kind)
    return 1, 1, None


def _first_at_least(patterns: np.ndarray, mask: int, limit: int) -> int | None:
    np.bitwise_and(patterns, patterns.dtype.type(mask), out=patterns)
    if patterns.max() < limit:
        return None
    return int((patterns >= limit).argmax())


def _first_bad_scale(blocks: np.ndarray, offsets: tuple[int, ...]) -> int | None:
    unsigned, mask, limit = _PATTERNS["F16"]
    bad = np.zeros(len(blocks), bool)
    for offset in offsets:
        # Both bytes one by one: blocks of odd width have scales at odd addresses.
        scales = blocks[:, offset] | blocks[:, offset + 1].astype(unsigned) << 8
        bad |= scales & mask >= limit
    return int(bad.argmax()) if bad.any() else None


def _first_bad_decoded(piece: np.ndarray, kind: GGMLQuantizationType) -> int | None:
    values, _ = GGML_QUANT_SIZES[kind]
    with np.errstate(all="ignore"):  # NaN is what is looked for
        decoded = quants.dequantize(piece.reshape(1, -1), kind)
    bad = ~np.isfinite(decoded.reshape(-1, values)).all(axis=1)
    return int(bad.argmax()) if bad.any() else None
