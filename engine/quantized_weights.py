"""What a recipe makes of one source tensor, without an output: the bytes of `bitwright quantize`, decoded.

Rows of the output are encoded each by itself (`engine.methods.encode`), so they are encoded here in the order
in which the source has them: whatever the export reorders, stacks or takes apart, a row's bytes are those of
the file, if only its format and its importance are those of its place there. What the export transposes has
the source's columns for its rows: lines are rows of the output, output channels.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np

from engine.api.editing import outcome
from engine.api.errors import CheckpointError, ExportError
from engine.api.formats import FORMATS
from engine.api.plan import TensorPlan, make_plan
from engine.api.recipe import Recipe
from engine.checkpoint import Checkpoint, Tensor
from engine.export.gguf import OutputTensor
from engine.export.gguf.plan import export_tensors
from engine.formats import Grid, Scales, decode, format_of
from engine.jobs.fingerprint import digest
from engine.matrices import matrix_shape, read_rows, refuse_not_finite
from engine.methods import as_float32, encode_as_planned
from engine.preparation import read_recipes_importance, recipes_entries, recipes_facts

PIECE = 1 << 18
"""Weights that are encoded and decoded at a time."""

TRANSPOSED_PIECE = 1 << 20
"""The same of a transposed source, all of which is read for each piece."""


class NotInOutputError(ExportError):
    """A tensor of the source or of the output that has no counterpart in the other."""


@dataclass(frozen=True)
class Coded:
    """Weights as codes int8 [lines, width] of a grid, with their scales."""

    codes: np.ndarray
    grid: Grid
    scales: Scales

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value that each group can hold, float32 [lines, groups] each."""
        one = np.float32(self.grid.codes.low) * self.scales.steps + self.scales.shifts
        other = np.float32(self.grid.codes.high) * self.scales.steps + self.scales.shifts
        return np.minimum(one, other), np.maximum(one, other)

    def values_of(self, line: int, group: int) -> np.ndarray:
        """All values that a weight of that group can have, rising, float32."""
        codes = self.grid.codes.ordered.astype(np.float32)
        return np.unique(codes * self.scales.steps[line, group] + self.scales.shifts[line, group])


@dataclass(frozen=True)
class Piece:
    """Lines `start` .. `stop` of a tensor: `weights` as they were and `values` as they are stored, both
    float32 [lines, width]; `coded` is None where they are stored as floats one by one."""

    start: int
    stop: int
    weights: np.ndarray
    values: np.ndarray
    coded: Coded | None = None


@dataclass(frozen=True)
class _Span:
    """Lines `first` .. `stop` of a source: one matrix of one tensor of the output, or a part of it.

    `importance`: float32 [width], of its columns there; None where nothing is known.
    """

    first: int
    stop: int
    output: OutputTensor
    plan: TensorPlan
    importance: np.ndarray | None

    @property
    def grid(self) -> Grid | None:
        form = format_of(self.plan.format) if self.plan.format in FORMATS else None
        return form if isinstance(form, Grid) else None


