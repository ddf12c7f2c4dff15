"""What a recipe makes wrong of the outputs of one matrix, on the text that activations were gathered on."""

from collections.abc import Iterator

import numpy as np

from engine.api.errors import FigureError
from engine.api.views import ErrorOf
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.drawn import Drawn, Wanted
from engine.figures.error import by_channel, refuse_lossless
from engine.figures.inputs import inputs_of, layer_of
from engine.figures.tensors import find_tensor
from engine.quantized_weights import Quantized, quantized

OUT = "squared error of the output over the mean"
"""Over the mean output channel's square."""

OWN = "squared error of the output over its square"

SHARE = "squared error from this input over the mean"
"""Mean square of the input times the squared errors of its weights: what it adds if inputs do not cancel."""


def activation_error(checkpoint: Checkpoint, view: ErrorOf, wanted: Wanted) -> Iterator[Drawn]:
    """What `view` asks for, this matrix alone quantized. Raises `FigureError`, and what encoding raises."""
    if view.scope == "group":
        raise FigureError("Errors of outputs are by output channel, input channel or token, not by group.")
    tensor = find_tensor(checkpoint, view.tensor)
    made = quantized(checkpoint, view.recipe, tensor.name)
    find = _by_input if view.scope == "input" else _by_output_and_token
    found = find(checkpoint, view, tensor, made, wanted)
    if found is None:
        return
    values, lost, names = found
    refuse_lossless(view.tensor, made, float(values.sum()))
    scope = "token" if view.scope == "token" else f"{view.scope} channel"
    title = f"{view.tensor} · error of the outputs by {scope} · {made.format}"
    yield Drawn(by_channel(title, scope, values, lost, names), None, 1, 1, last=True)


def _by_input(
    checkpoint: Checkpoint, view: ErrorOf, tensor: Tensor, made: Quantized, wanted: Wanted
) -> tuple[np.ndarray, str, list[str]] | None:
    layer, _ = layer_of(checkpoint, view.activations, tensor.name)
    squares = layer.channels.std**2 + layer.channels.mean**2
    lost, there = np.zeros(made.width), np.zeros(made.width)
    for bounds in made.bounds():
        if not wanted():
            return None
        piece = made.piece(*bounds)
        lost += np.square(piece.values - piece.weights, dtype=np.float64).sum(axis=0)
        there += np.square(piece.weights, dtype=np.float64).sum(axis=0)
    return _over((squares * lost), float((squares * there).mean())), SHARE, []


def _by_output_and_token(
    checkpoint: Checkpoint, view: ErrorOf, tensor: Tensor, made: Quantized, wanted: Wanted
) -> tuple[np.ndarray, str, list[str]] | None:
    inputs = inputs_of(checkpoint, view.activations, tensor)
    by_output, outputs = np.zeros(made.lines), np.zeros(made.lines)
    by_token, tokens = np.zeros(len(inputs.values)), np.zeros(len(inputs.values))
    for matrix, piece in inputs.lines(made, wanted, 0, made.lines // inputs.stacked):
        own = inputs.matrices == matrix
        errors = np.square(inputs.values[own] @ (piece.values - piece.weights).T, dtype=np.float64)
        squares = np.square(inputs.values[own] @ piece.weights.T, dtype=np.float64)
        by_output[piece.start : piece.stop] = errors.sum(axis=0)
        outputs[piece.start : piece.stop] = squares.sum(axis=0)
        by_token[own] += errors.sum(axis=1)
        tokens[own] += squares.sum(axis=1)
    if not wanted():
        return None
    if view.scope == "token":
        found = np.divide(by_token, tokens, out=np.zeros_like(by_token), where=tokens > 0)
        return found, OWN, inputs.names
    return _over(by_output, float(outputs.mean())), OUT, []


def _over(values: np.ndarray, mean: float) -> np.ndarray:
    return values / mean if mean else np.zeros_like(values)
