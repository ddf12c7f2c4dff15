"""What one can look at of a model: each answered with a figure, in the window and by `bitwright plot`."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from engine.api.recipe import Recipe

Source = Literal["weights", "activations"]
Scope = Literal["tensor", "output", "input", "group"]
"""Of a matrix as a whole, an output channel (a row), an input channel (a column), a group within a row."""

Metric = Literal["absmax", "kurtosis", "ratio", "error"]
"""By channel: the largest magnitude, the kurtosis, the largest magnitude over the median channel's, or what a
recipe loses: squared errors over squared weights."""


class HistogramOf(BaseModel):
    """How values are distributed: a `Figure`, first a rough one where the exact one takes long.

    `tensor`: a name in the source or in GGUF. `index`: which channel, or which group counted row by row.
    With `recipe` what its format makes of the weights is laid over them, with clip range and levels of the
    grid. `activations`: the file of their statistics; `tensor` is then the matrix whose inputs are meant.
    `bins`: at least so many, more where a few outliers would leave the rest in one. Groups are those of the
    recipe's format, without one 32 weights.
    """

    kind: Literal["histogram"] = "histogram"
    source: Source = "weights"
    tensor: str
    scope: Scope = "tensor"
    index: int = Field(0, ge=0)
    bins: int = Field(400, ge=2, le=4000)
    recipe: Recipe | None = None
    activations: str | None = None


class OutliersOf(BaseModel):
    """Input channels by layer: a `HeatMap`, one row a block for the tensors of one `role`.

    `role`: as the GGUF name says it without block and "weight" ("ffn_down"), or in activations "output" of
    blocks. Comes again and again while the model is read, rows not read yet NaN. `recipe`: whose errors, of
    weights alone; tensors that are not in the output have none.
    """

    kind: Literal["outliers"] = "outliers"
    source: Source = "weights"
    role: str
    metric: Metric = "absmax"
    recipe: Recipe | None = None
    activations: str | None = None


class PictureOf(BaseModel):
    """A part of one matrix: a `HeatMap` of at most `height` x `width` cells.

    `what`: its values, what the recipe's format makes wrong of them, or the codes they are stored as.
    Rows and columns from first to stop (0: to the end). Of `activations`, the file of a prompt's: token by
    token the inputs of the matrix, or what the recipe makes wrong of its outputs; these have no codes.
    """

    kind: Literal["picture"] = "picture"
    source: Source = "weights"
    tensor: str
    what: Literal["value", "error", "code"] = "value"
    first_row: int = Field(0, ge=0)
    stop_row: int = Field(0, ge=0)
    first_column: int = Field(0, ge=0)
    stop_column: int = Field(0, ge=0)
    height: int = Field(512, ge=1, le=4096)
    width: int = Field(1024, ge=1, le=4096)
    recipe: Recipe | None = None
    activations: str | None = None


class ErrorOf(BaseModel):
    """What a recipe loses of one tensor: squared errors over the mean's squared weights, by channel (a
    `Figure`) or by group of the format (a `HeatMap`, rows x groups).

    Of `activations`, the file of their statistics: of the outputs, by the input channel that the errors come
    from; of a prompt's also by output channel and by token.
    """

    kind: Literal["error"] = "error"
    source: Source = "weights"
    tensor: str
    scope: Literal["output", "input", "group", "token"] = "input"
    recipe: Recipe
    activations: str | None = None


View = Annotated[HistogramOf | OutliersOf | PictureOf | ErrorOf, Field(discriminator="kind")]
