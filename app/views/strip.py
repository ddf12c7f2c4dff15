"""The strip along the bottom: what the recipe makes of the model, and whether it fits on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QHideEvent, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from app import theme
from app.background import Latest
from app.machine import Room, read_room
from app.plain import as_tip, printable
from app.planner import MEASURED_WINDOWS, Outlook
from app.settings import Settings
from app.state import State
from app.theme import ICON_SIZE, SPACE
from engine.api.model import ModelSummary
from engine.api.needs import Speeds, measure_seconds, measure_start, quantize_seconds
from engine.api.plan import ExportSummary, Plan
from engine.api.units import duration, rough, size

READ_EVERY_MS = 5000


@dataclass(frozen=True)
class Times:
    """Seconds; None where a speed that counts was not measured."""

    quantize: float | None
    measure: float


def estimate(export: ExportSummary, plan: Plan, speeds: Speeds, source_bytes: int) -> Times:
    """How long a run takes on a machine of these speeds. Goes through all tensors."""
    return Times(
        quantize_seconds(export, plan, speeds, source_bytes),
        # The original, and what it became.
        measure_start(export) + 2 * measure_seconds(export, speeds, MEASURED_WINDOWS),
    )


class Strip(QWidget):
    """Follows the state. `read_room` tells what the machine has; it is called beside the window's thread."""

    def __init__(
        self,
        state: State,
        settings: Settings,
        parent: QWidget | None = None,
        read_room: Callable[[str], Room] = read_room,
    ) -> None:
        super().__init__(parent)
        self._state, self._settings = state, settings
        self._folder = ""
        self._room: Room | None = None
        self._silent: set[str] = set()
        self._read_room = read_room
        self._reader = Latest(self)
        self._reader.answered.connect(self._take_room)
        self._times: Times | None = None
        self._timed: tuple[Outlook, Speeds] | None = None
        self._clock = Latest(self)
        self._clock.answered.connect(self._take_times)
        self.facts = {name: Fact(name) for name in ("size", "bits", "ratio", "disk", "memory", "time")}
        row = QHBoxLayout(self)
        row.setContentsMargins(4 * SPACE, 0, 4 * SPACE, 0)
        row.setSpacing(5 * SPACE)
        for fact in self.facts.values():
            row.addWidget(fact)
        row.addStretch(1)
        self.setFixedHeight(7 * SPACE)
        self.setAccessibleName("Size, bits and needs of the recipe")
        self._timer = QTimer(self, interval=READ_EVERY_MS)
        self._timer.timeout.connect(self._ask)
        state.model_changed.connect(self._follow_model)
        state.plan_changed.connect(self._refresh)
        settings.speeds_changed.connect(self._refresh)
        theme.notifier().changed.connect(self._refresh)
        self._follow_model()

    @property
    def text(self) -> str:
        """Everything it says, in one line."""
        return " · ".join(fact.text for fact in self.facts.values() if fact.text)

    def set_folder(self, folder: str | Path) -> None:
        """Where the output would go: the disk that must have room."""
        self._folder = str(folder)
        self._ask()

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()
        self._ask()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()
        super().hideEvent(event)

    def _follow_model(self) -> None:
        self._times = None
        self._ask()
        self._refresh()

    def _ask(self) -> None:
        path = self._state.path
        if path is not None and not self._reader.busy:
            folder = self._folder or self._settings.output_folder or str(path.absolute().parent)
            self._reader.ask(partial(self._read_room, folder))

    def _take_room(self, room: Room) -> None:
        self._room = room
        self._refresh()

    def _refresh(self) -> None:
        self._silent = set(self.facts)
        summary, outlook = self._state.summary, self._state.outlook
        if summary is None:
            path = self._state.path
            self._say("size", f"Opening {path.name}…" if path else "No model is open.")
        elif outlook is None:
            self._say_source(summary)
        else:
            self._say_size(summary, outlook)
            self._say_disk(outlook.file_bytes)
            self._say_memory(outlook)
            self._say_time(summary, outlook)
        for name in self._silent:
            self.facts[name].show_text("")

    def _say(self, name: str, text: str, tip: str = "", mark: str = "") -> None:
        self._silent.discard(name)
        self.facts[name].show_text(text, tip, mark)

    def _say_source(self, summary: ModelSummary) -> None:
        self._say("size", size(summary.bytes), f"{summary.bytes:,} bytes in the source")
        if summary.parameters:
            bits = 8 * summary.bytes / summary.parameters
            self._say("bits", f"{bits:.3g} bits per weight", f"{bits:.6g} bits, scales and all")
        if self._state.phase == "inspect only":
            self._say("ratio", "can be looked at, not exported", self._state.refusal, "info")
        else:
            self._say("ratio", "plan being made…", "The size of the output is known in a moment")

    def _say_size(self, summary: ModelSummary, outlook: Outlook) -> None:
        after, bits = outlook.file_bytes, outlook.bits_per_weight
        self._say(
            "size",
            f"{size(summary.bytes)} → {size(after)}",
            f"{summary.bytes:,} bytes in the source\n{after:,} bytes in the file: predicted, exact",
        )
        before = 8 * summary.bytes / max(1, summary.parameters)
        tip = f"{bits:.6g} bits per weight, scales and all; {before:.6g} in the source"
        self._say("bits", f"{bits:.2f} bpw", tip)
        ratio = summary.bytes / after
        text = f"{ratio:.1f} × smaller" if ratio >= 1 else f"{1 / ratio:.1f} × larger"
        self._say("ratio", text, f"{100 * after / summary.bytes:.3g} % of the source's bytes")

    def _say_disk(self, needed: int) -> None:
        room = self._room
        if room is None or room.free is None:
            return
        tip = f"{needed:,} bytes needed, {room.free:,} bytes are free in {room.folder}"
        if needed > room.free:
            text = f"disk: needs {size(needed)}, {size(room.free)} are free in {room.folder}"
            self._say("disk", text, f"{tip}.\nFree some room, or choose another folder.", "error")
        else:
            self._say("disk", f"disk {size(needed)} of {size(room.free)} free", tip)

    def _say_memory(self, outlook: Outlook) -> None:
        room = self._room
        if room is None or room.total is None or room.available is None:
            return
        needed = outlook.quantize_memory
        if self._settings.measure:
            needed = max(needed, outlook.measure_memory)
        tip = (
            f"About {needed:,} bytes at the peak, estimated from the shapes; "
            f"{room.available:,} of {room.total:,} bytes are available now"
        )
        if needed > room.available:
            text = f"memory: needs about {size(needed)}, {size(room.available)} are available"
            self._say("memory", text, f"{tip}.\nClose other programs, or do not measure.", "error")
        else:
            self._say("memory", f"memory ≈ {size(needed)} of {size(room.total)}", tip)

    def _say_time(self, summary: ModelSummary, outlook: Outlook) -> None:
        """What is known; what is not is worked out beside the window's thread."""
        export, speeds = self._state.export, self._settings.speeds
        if export is None or speeds is None:
            return
        if self._timed is None or self._timed[0] is not outlook or self._timed[1] != speeds:
            self._timed = outlook, speeds
            self._clock.ask(partial(estimate, export, outlook.plan, speeds, summary.bytes))
        times = self._times
        if times is None or times.quantize is None:
            return
        measured = times.measure if self._settings.measure else 0.0
        parts = f"quantize {duration(times.quantize)}"
        if measured:
            parts += f", measure {duration(measured)}"
        tip = f"Predicted from the speeds of this machine: {parts}"
        self._say("time", rough(times.quantize + measured), tip)

    def _take_times(self, times: Times) -> None:
        self._times = times
        self._refresh()


