"""What is done with importance matrices, without a window or an engine: the test answers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, Signal
from pytestqt.qtbot import QtBot

from app.importance import ImportanceDesk
from app.job_record import JobRecord
from app.notice import Notice
from engine.api.events import Event, ImportanceRead, ImportanceSaved
from engine.api.importance import ImportanceSummary
from engine.api.jobs import CalibrateRequest, CalibrateResult
from engine.api.requests import Question
from tests.app.small_state import make_state

SOME, OTHER = Path("/m/some.gguf"), Path("/m/other.gguf")


class FakeInspection(QObject):
    """Keeps what was asked."""

    importance_found = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Question, Callable[[Event], None], Callable, Callable | None]] = []

    def ask(self, make, take, failed, refused=None, *, newest=False) -> None:
        self.asked.append((make(len(self.asked)), take, failed, refused))


class FakeBoard(QObject):
    finished = Signal(object)
    removed = Signal(list)


class Desk:
    """The desk of a small model, and what it said."""

    def __init__(self) -> None:
        self.state, self.inspection, self.board = make_state(), FakeInspection(), FakeBoard()
        self.desk = ImportanceDesk(self.state, self.inspection, self.board)
        self.said: list[str] = []
        self.notices: list[Notice] = []
        self.desk.said.connect(self.said.append)
        self.desk.notice.connect(self.notices.append)

    @property
    def questions(self) -> list[Question]:
        return [question for question, *_ in self.inspection.asked]

    def answer(self, windows: int = 7) -> None:
        """All that is asked for: matrices of so many windows."""
        for question, take, *_ in self.take_asked():
            summary = ImportanceSummary(
                files=question.files, entries=0, datasets=[], windows=windows, window=512,
                tensors=[], layers=[], unseen=[],
            )  # fmt: skip
            take(ImportanceRead(id=question.id, summary=summary))

    def fail(self, sentence: str) -> None:
        """The engine died over the only question."""
        [(_, _, failed, _)] = self.take_asked()
        failed(sentence)

    def refuse(self, sentence: str) -> None:
        [(_, _, _, refused)] = self.take_asked()
        refused(sentence)

    def take_asked(self) -> list:
        asked, self.inspection.asked = self.inspection.asked, []
        return asked

    def use(self, path: Path, windows: int = 7) -> None:
        self.desk.use(path)
        self.answer(windows)
        assert self.state.document.recipe.imatrix == str(path)

    def compute(self, output: Path, *, used: bool) -> None:
        """A job for the open model writes a matrix."""
        request = CalibrateRequest(model=str(self.state.path), output=str(output))
        record = JobRecord(1, state="running", request=request)
        if used:
            self.desk.use_when_done(record)
        record.state = "done"
        record.result = CalibrateResult(
            job="1", output=str(output), bytes=1, tensors=1, windows=1, tokens=1, unseen=[], seconds=1,
            peak_private_bytes=1, warnings=[],
        )  # fmt: skip
        self.board.finished.emit(record)

    @property
    def known(self) -> int:
        """The windows of the recipe's matrix, as the size of the file counts them."""
        return self.state.importance.metadata["quantize.imatrix.chunks_count"].value


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator[Desk]:
    made = Desk()
    yield made
    made.state.finish()


@pytest.mark.parametrize("used", [False, True])
def test_a_matrix_computed_again_into_its_file_is_read_again(shown: Desk, used: bool):
    shown.use(SOME, windows=7)
    assert (shown.desk.summary.windows, shown.known) == (7, 7)
    shown.compute(SOME, used=used)
    assert shown.desk.summary is None
    shown.answer(windows=8)
    assert (shown.desk.files, shown.desk.summary.windows, shown.known) == ((SOME,), 8, 8)


