"""The inspecting engine: questions, answers, late answers, and what becomes of them when it dies."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL

import pytest
from pytestqt.qtbot import QtBot

from app.ending import Ending
from app.engine_client import PATIENCE, Patience
from app.inspection import DEATHS, Inspection
from app.state import State
from engine.api.events import Hello
from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe
from engine.api.requests import ReadFigure, ReadImportance
from engine.api.views import HistogramOf, PictureOf
from tests.app.listening import fake
from tests.app.models import write_wide_gguf

FAKE = fake("inspect")
REAL_MS = 60_000


class Desk:
    """An inspection, the state it drives, and all it said."""

    def __init__(self, command: list[str] | None, patience: Patience = PATIENCE) -> None:
        self.inspection = Inspection(command=command, patience=patience)
        self.state = State()
        self.hellos: list[Hello] = []
        self.endings: list[Ending] = []
        self.refused: list[tuple[Path, str]] = []
        self.answers: list[object] = []
        self.sentences: list[str] = []
        self.inspection.ready.connect(self.hellos.append)
        self.inspection.failed.connect(self.endings.append)
        self.inspection.open_failed.connect(lambda path, why: self.refused.append((path, why)))

    def open(self, path: str) -> None:
        self.inspection.open(Path(path), self.state)

    def check(self, output: str) -> None:
        request = QuantizeRequest(model="/m", output=output, recipe=Recipe(default=Choice(format="Q8_0")))
        self.inspection.check(request, self.answers.append, self.sentences.append)

    def figure(self, folder: Path, tensor: str, place: str = "here", picture: bool = False) -> None:
        view = PictureOf(tensor=tensor) if picture else HistogramOf(tensor=tensor)
        self.inspection.ask(
            lambda number: ReadFigure(id=number, model=str(folder), place=place, view=view),
            lambda event: self.answers.append((event.figure.title, event.done)),
            self.sentences.append,
            newest=True,
        )


@pytest.fixture
def make_desk(qtbot: QtBot) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(command: list[str] | None = FAKE, patience: Patience = PATIENCE) -> Desk:
        desks.append(Desk(command, patience))
        return desks[-1]

    yield make
    for desk in desks:
        desk.state.finish()
        with qtbot.waitSignal(desk.inspection.closed, timeout=20_000):
            desk.inspection.close()


# ------------------------------------------------------------------------------------------- opening


def test_a_model_opens_by_pages(qtbot, make_desk):
    desk = make_desk()
    phases = []
    desk.state.model_changed.connect(lambda: phases.append((desk.state.phase, len(desk.state.rows))))
    desk.open("/good")
    qtbot.waitUntil(lambda: desk.state.phase == "ready")
    assert phases == [("opening", 0), ("headers", 3), ("ready", 3)]
    assert [row.key for row in desk.state.rows] == [f"blk.{block}.ffn_down.weight" for block in range(3)]
    assert desk.state.document.recipe is not None


def test_a_model_that_is_missing_closes_the_state(qtbot, make_desk):
    desk = make_desk()
    desk.open("/missing")
    qtbot.waitUntil(lambda: bool(desk.refused))
    assert desk.refused == [(Path("/missing"), "There is no model.")]
    assert desk.state.phase == "empty"


def test_a_model_without_an_output_can_be_looked_at(qtbot, make_desk):
    desk = make_desk()
    desk.open("/unexportable")
    qtbot.waitUntil(lambda: desk.state.phase == "inspect only")
    assert desk.state.refusal == "Nothing can write it."
    assert len(desk.state.rows) == 3
    assert desk.refused == []


def test_a_newer_open_drops_the_answers_to_the_older(qtbot, make_desk):
    desk = make_desk()
    desk.open("/late")
    desk.open("/unexportable")
    qtbot.waitUntil(lambda: desk.state.phase != "opening")
    qtbot.waitUntil(lambda: desk.state.phase == "inspect only")
    assert desk.state.path == Path("/unexportable")


def test_answers_to_a_model_that_was_closed_meanwhile_are_dropped(qtbot, make_desk):
    desk = make_desk()
    desk.open("/good")
    desk.state.close()
    desk.inspection.jobs(desk.answers.append)
    qtbot.waitUntil(lambda: bool(desk.answers))
    assert desk.state.phase == "empty"
    assert desk.refused == []


# ----------------------------------------------------------------------------------------- questions


def test_checks_and_jobs(qtbot, make_desk):
    desk = make_desk()
    desk.check("/a")
    desk.check("/refuse")
    desk.check("/b")
    desk.inspection.jobs(desk.answers.append)
    qtbot.waitUntil(lambda: len(desk.answers) == 3)
    first, second, jobs = desk.answers
    assert [first[0].message, second[0].message] == ["/a", "/b"]
    assert [job.id for job in jobs] == ["20250101-000000-000000", "20250101-000000-000000-2"]
    assert desk.sentences == ["There is no folder. Make it."]


def test_a_figure_comes_until_it_is_the_last(qtbot, make_desk, tmp_path):
    desk = make_desk()
    desk.figure(tmp_path, "slow")
    assert not desk.inspection.idle
    qtbot.waitUntil(lambda: len(desk.answers) == 2)
    assert desk.answers == [("slow", 1), ("slow", 2)]
    assert desk.inspection.idle


def test_of_figures_the_newest_of_each_place_is_answered_and_no_file_is_left(qtbot, make_desk, tmp_path):
    desk = make_desk()
    for name, place in (("one", "left"), ("two", "left"), ("other", "right"), ("three", "left")):
        desk.figure(tmp_path, name, place, picture=name in ("one", "two"))
    qtbot.waitUntil(lambda: len(desk.answers) == 2)
    assert desk.answers == [("other", 2), ("three", 2)]
    assert not list(tmp_path.glob("*.npy"))
    assert desk.sentences == []


def test_a_question_about_the_older_model_is_dropped_with_it(qtbot, make_desk, tmp_path):
    desk = make_desk()
    desk.figure(tmp_path, "one", picture=True)
    desk.open("/good")
    qtbot.waitUntil(lambda: desk.state.phase == "ready")
    assert desk.answers == desk.sentences == []
    assert not list(tmp_path.glob("*.npy"))


def test_removing_answers_with_what_is_left(qtbot, make_desk):
    desk = make_desk()
    desk.inspection.remove(["20250101-000000-000000"], desk.answers.append, desk.sentences.append)
    qtbot.waitUntil(lambda: bool(desk.answers))
    assert [job.id for job in desk.answers[0]] == ["20250101-000000-000000-2"]


def test_speeds_are_told_by_a_signal(qtbot, make_desk):
    desk = make_desk()
    with qtbot.waitSignal(desk.inspection.speeds_measured) as told:
        desk.inspection.measure_speeds()
    assert told.args[0].encode == {"Q4_K search best": 1e7}


def test_it_is_idle_between_questions(qtbot, make_desk):
    desk = make_desk()
    assert not desk.inspection.idle  # there is no engine
    desk.inspection.jobs(desk.answers.append)
    assert not desk.inspection.idle
    qtbot.waitUntil(lambda: bool(desk.answers))
    assert desk.inspection.idle


# ------------------------------------------------------------------------------------------- endings


def test_a_dead_engine_answers_what_is_open_and_is_started_by_the_next_question(qtbot, make_desk):
    desk = make_desk()
    desk.check("/die")
    desk.check("/a")
    qtbot.waitUntil(lambda: bool(desk.endings))
    assert [ending.how for ending in desk.endings] == ["crashed"]
    assert desk.sentences == [desk.endings[0].sentence] * 2
    assert len(desk.hellos) == 1
    desk.check("/b")
    qtbot.waitUntil(lambda: bool(desk.answers))
    assert len(desk.hellos) == 2


def test_what_cannot_be_is_told_apart_from_an_engine_that_died(qtbot, make_desk):
    desk, refused = make_desk(), []
    for name, told in (("broken", refused), ("deadly", desk.sentences)):
        desk.inspection.ask(
            lambda number, name=name: ReadImportance(id=number, files=[f"/{name}.dat"]),
            desk.answers.append,
            desk.sentences.append,
            refused.append,
        )
        qtbot.waitUntil(lambda told=told: len(told) == 1)
    assert refused == ["/broken.dat: is no importance matrix."]
    qtbot.waitUntil(lambda: bool(desk.endings))
    assert desk.sentences == [desk.endings[0].sentence]
    assert not desk.answers


def test_an_engine_that_dies_while_opening(qtbot, make_desk):
    desk = make_desk()
    desk.open("/deadly")
    qtbot.waitUntil(lambda: bool(desk.endings))
    assert "out of memory" in desk.state.refusal
    assert desk.state.phase == "inspect only"
    desk.check("/die")
    desk.open("/good")
    qtbot.waitUntil(lambda: len(desk.endings) == 2)
    assert [path for path, _ in desk.refused] == [Path("/good")]
    assert (desk.state.phase, desk.state.path) == ("inspect only", Path("/deadly"))  # what was open stays


def test_an_engine_that_dies_again_and_again_stays_down_until_asked(qtbot, make_desk):
    desk = make_desk()
    for death in range(DEATHS):
        desk.check("/die")
        qtbot.waitUntil(lambda death=death: len(desk.endings) == death + 1)
    assert "stays down" in desk.endings[-1].sentence
    desk.check("/a")
    assert "stays down" in desk.sentences[-1]
    assert len(desk.hellos) == DEATHS
    desk.inspection.start()
    desk.check("/a")
    qtbot.waitUntil(lambda: bool(desk.answers))


def test_an_engine_that_cannot_be_started(qtbot, make_desk):
    desk = make_desk(["/nowhere/engine"])
    desk.open("/good")
    qtbot.waitUntil(lambda: bool(desk.refused))
    assert desk.endings[0].how == "not started"
    assert desk.state.phase == "empty"


def test_an_engine_that_hangs_is_ended_and_says_so(qtbot, make_desk):
    desk = make_desk(patience=Patience(heartbeat=0.3, terminate=0.1, kill=0.1))
    desk.check("/hang")
    qtbot.waitUntil(lambda: bool(desk.endings))
    assert desk.sentences == ["The engine did not answer any more and was ended."]


def test_close_ends_it_without_calling_that_a_failure(qtbot, make_desk):
    desk = make_desk()
    desk.inspection.start()
    qtbot.waitUntil(lambda: bool(desk.hellos))
    desk.check("/a")
    with qtbot.waitSignal(desk.inspection.closed):
        desk.inspection.close()
    desk.check("/b")
    assert desk.endings == desk.answers == desk.sentences == []
    with pytest.raises(ProcessLookupError):
        os.kill(desk.hellos[0].pid, 0)


# -------------------------------------------------------------------------------------- the real one


def test_the_real_engine_opens_a_model_and_is_replaced_when_killed(qtbot, make_desk, tmp_path):
    model = write_wide_gguf(tmp_path / "wide.gguf", blocks=3)
    desk = make_desk(None)
    desk.open(str(model))
    qtbot.waitUntil(lambda: desk.state.phase == "ready", timeout=REAL_MS)
    names = [row.key for row in desk.state.rows]
    assert len(names) == 28
    os.kill(desk.hellos[0].pid, SIGKILL)
    qtbot.waitUntil(lambda: bool(desk.endings))
    assert desk.endings[0].how == "killed"
    desk.figure(model, names[1])
    qtbot.waitUntil(lambda: bool(desk.answers or desk.sentences), timeout=REAL_MS)
    assert names[1] in desk.answers[0][0]
    assert len(desk.hellos) == 2


def test_the_real_engine_measures_this_machine(qtbot, make_desk):
    desk = make_desk(None)
    with qtbot.waitSignal(desk.inspection.speeds_measured, timeout=REAL_MS) as told:
        desk.inspection.measure_speeds()
    speeds = told.args[0]
    assert speeds.encode
    assert min(speeds.read, speeds.write, speeds.multiply, *speeds.encode.values()) > 0
