"""A figure is data: drawn in the window and in reports, and always a table and a CSV as well."""

import csv
import io
from typing import Self

from pydantic import BaseModel, model_validator


class Axis(BaseModel):
    """`unit` is empty for pure numbers."""

    name: str
    unit: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


class Series(BaseModel):
    """Bins: `x` are their lower edges, ascending, `y` what each holds; every bin is `width` wide."""

    name: str
    x: list[float]
    y: list[float]
    width: float

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r} has {len(self.x)} edges and {len(self.y)} values")
        return self

    def bin_at(self, x: float) -> int | None:
        """The place of the bin that holds `x`, in one step: bins lie side by side."""
        if not self.x or self.width <= 0:
            return None
        place = int((x - self.x[0]) // self.width)
        return place if 0 <= place < len(self.x) else None


class Figure(BaseModel):
    """`series` share the axes. What tells them apart is their names (the legend), never color alone."""

    title: str
    x: Axis
    y: Axis
    series: list[Series]

    def columns(self) -> list[str]:
        """The head of the table."""
        name = ["series"] if len(self.series) > 1 else []
        return [*name, f"{self.x.label} from", f"{self.x.label} to", self.y.label]

    def rows(self) -> list[tuple[str | float, ...]]:
        """One row a bin, series behind series; every figure as it is, not rounded."""
        return [
            (*([series.name] if len(self.series) > 1 else []), low, low + series.width, value)
            for series in self.series
            for low, value in zip(series.x, series.y, strict=True)
        ]

    def to_csv(self) -> str:
        """The table as CSV with its head; floats are written so that reading gives the same ones."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns())
        writer.writerows(self.rows())
        return text.getvalue()