@pytest.mark.parametrize("used", [False, True])
def test_so_is_the_recipes_own_while_another_is_looked_at(shown: Desk, used: bool):
    shown.use(SOME, windows=7)
    shown.desk.view(OTHER)
    shown.answer()
    shown.compute(SOME, used=used)
    shown.answer(windows=8)
    assert shown.known == 8
    assert shown.desk.files == ((SOME,) if used else (OTHER,))


def test_what_is_used_again_is_read_again(shown: Desk):
    """It may have been computed by a command."""
    shown.use(SOME, windows=7)
    shown.desk.view(OTHER)
    shown.answer()
    shown.use(SOME, windows=8)
    assert shown.known == 8


def test_a_job_that_writes_another_file_leaves_what_is_looked_at(shown: Desk):
    shown.use(SOME)
    shown.compute(OTHER, used=False)
    assert shown.desk.summary is not None
    assert not shown.questions


def test_reading_merging_and_saving_say_so_at_once(shown: Desk):
    shown.desk.use(SOME)
    assert (shown.said[-1], shown.state.awaited) == ("Reading some.gguf …", SOME)
    shown.answer()
    assert shown.state.awaited is None
    shown.desk.merge([OTHER])
    assert shown.said[-1] == "Reading other.gguf …"
    shown.take_asked()
    shown.desk.save(Path("/m/copy.gguf"))
    assert shown.said[-1] == "Saving copy.gguf …"


def test_nothing_is_awaited_any_more(shown: Desk):
    def leave_by(act: Callable[[], None]) -> None:
        shown.desk.use(SOME)
        assert shown.state.awaited == SOME
        act()
        assert shown.state.awaited is None
        shown.take_asked()

    leave_by(lambda: shown.refuse("It does not fit."))
    leave_by(lambda: shown.fail("The engine died."))
    leave_by(lambda: shown.desk.use(None))
    leave_by(shown.state.close)


def test_saving_spares_the_open_model_and_says_what_is_lost(shown: Desk):
    shown.use(SOME)
    output = Path("/m/some.dat")
    shown.desk.save(output)
    [(question, take, *_)] = shown.take_asked()
    assert (question.files, question.model) == ([str(SOME)], str(shown.state.path))
    take(ImportanceSaved(id=1, path=str(output), bytes=1, warnings=["the names are lost; GGUF keeps them"]))
    [notice] = shown.notices
    assert (notice.kind, notice.text) == ("warning", "the names are lost; GGUF keeps them.")


def test_an_engine_that_dies_says_nothing_about_a_matrix(shown: Desk):
    """Neither that it does not fit nor that it can be read without the model."""
    shown.desk.view(SOME)
    shown.fail("The engine died.")
    assert (shown.desk.summary, shown.desk.problem, shown.desk.lost) == (None, "The engine died.", True)
    assert not shown.questions
    assert not shown.desk.use_refusal(None)
    shown.desk.read_again()
    assert (shown.desk.problem, shown.desk.lost) == ("", False)
    shown.refuse("It does not fit.")
    [question] = shown.questions
    assert question.model is None
    shown.answer()
    assert (shown.desk.problem, shown.desk.lost) == ("It does not fit.", False)
    assert shown.desk.summary is not None


def test_a_matrix_that_was_to_be_used_is_tried_again(shown: Desk):
    shown.desk.use(SOME)
    shown.fail("The engine died.")
    [notice] = shown.notices
    assert notice.text == "The engine died. It is not used: the recipe stays without one."
    [(name, act)] = notice.actions
    assert name == "Try again"
    act()
    shown.answer()
    assert shown.state.document.recipe.imatrix == str(SOME)


def test_the_recipes_own_that_is_not_read_is_tried_again(shown: Desk):
    shown.state.set_importance(str(SOME))
    shown.fail("The engine died.")
    [notice] = shown.notices
    assert [name for name, _ in notice.actions] == ["Take it out", "Try again"]
    dict(notice.actions)["Try again"]()
    shown.answer(windows=9)
    assert shown.known == 9
