"""Progress where a minimized window shows it: its title, and its entry in the desktop's task bar or dock."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

PREFIX = re.compile(r"^\d+ % · ")
LAUNCHER = "com.canonical.Unity.LauncherEntry"
"""Understood by GNOME's dock extensions, KDE Plasma and others; who does not know it ignores it."""

DESKTOP_FILE = "application://bitwright.desktop"
OBJECT_PATH = "/org/bitwright/launcherentry"


class TaskbarProgress(QObject):
    """Watches over the title of one window: whoever sets it need not know of progress."""

    def __init__(self, window: QWidget, show: Callable[[int | None], None] | None = None) -> None:
        """`show` takes the percentage, None when nothing runs; the default tells the desktop."""
        super().__init__(window)
        self._window = window
        self._percent: int | None = None
        self._show = show or _desktop()
        window.windowTitleChanged.connect(self._mark_title)

    def set(self, fraction: float | None) -> None:
        """0 to 1; None: nothing runs."""
        percent = None if fraction is None else int(100 * min(max(fraction, 0.0), 1.0))
        if percent != self._percent:
            self._percent = percent
            self._mark_title(self._window.windowTitle())
            self._show(percent)

    def _mark_title(self, title: str) -> None:
        bare = PREFIX.sub("", title)
        wanted = bare if self._percent is None else f"{self._percent} % · {bare}"
        if wanted != title:
            self._window.setWindowTitle(wanted)


def _desktop() -> Callable[[int | None], None]:
    """How this desktop is told."""
    if sys.platform != "linux":
        return lambda percent: QGuiApplication.setBadgeNumber(percent or 0)
    return _launcher_entry() if _has_session_bus() else lambda percent: None


def _has_session_bus() -> bool:
    """Whether one runs: asking Qt would start one, and wait for it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return bool(os.environ.get("DBUS_SESSION_BUS_ADDRESS")) or bool(runtime and Path(runtime, "bus").exists())


def _launcher_entry() -> Callable[[int | None], None]:
    """Sends a signal on the session bus; the connection is made with the first. Nobody answers it."""

    def show(percent: int | None) -> None:
        from PySide6.QtDBus import QDBusConnection, QDBusMessage

        bus = QDBusConnection.sessionBus()
        if bus.isConnected():
            message = QDBusMessage.createSignal(OBJECT_PATH, LAUNCHER, "Update")
            state = {"progress": (percent or 0) / 100, "progress-visible": percent is not None}
            message.setArguments([DESKTOP_FILE, state])
            bus.send(message)

    return show
