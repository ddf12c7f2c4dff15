"""What an importance matrix says, as data: statistics by tensor and by layer, and experts without tokens.

The figures are those of `llama-imatrix --show-statistics`. Those of a tensor are taken over the mean squares
of its input columns (of all its experts that saw a token).
"""

import csv
import io

from pydantic import BaseModel, Field


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
    """The `experts` (by number) of a stack of `matrices` that saw no token of the text."""

    tensor: str
    matrices: int
    experts: list[int]

    def __str__(self) -> str:
        return f"{self.tensor.removesuffix('.weight')} ({numbers(self.experts)} of {self.matrices})"


class ImportanceSummary(BaseModel):
    """One importance matrix, or several merged. `warnings`: sentences about what does not fit a model."""

    files: list[str]
    datasets: list[str]
    windows: int
    window: int
    tensors: list[TensorStatistics]
    layers: list[LayerStatistics]
    unseen: list[Unseen]
    warnings: list[str] = Field(default_factory=list)

    def columns(self) -> list[str]:
        """The head of the table of tensors."""
        return list(TensorStatistics.model_fields)

    def rows(self) -> list[tuple[str | int | float | None, ...]]:
        """One row a tensor; every figure as it is, not rounded."""
        return [tuple(tensor.model_dump().values()) for tensor in self.tensors]

    def to_csv(self) -> str:
        """The table of tensors as CSV with its head; what is not known is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns())
        writer.writerows(self.rows())
        return text.getvalue()


class ImportanceColumns(BaseModel):
    """Mean squares of the columns of one tensor's seen experts, the largest first.

    `values`: the largest of each `width` columns in this order; of all `columns`.
    """

    tensor: str
    columns: int
    width: int
    values: list[float]


def unseen_named(unseen: list[Unseen], most: int = 6) -> str:
    """Which experts no token reached, in a sentence's half."""
    named = "; ".join(str(stack) for stack in unseen[:most])
    more = f"; and experts of {len(unseen) - most} more tensors" if len(unseen) > most else ""
    return f"no token of the calibration text reached these experts: {named}{more}"


def numbers(values: list[int], most: int = 12) -> str:
    """ "3, 5, 17", cut where there are many."""
    told = ", ".join(str(value) for value in values[:most])
    return told if len(values) <= most else f"{told} and {len(values) - most} more"
