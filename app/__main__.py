"""`python -m app [MODEL]`: the window. `bitwright` hands over to it."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from app import theme
from app.main_window import MainWindow
from app.session import Notice, Session
from app.settings import Settings

FRAMED_MS = 200
"""After this the window's frame is there, and its size known."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bitwright", description="Quantize and inspect language models.")
    parser.add_argument("model", nargs="?", type=Path, help="a model to open: a folder or a file")
    asked = parser.parse_args()
    if not _has_display():
        print(
            "error: there is no display for a window; `bitwright --help` lists the commands.", file=sys.stderr
        )
        return 2
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in a terminal: engines end with their stdin
    application = QApplication(sys.argv[:1])
    application.setApplicationName("Bitwright")
    application.setDesktopFileName("bitwright")
    application.setQuitOnLastWindowClosed(False)  # jobs note where they stand first
    settings = Settings()
    theme.apply_theme(application, settings.theme)
    session = Session(settings)
    window = MainWindow(session)
    sys.excepthook = _report_defects(session)
    window.show()
    QTimer.singleShot(FRAMED_MS, window, lambda: _fit(window))
    session.start()
    if asked.model is not None:
        session.open(asked.model)
    return application.exec()


def _fit(window: MainWindow) -> None:
    """The frame comes on top of the window's size, and a small screen has no room for it."""
    if not window.screen().availableGeometry().contains(window.frameGeometry()):
        window.showMaximized()


def _has_display() -> bool:
    """Qt aborts where it finds none, so look first."""
    if sys.platform != "linux" or os.environ.get("QT_QPA_PLATFORM"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _report_defects(
    session: Session,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """A hook that says in the window what went wrong in it: the program goes on."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        detail = "".join(traceback.format_exception(kind, error, trace))
        print(detail, file=sys.stderr)
        text = f"Something in the window failed ({kind.__name__}: {error}). What is saved is safe; report it."
        session.notice.emit(Notice("error", text, detail))

    return report


if __name__ == "__main__":
    sys.exit(main())
