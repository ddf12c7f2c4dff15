"""The tensors of a checkpoint as figures see them: found by either of their names, read in runs of rows."""

from collections.abc import Iterator

from engine.api.errors import FigureError
from engine.checkpoint import Checkpoint, Tensor
from engine.matrices import canonical_parts
from engine.weight_statistics import source_name

PIECE = 1 << 22
"""Weights that are read at a time."""


def find_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """The tensor of that name in the source or in GGUF. Raises `CheckpointError`."""
    return checkpoint.tensors[source_name(checkpoint, name)]


def canonical_names(checkpoint: Checkpoint, name: str) -> list[str]:
    """What the statistics of activations may call the tensor: its names in GGUF, and the name as it is."""
    tensor = checkpoint.tensors.get(name) or checkpoint.tensors.get(f"{name}.weight")
    found = [name, f"{name}.weight"]
    if tensor is None:
        return found
    return [*found, *([tensor.canonical] if tensor.canonical else canonical_parts(checkpoint, tensor))]


def roles_of(checkpoint: Checkpoint, tensor: Tensor) -> list[str]:
    """What a tensor is called in each block: "ffn_down"; in the source's words where GGUF has none.

    Where GGUF has several tensors for it, as for gate and up of stacked experts, what each is called.
    """
    names = [tensor.canonical] if tensor.canonical else canonical_parts(checkpoint, tensor)
    if names:
        return [name.removesuffix(".weight").removeprefix(f"blk.{tensor.block}.") for name in names]
    name = tensor.name.removesuffix(".weight")
    return [name if tensor.block is None else f".{name}.".replace(f".{tensor.block}.", ".*.", 1).strip(".")]


def part_of(first: int, stop: int, count: int, what: str) -> tuple[int, int]:
    """First and stop of the `count` that there are; 0 is the end. Raises `FigureError` for none of them."""
    stop = min(stop or count, count)
    if first >= stop:
        raise FigureError(f"There are {count} {what}: from {first} to {stop} is none of them.")
    return first, stop


def runs(start: int, stop: int, columns: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """First and stop of the rows to be read at a time: whole `multiple`s of rows, about `PIECE` weights."""
    step = max(1, PIECE // (multiple * max(columns, 1))) * multiple
    return ((first, min(first + step, stop)) for first in range(start, stop, step))
