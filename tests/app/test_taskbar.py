"""Progress in the title of the window and on its task bar entry."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.taskbar import LAUNCHER, TaskbarProgress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def window(qtbot: QtBot) -> QWidget:
    window = QWidget()
    window.setWindowTitle("tiny[*] · Bitwright")
    qtbot.addWidget(window)
    return window


def test_whole_percents_are_shown_once_each(window: QWidget):
    shown: list[int | None] = []
    progress = TaskbarProgress(window, shown.append)
    for fraction in (0.0, 0.001, 0.419, 0.4199, 1.0, 1.7, None, None):
        progress.set(fraction)
    assert shown == [0, 41, 100, None]


def test_the_title_carries_the_percentage_and_loses_it(window: QWidget):
    progress = TaskbarProgress(window, lambda percent: None)
    progress.set(0.42)
    assert window.windowTitle() == "42 % · tiny[*] · Bitwright"
    progress.set(0.43)
    assert window.windowTitle() == "43 % · tiny[*] · Bitwright"
    progress.set(None)
    assert window.windowTitle() == "tiny[*] · Bitwright"


def test_a_new_title_keeps_the_percentage(window: QWidget):
    progress = TaskbarProgress(window, lambda percent: None)
    progress.set(0.42)
    window.setWindowTitle("other[*] · Bitwright")
    assert window.windowTitle() == "42 % · other[*] · Bitwright"
    progress.set(None)
    assert window.windowTitle() == "other[*] · Bitwright"


def test_without_a_bus_nothing_is_sent_and_nothing_said(window: QWidget, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    TaskbarProgress(window).set(0.5)
    assert window.windowTitle().startswith("50 % · ")


def test_a_bus_that_is_gone_is_no_fault():
    assert "0.5" not in send({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent/bus"})


SEND = """
from PySide6.QtWidgets import QApplication, QWidget
from PySide6.QtCore import QTimer
app = QApplication([])
from app.taskbar import TaskbarProgress
window = QWidget()
TaskbarProgress(window).set(0.5)
QTimer.singleShot(0, app.quit)
app.exec()
from PySide6.QtDBus import QDBusConnection
QDBusConnection.disconnectFromBus("qt_default_session_bus")
"""


def send(environment: dict[str, str]) -> str:
    """What a process of its own says while it sets 50 %."""
    done = subprocess.run(
        [sys.executable, "-c", SEND],
        cwd=ROOT,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.skipif(
    not shutil.which("dbus-daemon") or not shutil.which("dbus-monitor"), reason="no D-Bus here"
)
def test_the_launcher_entry_gets_the_signal():
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().strip()
        monitor = subprocess.Popen(
            ["dbus-monitor", "--address", address, f"interface='{LAUNCHER}'"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert monitor.stdout is not None
        while "NameLost" not in monitor.stdout.readline():  # it listens from here on
            continue
        assert send({"DBUS_SESSION_BUS_ADDRESS": address}) == ""
        heard = ""
        while "progress-visible" not in heard:
            line = monitor.stdout.readline()
            assert line, f"the monitor ended: {heard}"
            heard += line
        assert 'string "application://bitwright.desktop"' in heard
        assert "double 0.5" in heard
    finally:
        for process in (monitor, daemon):
            process.terminate()
            process.communicate()
