"""A board of jobs for tests, and everything that it said."""

from pytestqt.qtbot import QtBot

from app.engine_client import Patience
from app.job_record import JobRecord
from app.jobs import JobBoard
from engine.api.jobs import JobSummary, QuantizeRequest
from engine.api.recipe import Choice, Recipe

JOB = "20250101-000000-000000"
REAL_MS = 60_000
"""Milliseconds that a job of the real engine may take on a slow machine."""


class Watched:
    """A board, and what it said of each record."""

    def __init__(self, command: list[str] | None, patience: Patience) -> None:
        self.board = JobBoard(command=command, patience=patience)
        self.added: list[JobRecord] = []
        self.changes: list[tuple[JobRecord, str]] = []
        self.finished: list[JobRecord] = []
        self.silences: list[tuple[JobRecord, bool]] = []
        self.board.added.connect(self.added.append)
        self.board.changed.connect(lambda record: self.changes.append((record, record.state)))
        self.board.finished.connect(self.finished.append)
        self.board.silent.connect(lambda record, silent: self.silences.append((record, silent)))


def request(model: str = "/models/llama", output: str = "/out/small.gguf") -> QuantizeRequest:
    return QuantizeRequest(model=model, output=output, recipe=Recipe(default=Choice(format="Q8_0")))


def summary(**changes: object) -> JobSummary:
    usual = {
        "id": JOB,
        "kind": "quantize",
        "state": "interrupted",
        "output": "/out/small.gguf",
        "created": "2025-01-01T00:00:00.000000+00:00",
        "saved": {"done": 3, "total": 7, "unit": "blocks"},
        "message": "stopped on request",
        "folder": "/jobs/1",
    }
    return JobSummary.model_validate(usual | changes)


def ended(qtbot: QtBot, watched: Watched, record: JobRecord, timeout: int = 20_000) -> None:
    qtbot.waitUntil(lambda: record in watched.finished, timeout=timeout)
    assert watched.finished == [record]
    assert watched.board.active == []


def states(records: list[JobRecord]) -> list[str]:
    return [record.state for record in records]
