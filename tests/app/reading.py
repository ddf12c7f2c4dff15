"""A reader of figures without an engine, and answers to give through it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PySide6.QtCore import QObject, Signal

from app.figure_reader import Drawn
from engine.api.figures import Axis, Figure, HeatMap, Mark, Series
from engine.api.recipe import Recipe
from engine.api.views import View


@dataclass(frozen=True)
class Asked:
    """One question."""

    place: str
    view: View
    take: Callable[[Drawn], None]
    fail: Callable[[str], None]


class FakeReader(QObject):
    """Keeps what was asked; the test answers."""

    dropped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[Asked] = []
        self.statistics_asked: list[tuple[str, Recipe | None, Callable, Callable]] = []
        self.activations_asked: list[Path | None] = []
        self.left: list[str] = []

    def figure(self, place: str, view: View, then: Callable, failed: Callable) -> None:
        self.figures.append(Asked(place, view, then, failed))

    def statistics(
        self,
        tensor: str,
        recipe: Recipe | None,
        activations: Path | None,
        then: Callable,
        failed: Callable,
    ) -> None:
        self.statistics_asked.append((tensor, recipe, then, failed))
        self.activations_asked.append(activations)

    def drop(self, place: str) -> None:
        self.left.append(place)


class FakeDesk(QObject):
    """Which activations are looked at: `file`."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.file: Path | None = None

    def take(self, file: Path) -> None:
        self.file = file
        self.changed.emit()


def drawn(last: bool = True, title: str = "weights") -> Drawn:
    """A histogram of two bins with a mark of each kind."""
    series = [Series(name="original", x=[-0.5, 0.0], y=[10.0, 16374.0], width=0.5)]
    marks = [Mark(kind="percentile", name="99 %", x=0.1), Mark(kind="clip", name="low", x=-0.4)]
    axes = {"x": Axis(name="weight"), "y": Axis(name="count")}
    return Drawn(Figure(title=title, series=series, marks=marks, **axes), None, 1, 2, last)


def heat(values: list[list[float]], last: bool = True, done: int = 1, **more: object) -> Drawn:
    """A heat map of these values."""
    cells = np.array(values, np.float32)
    axes = {"x": Axis(name="channel"), "y": Axis(name="block"), "z": Axis(name="abs-max")}
    usual = {"title": "outliers", "height": cells.shape[0], "width": cells.shape[1]}
    figure = HeatMap.model_validate(usual | axes | more)
    return Drawn(figure, cells, done, cells.shape[0], last)
