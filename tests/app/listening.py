"""An engine process for tests, and everything that it said."""

import os
import sys
from pathlib import Path

from pytestqt.qtbot import QtBot

from app.ending import Ending
from app.engine_client import PATIENCE, EngineProcess, Patience
from engine.api.events import Event, Hello

FAKE = Path(__file__).with_name("fake_engine.py")


def fake(*way: str) -> list[str]:
    """The command of a fake engine; without `site`, which takes half of a start."""
    return [sys.executable, "-S", str(FAKE), *way]


class Heard:
    """An engine, and everything that it emitted, in order."""

    def __init__(self, command: list[str] | None, patience: Patience = PATIENCE) -> None:
        self.engine = EngineProcess(command=command, patience=patience)
        self.events: list[Event] = []
        self.endings: list[Ending] = []
        self.silences: list[bool] = []
        self.late: list[Event] = []
        self.engine.received.connect(self._take)
        self.engine.ended.connect(self.endings.append)
        self.engine.silent.connect(self.silences.append)

    def _take(self, event: Event) -> None:
        (self.late if self.endings else self.events).append(event)

    @property
    def hello(self) -> Hello | None:
        return next((event for event in self.events if isinstance(event, Hello)), None)

    def start(self, qtbot: QtBot, *, until_hello: bool = True, timeout: int = 20_000) -> None:
        self.engine.start()
        if until_hello:
            qtbot.waitUntil(lambda: self.hello is not None, timeout=timeout)

    def end(self, qtbot: QtBot, timeout: int = 20_000) -> Ending:
        """Wait for the end, which must be the only one, with nothing behind it."""
        qtbot.waitUntil(lambda: bool(self.endings), timeout=timeout)
        [ending] = self.endings
        assert not self.late
        assert not self.engine.running
        return ending

    def pid(self) -> int:
        assert self.hello is not None
        return self.hello.pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
