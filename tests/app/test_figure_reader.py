"""Figures asked of the engine: the newest of each place counts, whatever comes late."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from app.figure_reader import Drawn, FigureReader
from app.inspection import Inspection
from app.plotting import plotting
from app.state import State
from engine.api.events import FigureRead, StatisticsRead
from engine.api.figures import Axis, Figure, HeatMap
from engine.api.requests import ReadFigure
from engine.api.statistics import WeightStatistics
from engine.api.views import HistogramOf, PictureOf
from tests.app.listening import fake
from tests.app.small_state import make_state


class Asked(Inspection):
    """Keeps what was asked; the test answers."""

    def __init__(self) -> None:
        super().__init__(command=["/nowhere/engine"])
        self.requests: list[ReadFigure] = []
        self.takes: list[Callable] = []
        self.fails: list[Callable] = []

    def ask(self, make, take, failed, refused=None, *, newest=False) -> None:
        assert newest
        self.requests.append(make(len(self.requests)))
        self.takes.append(take)
        self.fails.append(failed)


class Reading:
    """A reader over a model of three tensors, and what it handed out."""

    def __init__(self, inspection: Inspection, state: State) -> None:
        self.inspection, self.state = inspection, state
        self.reader = FigureReader(state, inspection)
        self.drawn: list[Drawn] = []
        self.sentences: list[str] = []

    def ask(self, tensor: str, place: str = "here", picture: bool = False) -> None:
        view = PictureOf(tensor=tensor) if picture else HistogramOf(tensor=tensor)
        self.reader.figure(place, view, self.drawn.append, self.sentences.append)

    @property
    def titles(self) -> list[str]:
        return [drawn.figure.title for drawn in self.drawn]


@pytest.fixture
def loaded(qtbot: QtBot) -> None:
    plotting().load()
    qtbot.waitUntil(lambda: plotting().loaded)


@pytest.fixture
def reading(loaded) -> Iterator[Reading]:
    state = make_state()
    yield Reading(Asked(), state)
    state.finish()


def answer(title: str, path: str = "", done: int = 2, last: bool = True) -> FigureRead:
    axes = {"x": Axis(name="x"), "y": Axis(name="y")}
    figure: Figure | HeatMap = Figure(title=title, series=[], **axes)
    if path:
        figure = HeatMap(title=title, z=Axis(name="z"), height=1, width=2, **axes)
    return FigureRead(id=1, figure=figure, path=path, done=done, total=2, last=last)


def test_a_late_answer_to_an_older_question_never_shows(reading):
    reading.ask("one")
    reading.ask("two")
    first, second = reading.inspection.takes
    second(answer("two", done=1, last=False))
    first(answer("one"))
    reading.inspection.fails[0]("too late")
    second(answer("two"))
    assert reading.titles == ["two", "two"]
    assert [drawn.last for drawn in reading.drawn] == [False, True]
    assert reading.sentences == []


def test_places_do_not_disturb_each_other(reading):
    reading.ask("one", "left")
    reading.ask("two", "right")
    for take, title in zip(reading.inspection.takes, ("one", "two"), strict=True):
        take(answer(title))
    assert reading.titles == ["one", "two"]


def test_what_nobody_waits_for_is_deleted_unread(reading, tmp_path: Path):
    reading.ask("one", picture=True)
    path = tmp_path / "late.npy"
    np.save(path, np.zeros((1, 2), np.float32))
    reading.reader.drop("here")
    reading.inspection.takes[0](answer("one", str(path)))
    assert reading.drawn == []
    assert not path.exists()


def test_the_values_of_a_heat_map_are_loaded_and_their_file_deleted(reading, tmp_path: Path):
    reading.ask("one", picture=True)
    path = tmp_path / "values.npy"
    np.save(path, np.array([[1, 2]], np.float32))
    reading.inspection.takes[0](answer("one", str(path)))
    [drawn] = reading.drawn
    assert drawn.values is not None
    assert drawn.values.tolist() == [[1.0, 2.0]]
    assert not path.exists()


def test_a_file_that_is_lost_says_so(reading, tmp_path: Path):
    reading.ask("one", picture=True)
    reading.inspection.takes[0](answer("one", str(tmp_path / "lost.npy")))
    assert "cannot be read" in reading.sentences[0]


def test_another_model_drops_all(reading, qtbot: QtBot):
    reading.ask("one")
    with qtbot.waitSignal(reading.reader.dropped):
        reading.state.opening(Path("/models/other"))
    reading.inspection.takes[0](answer("one"))
    assert reading.drawn == []


def test_one_that_cannot_be_opened_drops_nothing(reading):
    """The engine forgets what was asked when it is told to open: it is asked again."""
    reading.ask("one")
    reading.ask("two", "there")
    reading.inspection.takes[1](answer("two"))
    reading.inspection.open_failed.emit(Path("/models/other"), "There is none.")
    assert [request.view.tensor for request in reading.inspection.requests] == ["one", "two", "one"]
    reading.inspection.takes[2](answer("one"))
    assert reading.titles == ["two", "one"]


def test_statistics_have_a_generation_too(reading):
    found: list[WeightStatistics] = []
    for tensor in ("one", "two"):
        reading.reader.statistics(tensor, None, None, found.append, reading.sentences.append)
    figures = dict.fromkeys(("min", "max", "mean", "std", "absmax", "kurtosis", "zeros"), 0.0)
    counts = dict.fromkeys(("count", "beyond_sigmas", "large", "outlier_ratio"), 0)
    for take, tensor in zip(reversed(reading.inspection.takes), ("two", "one"), strict=True):
        told = {"tensor": tensor, "role": "down", "block": 0, "shape": (1,), "dtype": "F32"}
        told |= {"percentiles": [], "outlier_channels": []}
        take(StatisticsRead(id=1, statistics=WeightStatistics.model_validate(told | figures | counts)))
    assert [statistics.tensor for statistics in found] == ["two"]


def test_over_an_engine(qtbot: QtBot, loaded, tmp_path: Path):
    """Two answers to one question, then one that comes behind the answer to a newer question."""
    state, inspection = make_state(), Inspection(command=fake("inspect"))
    state.path = tmp_path
    reading = Reading(inspection, state)
    reading.ask("slow", picture=True)
    qtbot.waitUntil(lambda: len(reading.drawn) == 2)
    rough, fine = (drawn.values for drawn in reading.drawn)
    assert np.isnan(rough[2]).all()
    assert np.isfinite(fine).all()
    reading.ask("late", picture=True)
    reading.ask("newer", picture=True)
    reading.ask("broken", "elsewhere")
    qtbot.waitUntil(lambda: bool(reading.sentences))
    assert reading.titles[2:] == ["newer"]
    assert reading.sentences == ["There is no broken."]
    assert not list(tmp_path.glob("*.npy"))
    with qtbot.waitSignal(inspection.closed, timeout=20_000):
        inspection.close()
    state.finish()
