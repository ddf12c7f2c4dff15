"""What the readers of the file formats return: tensors as they lie in their file, without any meaning yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

from engine.api.wording import shown
from engine.checkpoint.errors import TensorOffsetsError
from engine.checkpoint.files import SourceFile, require

# Bits per value of the plain types, as safetensors names them. F8_E8M0 is a power of two: a scale.
PLAIN_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
AXES_LIMIT = 32  # NumPy has room for twice as many


@dataclass(frozen=True, slots=True)
class Stored:
    """`shape` in NumPy's order; `offset` from the start of `file`; `bytes` is the stored size."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: SourceFile
    offset: int
    bytes: int

    @property
    def path(self) -> Path:
        return self.file.path


def plain_bytes(dtype: str, shape: Iterable[int]) -> int | None:
    """Stored size of a plain type; None if the values do not end on a byte."""
    bits = PLAIN_BITS[dtype] * prod(shape)
    return None if bits % 8 else bits // 8


def check_shape(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Raises `BadHeaderError` for a shape that no array can have, though the tensor may be empty."""
    possible = len(shape) <= AXES_LIMIT and prod(size or 1 for size in shape) < 1 << 59
    require(possible, path, f"no array can have the shape {shown(list(shape))} of {name}")


def check_apart(tensors: list[Stored], *, contiguous: bool) -> None:
    """Raises `TensorOffsetsError` if two tensors of one file overlap or, if `contiguous`, leave a hole."""
    ordered = sorted((tensor for tensor in tensors if tensor.bytes), key=lambda tensor: tensor.offset)
    for first, second in pairwise(ordered):
        end = first.offset + first.bytes
        if second.offset < end or (contiguous and second.offset > end):
            problem = "overlap" if second.offset < end else "leave a hole between them"
            raise TensorOffsetsError(
                f"{first.path} has a damaged header: the bytes of {first.name} and {second.name} {problem}."
            )
