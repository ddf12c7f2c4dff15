"""The list of jobs follows the disk while it can be seen, and the machine's speeds are measured once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.inspection import Inspection
from app.jobs import JobBoard
from app.settings import Settings
from app.state import State
from app.upkeep import Upkeep
from engine.api.needs import Speeds
from tests.app.listening import fake


class House:
    """An upkeep over a fake engine, in a hurry."""

    def __init__(self, settings: Settings) -> None:
        self.state, self.settings = State(), settings
        self.inspection = Inspection(command=fake("inspect"))
        self.board = JobBoard()
        self.upkeep = Upkeep(self.state, self.inspection, self.board, settings, self.board)
        self.upkeep._listing.setInterval(30)
        self.upkeep._measuring.setInterval(30)

    @property
    def jobs(self) -> list[str]:
        return [record.job[-2:] for record in self.board.records]


@pytest.fixture
def house(qtbot: QtBot, settings: Settings) -> Iterator[House]:
    house = House(settings)
    yield house
    house.upkeep.close()
    house.state.finish()
    with qtbot.waitSignal(house.inspection.closed, timeout=20_000):
        house.inspection.close()


def test_the_list_follows_the_disk_while_it_is_seen(qtbot, house):
    house.inspection.start()
    house.upkeep.watch(True)
    qtbot.waitUntil(lambda: house.jobs == ["00", "-2"])
    job = house.board.records[0].job
    house.inspection.remove([job], lambda left: None, lambda sentence: None)
    qtbot.waitUntil(lambda: house.jobs == ["-2"])
    house.upkeep.watch(False)
    assert not house.upkeep._listing.isActive()


def test_one_question_at_a_time(qtbot, house):
    asked = []
    house.inspection.start()
    house.inspection.jobs = lambda then, failed: asked.append(then)
    house.upkeep.watch(True)
    qtbot.waitUntil(lambda: len(asked) == 1)
    qtbot.wait(150)
    assert len(asked) == 1
    asked[0]([])
    qtbot.waitUntil(lambda: len(asked) == 2)


def test_no_engine_is_started_for_it(qtbot, house):
    house.upkeep.watch(True)
    qtbot.wait(150)
    assert house.inspection._engine is None


def test_a_dead_engine_is_not_asked_again_until_another_question_starts_one(qtbot, house):
    house.inspection.start()
    qtbot.waitUntil(lambda: house.inspection.idle)
    house.upkeep.watch(True)
    qtbot.waitUntil(lambda: bool(house.jobs))
    house.inspection._engine._process.kill()
    qtbot.waitUntil(lambda: house.inspection._engine is None)
    qtbot.wait(100)
    assert house.inspection._engine is None
    house.inspection.start()
    job = house.board.records[0]
    house.board.drop([job])
    qtbot.waitUntil(lambda: len(house.jobs) == 2)


def test_speeds_are_measured_once_behind_the_first_model(qtbot, house):
    measured = []
    house.inspection.speeds_measured.connect(measured.append)
    house.inspection.start()
    qtbot.wait(100)
    assert measured == []
    with qtbot.waitSignal(house.settings.speeds_changed):
        house.inspection.open(Path("/good"), house.state)
    assert isinstance(house.settings.speeds, Speeds)
    assert house.settings.speeds == measured[0]
    house.state.close()
    house.inspection.open(Path("/good"), house.state)
    qtbot.waitUntil(lambda: house.state.phase == "ready")
    qtbot.wait(150)
    assert len(measured) == 1


def test_speeds_are_not_measured_while_a_job_takes_the_machine(qtbot, house, monkeypatch):
    house.inspection.start()
    monkeypatch.setattr(JobBoard, "active", property(lambda self: ["a job"]))
    house.inspection.open(Path("/good"), house.state)
    qtbot.waitUntil(lambda: house.state.phase == "ready")
    qtbot.wait(150)
    assert house.settings.speeds is None
    monkeypatch.undo()
    qtbot.waitUntil(lambda: house.settings.speeds is not None)
