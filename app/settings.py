"""What the program remembers between two starts: one typed object over `QSettings`."""

from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from PySide6.QtCore import QByteArray, QObject, QSettings, Signal
from PySide6.QtWidgets import QMainWindow

from app.theme import Mode
from engine.api.formats import DEFAULT_EFFORT, EFFORTS
from engine.api.needs import Speeds

RECENT_LENGTH = 12
MANY_WINDOWS = 200
"""Of a calibration text, of 512 tokens: enough for most models."""

DIGITS = 7
"""Of a number of windows, at most."""


class Settings(QObject):
    """Every value is checked as it is read: what a damaged file says instead counts as not set."""

    recent_changed = Signal()
    speeds_changed = Signal()

    def __init__(self, store: QSettings | None = None) -> None:
        """`store`: None is the user's own."""
        super().__init__()
        self._store = QSettings("Bitwright", "Bitwright") if store is None else store

    # -------------------------------------------------------------------------------- choices

    @property
    def theme(self) -> Mode:
        found = self._text("theme")
        return next((mode for mode in get_args(Mode) if mode == found), "system")

    @theme.setter
    def theme(self, mode: Mode) -> None:
        self._store.setValue("theme", mode)

    @property
    def output_folder(self) -> str:
        """Where the last file was written; empty: nothing was written yet."""
        return self._text("output_folder")

    @output_folder.setter
    def output_folder(self, folder: str) -> None:
        self._store.setValue("output_folder", folder)

    @property
    def measure(self) -> bool:
        """Whether a run measures what was lost."""
        return self._text("measure") != "false"

    @measure.setter
    def measure(self, wanted: bool) -> None:
        self._store.setValue("measure", "true" if wanted else "false")

    @property
    def effort(self) -> str:
        """How long encoders search where a recipe does not say."""
        found = self._text("effort")
        return found if found in EFFORTS else DEFAULT_EFFORT

    @effort.setter
    def effort(self, wanted: str) -> None:
        self._store.setValue("effort", wanted)

    @property
    def calibration_texts(self) -> list[str]:
        """The texts that an importance matrix was computed on last; none: the sample text."""
        return self._list("calibration_texts")

    @calibration_texts.setter
    def calibration_texts(self, paths: list[str]) -> None:
        self._store.setValue("calibration_texts", paths)

    @property
    def calibration_windows(self) -> int:
        """How many windows of them at most; 0: all."""
        found = self._text("calibration_windows")
        return int(found) if found.isdecimal() and len(found) < DIGITS else MANY_WINDOWS

    @calibration_windows.setter
    def calibration_windows(self, count: int) -> None:
        self._store.setValue("calibration_windows", str(count))

    @property
    def output_tensor(self) -> bool:
        """Whether the importance of the output matrix is computed, too."""
        return self._text("output_tensor") == "true"

    @output_tensor.setter
    def output_tensor(self, wanted: bool) -> None:
        self._store.setValue("output_tensor", "true" if wanted else "false")

    @property
    def use_importance(self) -> bool:
        """Whether the recipe gets a matrix that was computed for its model."""
        return self._text("use_importance") != "false"

    @use_importance.setter
    def use_importance(self, wanted: bool) -> None:
        self._store.setValue("use_importance", "true" if wanted else "false")

    @property
    def offered_job(self) -> str:
        """The interrupted job that was offered for resuming last."""
        return self._text("offered_job")

    @offered_job.setter
    def offered_job(self, job: str) -> None:
        self._store.setValue("offered_job", job)

    @property
    def speeds(self) -> Speeds | None:
        """How fast this machine is, as it was measured last; None: not yet."""
        try:
            found = Speeds.model_validate_json(self._text("speeds"))
        except ValidationError:
            return None
        rates = (found.read, found.write, found.multiply, *found.encode.values())
        return found if all(0.0 < rate < 1e18 for rate in rates) else None

    @speeds.setter
    def speeds(self, measured: Speeds) -> None:
        self._store.setValue("speeds", measured.model_dump_json())
        self.speeds_changed.emit()

    # ----------------------------------------------------------------------------- recent models

    @property
    def recent(self) -> list[str]:
        """Paths of the models opened last, the newest first."""
        return self._list("recent")[:RECENT_LENGTH]

    def add_recent(self, path: str | Path) -> None:
        """Put a model at the top of the list."""
        added = str(path)
        self._set_recent([added, *(old for old in self.recent if old != added)][:RECENT_LENGTH])

    def remove_recent(self, path: str | Path) -> None:
        self._set_recent([old for old in self.recent if old != str(path)])

    def _set_recent(self, paths: list[str]) -> None:
        if paths != self.recent:
            self._store.setValue("recent", paths)
            self.recent_changed.emit()

    # ----------------------------------------------------------------------------------- layout

    def save_layout(self, window: QMainWindow) -> None:
        """Remember size and place of the window and its docks."""
        self._store.setValue("geometry", window.saveGeometry())
        self._store.setValue("layout", window.saveState())

    def restore_layout(self, window: QMainWindow) -> bool:
        """Whether there was a layout, and the window could take it."""
        geometry, layout = self._bytes("geometry"), self._bytes("layout")
        return (not geometry.isEmpty() and window.restoreGeometry(geometry)) and window.restoreState(layout)

    def reset_layout(self) -> None:
        """Forget the layout; the window starts with its own the next time."""
        self._store.remove("geometry")
        self._store.remove("layout")

    # ---------------------------------------------------------------------------------- reading

    def _list(self, key: str) -> list[str]:
        found = self._store.value(key, [])
        listed = found if isinstance(found, list) else [found]  # an ini file gives a list of one as text
        return [text for text in listed if isinstance(text, str) and text]

    def _text(self, key: str) -> str:
        found = self._store.value(key, "")
        return found if isinstance(found, str) else ""

    def _bytes(self, key: str) -> QByteArray:
        found = self._store.value(key, QByteArray())
        return found if isinstance(found, QByteArray) else QByteArray()
