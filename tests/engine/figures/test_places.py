"""Figures for places: the newest request counts, nothing stale is sent, and the engine is free meanwhile."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import pytest

from engine import places
from engine.activations import read_activations
from engine.api.events import Event, ExportPage, Failed, FigureRead, JobsListed, StatisticsRead
from engine.api.figures import Axis, Figure
from engine.api.jobs import ActivationsRequest
from engine.api.recipe import Choice, Recipe
from engine.api.requests import ListJobs, OpenModel, ReadFigure, ReadStatistics
from engine.api.views import HistogramOf, OutliersOf, PictureOf, View
from engine.capture import capture
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.figures import Drawn
from engine.inspecting import Inspector
from tests.tiny import write_llama

DOWN = "model.layers.1.mlp.down_proj.weight"
PATIENCE = 60.0


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_llama(tmp_path / "model")


class Asking:
    """An inspector and what it has sent."""

    def __init__(self, model: Path) -> None:
        self.sent: list[Event] = []
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._model = model
        self.inspector = Inspector(self._events.put)

    def ask(self, number: int, view: View, place: str = "one") -> None:
        self.inspector.answer(ReadFigure(id=number, model=str(self._model), place=place, view=view))

    def until(self, last: Callable[[Event], bool]) -> Event:
        """Take events up to that one."""
        while True:
            self.sent.append(self._events.get(timeout=PATIENCE))
            if last(self.sent[-1]):
                return self.sent[-1]

    def until_last(self, number: int) -> FigureRead:
        found = self.until(lambda event: isinstance(event, FigureRead) and event.last and event.id == number)
        assert isinstance(found, FigureRead)
        return found

    def close(self) -> None:
        """And take what was still sent."""
        self.inspector.close()
        while True:
            try:
                self.sent.append(self._events.get_nowait())
            except Empty:
                return


@pytest.fixture
def asking(model) -> Iterator[Asking]:
    made = Asking(model)
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("place ")]


class Gate:
    """Figures that wait: one of the tensor "slow" is drawn once at once, and again when `opened`."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def figures(self, checkpoint: Checkpoint, view: View, wanted: Callable[[], bool]) -> Iterator[Drawn]:
        assert isinstance(view, HistogramOf)
        figure = Figure(title=view.tensor, x=Axis(name="x"), y=Axis(name="y"), series=[])
        if view.tensor == "slow":
            yield Drawn(figure, None, 0, 2, last=False)
            self.reached.set()
            assert self.opened.wait(PATIENCE)
            yield Drawn(figure, None, 1, 2, last=False)  # whatever is wanted
            raise ValueError("a stale error")
        yield Drawn(figure, None, 2, 2, last=True)