class Quantized:
    """A source tensor in lines, [output channels, input channels], and what a recipe makes of it.

    `format`: several joined by " and " where parts of it go to tensors of several formats. `method`: "" where
    weights are rounded one by one, "copied" where the source's bytes are taken.
    `group`: weights of a line that share a scale, `block`: those that are stored together; all of the line
    where each weight is stored by itself. `levels`: numbers that a code can be, 0 where there are no codes.
    `signed`: whether some of these are below 0. `is_matrix`: not of a vector, which has no input channels.

    `lines`: how many, `width`: the weights of each. They are rows of the source, or where that is transposed
    its columns. Reads and encodes when asked, in pieces; memory is that of the answer and a few megabytes.
    """

    def __init__(self, checkpoint: Checkpoint, source: Tensor, spans: list[_Span], effort: str) -> None:
        self._checkpoint, self._source, self._spans, self._effort = checkpoint, source, spans, effort
        plans = {span.plan.name: span.plan for span in spans}.values()
        self.tensor = source.name
        self._transposed = spans[0].output.transposed
        self.is_matrix = len(source.shape) > 1
        rows, columns = matrix_shape(source)
        self.lines, self.width = (columns, rows) if self._transposed else (rows, columns)
        self.format = _joined(plan.format for plan in plans)
        self.method = _joined(
            "copied" if plan.copied else outcome(plan.format, plan.method)[1] for plan in plans
        )
        self.group = min(self.width if span.grid is None else span.grid.group for span in spans)
        self.block = max(self.width if span.grid is None else span.grid.block for span in spans)
        grids = [span.grid for span in spans if span.grid is not None]
        self.signed = any(grid.codes.low < 0 for grid in grids)
        self.levels = len(np.unique(np.concatenate([grid.codes.ordered for grid in grids]))) if grids else 0

    @property
    def identity(self) -> Hashable:
        """What tells it from any other: file, tensor, and all that decides what becomes of it."""
        chosen = [
            (span.plan.name, span.plan.format, span.plan.method, span.plan.copied) for span in self._spans
        ]
        weights = [b"" if span.importance is None else span.importance.tobytes() for span in self._spans]
        return self._checkpoint.stamp, self.tensor, self._effort, *chosen, digest(b" ".join(weights))

    def values(self, start: int, stop: int) -> np.ndarray:
        """The values of lines start .. stop as they would be stored, float32 [lines, width]."""
        return np.concatenate([self.piece(*part).values for part in self.bounds(start, stop)])

    def codes(self, start: int, stop: int) -> np.ndarray:
        """The codes of the same weights, int16 [lines, width]. Raises ExportError where there are none."""
        found = []
        for part in self.bounds(start, stop):
            coded = self.piece(*part).coded
            if coded is None:
                raise ExportError(f"{self.tensor} becomes {self.format}, floats one by one: it has no codes.")
            found.append(coded.codes.astype(np.int16))
        return np.concatenate(found)

    def values_at(self, line: int, column: int) -> np.ndarray:
        """All values that the weight there could have in its group, rising, float32: the grid's levels.

        Raises ExportError where the weight is a float of its own.
        """
        coded = self.piece(line, line + 1).coded
        if coded is None:
            raise ExportError(f"{self.tensor} becomes {self.format}, floats one by one: it has no levels.")
        return coded.values_of(0, column // coded.grid.group)

    def bounds(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Lines start .. stop cut into pieces, in order; the cuts depend on nothing but the tensor."""
        step = max(1, (TRANSPOSED_PIECE if self._transposed else PIECE) // self.width)
        for span in self._spans:
            end = span.stop if stop is None else min(stop, span.stop)
            for first in range(max(start, span.first), end, step):
                yield first, min(first + step, end)

    def piece(self, start: int, stop: int) -> Piece:
        """Lines start .. stop, as `bounds` cuts them. Can be called from many threads.

        Raises NonFiniteError for a weight that is none, ExportError for one beyond a floating-point format.
        """
        span = next(span for span in self._spans if span.first <= start < span.stop)
        stored = self._read(span, start, stop)
        weights = as_float32(stored)
        refuse_not_finite(self._checkpoint, self._source, weights)
        if span.plan.format not in FORMATS:  # copied, and not in blocks of ours
            return Piece(start, stop, weights, weights)
        data = self._bytes(span, stored, start, stop)
        if span.grid is None:
            values = decode(data, span.plan.format, self.width)
            return Piece(start, stop, weights, _less(values, span.output.plus))
        codes, scales = span.grid.unpack(data)
        values = _less(span.grid.values(codes, scales), span.output.plus)
        return Piece(start, stop, weights, values, Coded(codes, span.grid, scales))

    def _read(self, span: _Span, start: int, stop: int) -> np.ndarray:
        """Lines of the source, [lines, width] of float32 or as `read_halves` has them."""
        if self._transposed:
            return span.output.read(self._checkpoint, start, stop, halves=True)
        return read_rows(self._checkpoint, self._source, start, stop, halves=True)

    def _bytes(self, span: _Span, stored: np.ndarray, start: int, stop: int) -> np.ndarray:
        """What the output has for these lines, uint8 [lines, line's bytes]."""
        if span.plan.copied:
            return span.output.read_stored(self._checkpoint, start, stop)
        if span.output.plus:
            stored = as_float32(stored) + np.float32(span.output.plus)
        return encode_as_planned(stored, span.plan, span.importance, self._effort)


def _joined(names: Iterable[str]) -> str:
    return " and ".join(name for name in dict.fromkeys(names) if name)


def _less(values: np.ndarray, plus: float) -> np.ndarray:
    return values - np.float32(plus) if plus else values


class Applied:
    """A recipe held against a model: which source tensor becomes what, as its `plan` says. Reads no weights.

    Raises what planning an export raises: ExportError, CheckpointError, RecipeError.
    """

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        self._checkpoint = checkpoint
        outputs = export_tensors(checkpoint)
        importance = read_recipes_importance(recipe)
        self.plan = make_plan(recipe, outputs, recipes_facts(recipe, importance))
        self._entries = recipes_entries(recipe, importance, self.plan)
        self._outputs = {
            output.name: (output, planned) for output, planned in zip(outputs, self.plan.tensors, strict=True)
        }
        self._of_source: dict[str, list[str]] = {}
        for output in outputs:
            for source in output.sources:
                self._of_source.setdefault(source, []).append(output.name)

    def quantized(self, name: str) -> Quantized:
        """What becomes of the tensor `name`: the source's, or GGUF's where it is one tensor of the source.

        Raises CheckpointError where there is no such tensor, NotInOutputError where it is not in the output.
        """
        source = self._source(name)
        found = self._of_source.get(source.name)
        if not found:
            raise NotInOutputError(
                f"{source.name} is not in the output: there is nothing to compare it with."
            )
        if not prod(source.shape):
            raise CheckpointError(f"{source.name} of {self._checkpoint.path} holds no weights.")
        if self._outputs[found[0]][0].part is None:  # else a whole copy of it in each
            found = [name if name in found else found[0]]
        spans = [span for output in found for span in self._spans(source, *self._outputs[output])]
        return Quantized(
            self._checkpoint, source, sorted(spans, key=lambda span: span.first), self.plan.effort
        )

    def _source(self, name: str) -> Tensor:
        tensors = self._checkpoint.tensors
        if name in tensors:
            return tensors[name]
        if name in self._outputs:
            sources = self._outputs[name][0].sources
            if len(sources) == 1:
                return tensors[sources[0]]
            if not sources:
                raise NotInOutputError(f"{name} is computed from the configuration: the source has none.")
            raise NotInOutputError(
                f"{name} is {len(sources)} tensors in the source ({sources[0]}, …): take one of them."
            )
        if any(other.name == name for other in self._checkpoint.others):
            raise NotInOutputError(f"{name} is outside of the text model, which alone is exported.")
        raise CheckpointError(f"{self._checkpoint.path} has no tensor {name}; open the model again.")

    def _spans(self, source: Tensor, output: OutputTensor, plan: TensorPlan) -> Iterator[_Span]:
        """The lines of `source` that go to `output`, matrix by matrix."""
        entry = self._entries.get(output.name)
        if len(output.sources) > 1:  # an expert, or a head's vector
            number = output.sources.index(source.name)
            importance = None if entry is None else entry.means_of(number)
            yield _Span(0, prod(source.shape[:-1]), output, plan, importance)
            return
        if entry is None and output.part is None:
            yield _Span(0, prod(output.shape[:-1]), output, plan, None)
            return
        height = output.shape[-2]
        first, whole = output.part or (0, height)
        for matrix in range(prod(output.shape[:-2])):
            before = matrix * whole + first
            importance = None if entry is None else entry.means_of(matrix)
            yield _Span(before, before + height, output, plan, importance)


def quantized(checkpoint: Checkpoint, recipe: Recipe, tensor: str) -> Quantized:
    """What `recipe` makes of the tensor, by its name in the source or in GGUF; see `Applied`."""
    return applied(checkpoint, recipe).quantized(tensor)


def applied(checkpoint: Checkpoint, recipe: Recipe) -> Applied:
    """`Applied`, the last ones remembered: views, each with the model open, ask for tensor after tensor."""
    stamp = None
    if recipe.imatrix and (file := Path(recipe.imatrix)).exists():
        stamp = file.stat().st_mtime_ns, file.stat().st_size
    return _applied(checkpoint, recipe.model_dump_json(), stamp)


@lru_cache(maxsize=8)
def _applied(checkpoint: Checkpoint, recipe: str, stamp: tuple[int, int] | None) -> Applied:
    """`stamp` tells the recipe's importance matrix from what may take its place."""
    return Applied(checkpoint, Recipe.model_validate_json(recipe))
