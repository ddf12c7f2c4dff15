"""What every test of the window stands on: no display, nothing of the user's, and nothing left behind."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
import shiboken6
from PySide6.QtCore import QCoreApplication, QEvent, QProcess, QSettings, QThread, QTimer
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app import theme
from app.engine_client import PATIENCE, Patience
from app.main_window import MainWindow
from app.plotting import plotting
from app.session import Session
from app.settings import Settings
from tests.app.bench import bench as bench
from tests.app.listening import fake
from tests.app.models import write_wide_gguf
from tests.app.watching import Watched

LEAVE_SECONDS = 10.0
"""How long what a test has closed may take to be gone."""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, settings and home of this test alone."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "home").mkdir()


@pytest.fixture(autouse=True)
def nothing_left(qapp: QApplication) -> Iterator[None]:
    """Fails a test that leaves threads, processes, running timers or top-level widgets behind."""
    before = _alive(qapp)
    yield
    deadline = time.monotonic() + LEAVE_SECONDS
    while True:
        _settle()
        left = _alive(qapp) - before
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert not left, f"left behind: {sorted(name for _, name in left)}"


def _settle() -> None:
    gc.collect()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QCoreApplication.processEvents()


def _alive(qapp: QApplication) -> set[tuple[int, str]]:
    """(identity, name) of everything that can leak; the one loader of plots goes on in the next test."""
    found = {(thread.ident or 0, f"thread {thread.name}") for thread in threading.enumerate()}
    found |= {(id(widget), f"widget {_describe(widget)}") for widget in qapp.topLevelWidgets()}
    for thing in gc.get_objects():
        # Its type, not isinstance: proxies of other libraries do things when they are asked.
        if not issubclass(type(thing), QTimer | QProcess | QThread) or not shiboken6.isValid(thing):
            continue
        if isinstance(thing, QTimer) and thing.isActive() and thing.parent() is not plotting():
            found.add((id(thing), f"timer {thing.objectName()} of {thing.parent()}"))
        if isinstance(thing, QProcess) and thing.state() != QProcess.ProcessState.NotRunning:
            found.add((id(thing), f"process {thing.program()}"))
        if isinstance(thing, QThread) and thing.isRunning() and thing is not qapp.thread():
            found.add((id(thing), f"thread {thing}"))
    return found | {(pid, f"child process {pid}") for pid in _children()}


def _describe(widget: QWidget) -> str:
    return f"{type(widget).__name__} {widget.objectName()} {widget.windowTitle()}"


def _children() -> set[int]:
    """Living child processes (zombies are gone: only nobody has asked yet)."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            for pid in task.read_text().split():
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.add(int(pid))
        except OSError:
            continue
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings in a file of this test."""
    return Settings(QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))


@pytest.fixture
def watch(qtbot: QtBot) -> Iterator[Callable[..., Watched]]:
    """Makes boards over fake engines whose jobs end as named (None: over the real engine)."""
    made: list[Watched] = []

    def make(end: str | None, patience: Patience = PATIENCE) -> Watched:
        command = None if end is None else fake("job", end)
        made.append(Watched(command, patience))
        return made[-1]

    yield make
    for watched in made:
        watched.board.close()
        qtbot.waitUntil(lambda board=watched.board: not board.active, timeout=20_000)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2,701 small tensors: its job lasts for a while."""
    return write_wide_gguf(tmp_path_factory.mktemp("wide") / "wide.gguf", blocks=300)


@pytest.fixture
def window(qtbot: QtBot, qapp: QApplication, settings: Settings) -> Iterator[MainWindow]:
    """The whole window over real engines, shown at 1280 × 800; closed and gone behind the test."""
    theme.apply_theme(qapp, "light")
    window = MainWindow(Session(settings))
    window.show()
    qtbot.waitExposed(window)
    window.session.start()
    yield window
    if shiboken6.isValid(window):
        close(qtbot, window)


def close(qtbot: QtBot, window: MainWindow) -> None:
    """Close a window as its user does, and wait until its engines are gone."""
    with qtbot.waitSignal(window.session.ended, timeout=30_000):
        window.close()
        if window.isVisible():  # jobs are running: it asks once
            window.close()
    window.deleteLater()
    window.session.deleteLater()