class Fact(QWidget):
    """A short text with a tool tip; with an icon and a color where it is bad news. Hidden without text."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._icon = QLabel()
        self._label = _ElidedLabel()
        self._label.setFont(theme.figures_font(self._label.font()))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE)
        row.addWidget(self._icon)
        row.addWidget(self._label)
        self.failed = False
        self._shown: tuple[str, str, str, theme.Colors] | None = None

    @property
    def text(self) -> str:
        return self._label.text()

    def show_text(self, text: str, tip: str = "", mark: str = "") -> None:
        """`mark`: "error" for what does not fit, "info" for a note."""
        of = theme.colors()
        if self._shown == (text, tip, mark, of):
            return
        self._shown = text, tip, mark, of
        self.failed = mark == "error"
        self._label.setText(printable(text))
        self.setToolTip(as_tip(tip))
        self.setAccessibleName(f"{self._name}: {text}")
        self.setAccessibleDescription(tip)
        self._icon.setVisible(bool(mark))
        if mark:
            icon = theme.icon("warning-octagon", "error") if self.failed else theme.icon("info", "muted")
            self._icon.setPixmap(icon.pixmap(ICON_SIZE, ICON_SIZE))
        palette = self._label.palette()
        palette.setColor(self._label.foregroundRole(), of.error if self.failed else of.text)
        self._label.setPalette(palette)
        self.setVisible(bool(text))


class _ElidedLabel(QLabel):
    """A label that ends in … where the room is short, instead of widening the window."""

    def __init__(self) -> None:
        super().__init__(textFormat=Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)

    def minimumSizeHint(self) -> QSize:
        return QSize(12 * SPACE, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 1, super().sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, self.width())
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        self.style().drawItemText(
            painter, self.rect(), flags, self.palette(), True, text, self.foregroundRole()
        )
        painter.end()