@pytest.fixture
def gate(monkeypatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(places, "figures", made.figures)
    return made


def test_stale_results_never_follow_fresh_ones(asking, gate):
    asking.ask(1, HistogramOf(tensor="slow"))
    assert gate.reached.wait(PATIENCE)
    for number in range(2, 50):
        asking.ask(number, HistogramOf(tensor="quick"))
    asking.ask(50, HistogramOf(tensor="newest"))
    gate.opened.set()
    assert asking.until_last(50).figure.title == "newest"
    asking.close()
    assert [event.id for event in asking.sent] == [1, 50]
    assert not any(isinstance(event, Failed) for event in asking.sent)


def test_places_do_not_wait_for_each_other_nor_the_engine_for_them(asking, gate, model):
    asking.ask(1, HistogramOf(tensor="slow"))
    assert gate.reached.wait(PATIENCE)
    asking.ask(2, HistogramOf(tensor="quick"), place="another")
    asking.until_last(2)
    asking.inspector.answer(ListJobs(id=3))
    asking.until(lambda event: isinstance(event, JobsListed))
    gate.opened.set()
    failed = asking.until(lambda event: isinstance(event, Failed))
    assert (failed.id, failed.code) == (1, "defect")
    assert "a stale error" in failed.message


def test_another_model_drops_what_was_asked_of_the_last(asking, gate, model):
    asking.ask(1, HistogramOf(tensor="slow"))
    assert gate.reached.wait(PATIENCE)
    asking.inspector.answer(OpenModel(id=2, model=str(model)))
    gate.opened.set()
    asking.ask(3, HistogramOf(tensor="quick"))
    asking.until_last(3)
    asking.close()
    assert [event.id for event in asking.sent if isinstance(event, FigureRead | Failed)] == [1, 3]
    assert any(isinstance(event, ExportPage) for event in asking.sent)


def test_cells_lie_in_a_file_and_errors_have_their_request(asking, model):
    with open_checkpoint(model) as checkpoint:
        weights = checkpoint.read(DOWN)
    asking.ask(1, PictureOf(tensor=DOWN, height=64, width=160))
    answer = asking.until_last(1)
    np.testing.assert_array_equal(np.load(answer.path), weights)
    asking.ask(2, HistogramOf(tensor="absent"), place="two")
    failed = asking.until(lambda event: isinstance(event, Failed))
    assert (failed.id, failed.code) == (2, "user")
    assert "has no tensor absent" in failed.message
    asking.ask(3, OutliersOf(role="ffn_down"), place="two")
    values = np.load(asking.until_last(3).path)
    np.testing.assert_array_equal(values[1], np.abs(weights).max(axis=0))
    asking.close()
    assert not Path(answer.path).parent.exists()


def test_cells_of_a_stale_figure_are_not_left_behind(asking, monkeypatch, model):
    begun, go_on = threading.Event(), threading.Event()

    def drawn(checkpoint: Checkpoint, view: PictureOf, wanted: Callable[[], bool]) -> Iterator[Drawn]:
        for found in places_figures(checkpoint, view, lambda: True):
            if view.tensor == DOWN:
                begun.set()
                assert go_on.wait(PATIENCE)
            yield found

    places_figures = places.figures
    monkeypatch.setattr(places, "figures", drawn)
    asking.ask(1, PictureOf(tensor=DOWN))
    assert begun.wait(PATIENCE)
    asking.ask(2, PictureOf(tensor="model.norm.weight"))
    go_on.set()
    path = Path(asking.until_last(2).path)
    assert list(path.parent.iterdir()) == [path]
    assert [event.id for event in asking.sent] == [2]


def test_statistics_say_what_a_recipe_makes_of_a_tensor(asking, model):
    recipe = Recipe(default=Choice(format="Q4_0"))
    for number, wanted in enumerate((None, recipe)):
        ask = ReadStatistics(id=number, model=str(model), tensor="blk.1.ffn_down.weight", recipe=wanted)
        asking.inspector.answer(ask)
        found = asking.until(lambda event: isinstance(event, StatisticsRead))
        assert isinstance(found, StatisticsRead)
        assert (found.id, found.statistics.tensor) == (number, DOWN)
        error = found.statistics.error
        assert (error and error.format) == (wanted and "Q4_0")
    assert error is not None
    assert 0 < error.squared < 0.02


def test_activations_of_another_state_of_the_model_are_refused(asking, model, tmp_path):
    file = tmp_path / "prompt.activations"
    capture(ActivationsRequest(model=str(model), prompt="the first of a few", output=str(file)))
    view = HistogramOf(tensor=DOWN, source="activations", activations=str(file))
    asking.ask(1, view)
    asking.until_last(1)
    weights = model / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    asking.inspector.answer(OpenModel(id=2, model=str(model)))
    asking.ask(3, view)
    failed = asking.until(lambda event: isinstance(event, Failed))
    assert (failed.id, failed.code) == (3, "user")
    assert "another state" in failed.message


def test_statistics_say_what_reaches_a_tensor(asking, model, tmp_path):
    file = tmp_path / "prompt.activations"
    capture(ActivationsRequest(model=str(model), prompt="the first of a few", output=str(file)))
    for number, tensor in enumerate(("blk.1.ffn_down.weight", "blk.0.attn_k.weight", "output_norm.weight")):
        ask = ReadStatistics(id=number, model=str(model), tensor=tensor, activations=str(file))
        asking.inspector.answer(ask)
        found = asking.until(lambda event: isinstance(event, StatisticsRead))
        inputs = found.statistics.inputs
        if tensor.startswith("output_norm"):
            assert inputs is None
            continue
        with read_activations(file) as activations:
            layer = activations.layers[tensor]
            assert (inputs.ran, inputs.peaks) == (str(activations.ran), layer.peaks)
            assert inputs.absmax == layer.absmax == abs(inputs.peaks[0].value)
            cache = activations.caches[0]
        assert [(head.of, head.min, head.max) for head in inputs.cache] == (
            [("key", low.min(), high.max()) for low, high in zip(*cache.keys, strict=True)]
            if "attn_k" in tensor
            else []
        )
