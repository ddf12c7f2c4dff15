"""What an importance matrix says, as data: statistics by tensor and by layer, and experts without tokens.

The figures are those of `llama-imatrix --show-statistics`. Those of a tensor are taken over the mean squares
of its input columns (of all its experts that saw a token).
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, Field

from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.tables import csv_text

FILE, DATASET = "quantize.imatrix.file", "quantize.imatrix.dataset"
ENTRIES, CHUNKS = "quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"
KEYS = (FILE, DATASET, ENTRIES, CHUNKS)
"""What llama-quantize writes into a file that it makes with an importance matrix (tools/quantize)."""

MOST = (1 << 32) - 1
"""The greatest number that these keys hold."""

Value = TypeVar("Value")


class TensorStatistics(BaseModel):
    tensor: str
    block: int | None
    matrices: int = Field(description="experts of a stack; 1 for a plain matrix")
    tokens: int = Field(description="that were summed, over all matrices")
    sum: float
    minimum: float
    maximum: float
    mean: float
    deviation: float = Field(description="standard deviation")
    active: float = Field(description="share of columns with a mean square above 1e-5")
    columns: int = Field(description="how many the figures are taken over")
    entropy: float = Field(description="in bits, of the columns' shares of the sum")
    entropy_share: float = Field(description="of the most that so many columns can have, log2(columns)")
    z_density: float = Field(description="share of columns more than one deviation above the mean")
    cosine: float | None = Field(
        None, description="cosine similarity of the sums with those of the same tensor in the block before"
    )


class LayerStatistics(BaseModel):
    """Means over the tensors of a block, weighted by their columns."""

    block: int
    sum: float
    z_density: float
    cosine: float | None = None


class Unseen(BaseModel):
    """The `experts` (by number) of a stack of `matrices` that saw no token of the text, or nothing but zeros.

    A plain matrix of which that is so is the one of its one.
    """

    tensor: str
    matrices: int
    experts: list[int]

    @property
    def plain(self) -> bool:
        return self.matrices == 1

    def __str__(self) -> str:
        if self.plain:
            return self.tensor.removesuffix(".weight")
        return f"{self.tensor.removesuffix('.weight')} ({numbers(self.experts)} of {self.matrices})"


class ImportanceSummary(BaseModel):
    """One importance matrix, or several merged. `warnings`: sentences about what does not fit a model.

    `entries`: how many tensors it knows, also such as the model has not.
    """

    files: list[str]
    entries: int
    datasets: list[str]
    windows: int
    window: int
    tensors: list[TensorStatistics]
    layers: list[LayerStatistics]
    unseen: list[Unseen]
    warnings: list[str] = Field(default_factory=list)

    def facts(self, path: str) -> "ImportanceFacts":
        """What a plan needs of it. `path`: the one file, as a recipe names it."""
        tensors = (tensor.tensor for tensor in self.tensors)
        return importance_facts(path, tensors, self.datasets, self.entries, self.windows)

    def columns(self) -> list[str]:
        """The head of the table of tensors."""
        return list(TensorStatistics.model_fields)

    def rows(self) -> list[tuple[str | int | float | None, ...]]:
        """One row a tensor; every figure as it is, not rounded."""
        return [tuple(tensor.model_dump().values()) for tensor in self.tensors]

    def to_csv(self) -> str:
        """The table of tensors as CSV with its head; what is not known is empty."""
        return csv_text(self.columns(), self.rows())


@dataclass(frozen=True)
class ImportanceFacts:
    """A matrix as far as a plan needs it: `path` as the recipe names it, the `tensors` that it knows.

    `metadata`: the keys of a file that was quantized with it.
    """

    path: str
    tensors: frozenset[str]
    metadata: dict[str, GgufValue]


def importance_facts(
    path: str, tensors: Iterable[str], datasets: Collection[str], entries: int, windows: int
) -> ImportanceFacts:
    """As llama-quantize: of several texts the first; what is not known is left out; numbers are u32.

    Files and texts are named without their folders, other than there: a published model must not tell how
    the folders of its maker's machine are called.
    """
    texts = {FILE: _without_folders(path), DATASET: _without_folders(next(iter(datasets), ""))}
    numbers = {ENTRIES: min(entries, MOST), CHUNKS: min(windows, MOST)}
    metadata = {key: GgufValue(GGUFValueType.STRING, text) for key, text in texts.items() if text}
    metadata |= {key: GgufValue(GGUFValueType.UINT32, count) for key, count in numbers.items() if count}
    return ImportanceFacts(path, frozenset(tensors), metadata)


def _without_folders(path: str) -> str:
    name = re.split(r"[/\\]", path)[-1]  # a text's may be of another system
    return os.fsencode(name).decode("utf-8", "replace")


def with_importance_keys(metadata: Mapping[str, Value], keys: Mapping[str, Value]) -> dict[str, Value]:
    """`metadata` with the keys of the matrix that is used, if one is: those of another one go."""
    kept = {key: value for key, value in metadata.items() if not (keys and key in KEYS)}
    return kept | dict(keys)


class ImportanceColumns(BaseModel):
    """Mean squares of the columns of one tensor's seen experts, the largest first.

    `values`: the largest of each `width` columns in this order; of all `columns`.
    """

    tensor: str
    columns: int
    width: int
    values: list[float]


def unseen_named(unseen: Sequence[Unseen], most: int = 6) -> list[str]:
    """Which experts and plain matrices no token, or nothing but zeros, reached: half a sentence each."""
    said = []
    stacks = [one for one in unseen if not one.plain]
    plain = [one for one in unseen if one.plain]
    if stacks:
        more = f"; and experts of {len(stacks) - most} more tensors" if len(stacks) > most else ""
        named = "; ".join(map(str, stacks[:most]))
        nothing = "no token of the calibration text, or nothing but zeros, reached these experts"
        said.append(f"{nothing}: {named}{more}")
    if plain:
        more = f" and {len(plain) - most} more" if len(plain) > most else ""
        named = ", ".join(map(str, plain[:most]))
        said.append(f"nothing but zeros reached these matrices: {named}{more}")
    return said


def numbers(values: list[int], most: int = 12) -> str:
    """ "3, 5, 17", cut where there are many."""
    told = ", ".join(str(value) for value in values[:most])
    return told if len(values) <= most else f"{told} and {len(values) - most} more"
