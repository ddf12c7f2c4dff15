"""One view over a state and a reader that a test answers for."""

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot

from app.activations import ActivationsDesk
from app.job_desk import JobDesk
from app.jobs import JobBoard
from app.plotting import plotting
from app.state import State
from app.views.figure_slot import SETTLE_MS
from tests.app.reading import Asked, FakeReader
from tests.app.small_state import make_state


class Bench:
    """A state, a reader to answer for, and one view over them."""

    def __init__(self, qtbot: QtBot, state: State, reader: FakeReader, desk: ActivationsDesk) -> None:
        self.qtbot, self.state, self.reader, self.desk = qtbot, state, reader, desk

    def show(self, view: object) -> None:
        self.qtbot.addWidget(view)
        view.resize(900, 600)
        view.show()

    def select(self, place: int) -> None:
        self.state.select((self.state.rows[place].key,))

    def asked(self, count: int = 1) -> Asked:
        """The newest question, which is the `count`th."""
        self.qtbot.waitUntil(lambda: len(self.reader.figures) >= count)
        assert len(self.reader.figures) == count
        return self.reader.figures[-1]

    def nothing_more(self, count: int) -> None:
        self.qtbot.wait(2 * SETTLE_MS)
        assert len(self.reader.figures) == count


@pytest.fixture
def bench(qtbot: QtBot) -> Iterator[Bench]:
    plotting().load()
    qtbot.waitUntil(lambda: plotting().loaded)
    state, board = make_state(), JobBoard(command=["/nowhere/engine"])
    desk = ActivationsDesk(state, board, JobDesk(board, None, None))
    qtbot.waitUntil(lambda: state.plan is not None)
    yield Bench(qtbot, state, FakeReader(), desk)
    with qtbot.waitSignal(board.all_ended):
        board.close()
    state.finish()
