"""What reaches a tensor, as a file of activations says: statistics, and of a prompt the rows themselves."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

import numpy as np

from engine.activations import LayerActivations, activations_of
from engine.api.activations import Ran
from engine.api.errors import FigureError
from engine.api.wording import printable
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.drawn import Wanted
from engine.figures.tensors import canonical_names
from engine.parallel import in_order
from engine.quantized_weights import Piece, Quantized

LONGEST = 20
"""Letters of a token that are shown."""


def layer_of(checkpoint: Checkpoint, file: str | None, tensor: str) -> tuple[LayerActivations, Ran]:
    """What `file` says of the tensor, by its name in the source or in GGUF, and on what it was gathered.

    Raises `FigureError`, and what `activations_of` raises.
    """
    if file is None:
        raise FigureError("Name the file with the statistics of activations.")
    names = canonical_names(checkpoint, tensor)
    with activations_of(checkpoint, Path(file)) as activations:
        name = next((name for name in names if name in activations.layers), None)
        if name is None:
            said = ", ".join(activations.tensors[:3])
            raise FigureError(f"{file} says nothing of {tensor}; it does of {said}, ….")
        return activations.layers[name], activations.ran


@dataclass(frozen=True)
class Inputs:
    """Rows of a prompt that reach a tensor: `values` float32 [rows, input channels], in the order of tokens.

    `matrices` int64 [rows]: which of the tensor's (`stacked` of them) each is multiplied with. `names`: the
    place and the text of each row's token, and of several matrices which one.
    """

    values: np.ndarray
    matrices: np.ndarray
    stacked: int
    names: list[str]

    def lines(self, made: Quantized, wanted: Wanted, first: int, stop: int) -> Iterator[tuple[int, Piece]]:
        """Output channels first .. stop of each matrix that is reached, in pieces, each with its matrix.

        They are encoded on all cores; it ends where it is no longer `wanted`.
        """
        height = made.lines // self.stacked
        bounds = [
            (matrix, start, end)
            for matrix in np.unique(self.matrices).tolist()
            for start, end in made.bounds(matrix * height + first, matrix * height + stop)
        ]
        threads = len(sched_getaffinity(0))
        pieces = in_order(lambda part: (part[0], made.piece(part[1], part[2])), bounds, threads)
        with closing(pieces):
            for found in pieces:
                if not wanted():
                    return
                yield found


def inputs_of(checkpoint: Checkpoint, file: str | None, tensor: Tensor) -> Inputs:
    """Raises `FigureError` where the file holds no rows of the tensor, and what `layer_of` raises."""
    layer, ran = layer_of(checkpoint, file, tensor.name)
    if not ran.prompt:
        raise FigureError(
            "Tokens can be looked at one by one where the model was run on a prompt: type one. Of texts only "
            "statistics are kept."
        )
    if layer.whole is None:
        raise FigureError(
            f"A prompt of {ran.length:,} tokens is too long to keep all that it puts into {tensor.name}: "
            "type a shorter one."
        )
    places, values = layer.whole.places, layer.whole.values
    order = np.lexsort((places[:, 2], places[:, 1]))
    stacked = tensor.shape[0] if len(tensor.shape) > 2 else 1
    if tensor.expert is not None:
        order = order[places[order, 2] == tensor.expert]
    if not len(order):
        raise FigureError(f"No token of the prompt reaches {tensor.name}: its expert was never chosen.")
    places = places[order]
    matrices = places[:, 2] if stacked > 1 else np.zeros(len(order), np.int64)
    names = [_name(ran, int(position)) for position in places[:, 1]]
    if stacked > 1:
        names = [f"{name} · expert {matrix}" for name, matrix in zip(names, matrices, strict=True)]
    return Inputs(values[order], matrices, stacked, names)


def _name(ran: Ran, position: int) -> str:
    """A token's place and text; where its place cannot be seen, that."""
    return f"{position} {printable(ran.pieces[position])[:LONGEST]}" if position >= 0 else "some token"
