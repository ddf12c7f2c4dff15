"""What the inspecting engine answers about the machine and its jobs; test_server.py has the rest."""

import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from engine import inspecting
from engine.api.jobs import QuantizeRequest
from engine.api.messages import (
    Event,
    ExportPage,
    ImportanceRead,
    JobsListed,
    ListJobs,
    MeasureSpeeds,
    OpenModel,
    ReadImportance,
    RemoveJobs,
    SpeedsMeasured,
)
from engine.api.needs import Speeds
from engine.api.recipe import Choice, Recipe
from engine.inspecting import Inspector
from engine.quantize import quantize
from resources import SAMPLE_MODEL
from tests.tiny import write_llama

SPEEDS = Speeds(encode={}, read=1e9, write=1e8, multiply=1e10)


class Answers:
    """What an inspector sent, to be waited for."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.inspector = Inspector(self._events.put, lambda: None)

    def next(self, kind: type) -> Event:
        """The next one of that kind; others before it are dropped."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                event = self._events.get(timeout=1)
            except Empty:
                continue
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__}")


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return write_llama(tmp_path / "model")


def test_speeds_are_measured_while_a_model_is_opened(model, monkeypatch):
    """However long that takes."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Speeds:
        begun.set()
        go_on.wait()
        return SPEEDS

    monkeypatch.setattr(inspecting, "speeds", slow)
    answers = Answers()
    answers.inspector.answer(MeasureSpeeds(id=1))
    answers.inspector.answer(OpenModel(id=2, model=str(model)))
    assert answers.next(ExportPage).id == 2
    assert begun.wait(60)
    go_on.set()
    assert answers.next(SpeedsMeasured) == SpeedsMeasured(id=1, speeds=SPEEDS)
    answers.inspector.close()


def test_an_importance_matrix_comes_with_its_statistics():
    answers = Answers()
    file = str(SAMPLE_MODEL / "imatrix.gguf")
    answers.inspector.answer(ReadImportance(id=3, files=[file, file], model=str(SAMPLE_MODEL)))
    found = answers.next(ImportanceRead)
    assert (found.id, found.summary.windows, len(found.summary.tensors)) == (3, 240, 28)
    assert found.summary.warnings == []


def test_jobs_are_removed_and_the_others_listed(model, tmp_path):
    for name in ("one", "two"):
        recipe = Recipe(default=Choice(format="Q8_0"))
        quantize(QuantizeRequest(model=str(model), output=str(tmp_path / name), recipe=recipe))
    answers = Answers()
    answers.inspector.answer(ListJobs(id=1))
    first, second = answers.next(JobsListed).jobs
    answers.inspector.answer(RemoveJobs(id=2, jobs=[first.id]))
    listed = answers.next(JobsListed)
    assert (listed.id, [job.id for job in listed.jobs]) == (2, [second.id])
    assert not Path(first.folder).exists()
    assert Path(first.output).exists()
