"""The strip along the bottom: what the recipe makes of the model, and whether it fits on this machine."""

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QHideEvent, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from app import theme
from app.background import Latest
from app.machine import Room, read_room
from app.plain import as_tip, printable
from app.settings import Settings
from app.state import State
from app.theme import ICON_SIZE, SPACE
from engine.api.needs import measure_memory, quantize_memory
from engine.api.units import duration, size

READ_EVERY_MS = 5000
MEASURED_WINDOWS = 16
"""Windows that a run measures unless it is told otherwise."""


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
        self._read_room = read_room
        self._reader = Latest(self)
        self._reader.answered.connect(self._take_room)
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
        for fact in self.facts.values():
            fact.show_text("")
        if self._state.summary is None:
            path = self._state.path
            self.facts["size"].show_text(f"Opening {path.name}…" if path else "No model is open.")
        elif self._state.plan is None:
            self._show_source()
        else:
            self._show_plan()
            self._show_disk()
            self._show_memory()
            self._show_time()

    def _show_source(self) -> None:
        summary, phase = self._state.summary, self._state.phase
        assert summary is not None, "a model is open"
        self.facts["size"].show_text(size(summary.bytes), f"{summary.bytes:,} bytes in the source")
        if summary.parameters:
            bits = 8 * summary.bytes / summary.parameters
            self.facts["bits"].show_text(f"{bits:.3g} bits per weight", f"{bits:.6g} bits, scales and all")
        if phase == "inspect only":
            self.facts["ratio"].show_text("can be looked at, not exported", self._state.refusal, "info")
        else:
            self.facts["ratio"].show_text("plan being made…", "The size of the output is known in a moment")

    def _show_plan(self) -> None:
        summary, plan, after = self._state.summary, self._state.plan, self._state.file_bytes
        assert summary is not None, "a model is open"
        assert plan is not None, "a plan is made"
        if after is None:
            return
        self.facts["size"].show_text(
            f"{size(summary.bytes)} → {size(after)}",
            f"{summary.bytes:,} bytes in the source\n{after:,} bytes in the file: predicted, exact",
        )
        bits = plan.bits_per_weight
        before = 8 * summary.bytes / max(1, summary.parameters)
        self.facts["bits"].show_text(
            f"{bits:.2f} bpw", f"{bits:.6g} bits per weight, scales and all; {before:.6g} in the source"
        )
        ratio = summary.bytes / after
        text = f"{ratio:.1f} × smaller" if ratio >= 1 else f"{1 / ratio:.1f} × larger"
        self.facts["ratio"].show_text(text, f"{100 * after / summary.bytes:.3g} % of the source's bytes")

    def _show_disk(self) -> None:
        needed, room = self._state.file_bytes, self._room
        if needed is None or room is None or room.free is None:
            return
        tip = f"{needed:,} bytes needed, {room.free:,} bytes are free in {room.folder}"
        if needed > room.free:
            text = f"disk: needs {size(needed)}, {size(room.free)} are free in {room.folder}"
            self.facts["disk"].show_text(text, f"{tip}.\nFree some room, or choose another folder.", "error")
        else:
            self.facts["disk"].show_text(f"disk {size(needed)} of {size(room.free)} free", tip)

    def _show_memory(self) -> None:
        export, room = self._state.export, self._room
        if export is None or room is None or room.total is None or room.available is None:
            return
        needed = quantize_memory(export)
        if self._settings.measure:
            needed = max(needed, measure_memory(export, MEASURED_WINDOWS))
        tip = (
            f"About {needed:,} bytes at the peak, estimated from the shapes; "
            f"{room.available:,} of {room.total:,} bytes are available now"
        )
        if needed > room.available:
            text = f"memory: needs about {size(needed)}, {size(room.available)} are available"
            self.facts["memory"].show_text(text, f"{tip}.\nClose other programs, or do not measure.", "error")
        else:
            self.facts["memory"].show_text(f"memory ≈ {size(needed)} of {size(room.total)}", tip)

    def _show_time(self) -> None:
        plan, rate = self._state.plan, self._settings.rate
        if plan is None or not rate:
            return
        weights = sum(prod(tensor.shape) for tensor in plan.tensors)
        tip = f"Predicted: {weights:,} weights at the speed of the last run, {rate:,.3g} a second"
        self.facts["time"].show_text(f"≈ {duration(weights / rate)}", tip)


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

    @property
    def text(self) -> str:
        return self._label.text()

    def show_text(self, text: str, tip: str = "", mark: str = "") -> None:
        """`mark`: "error" for what does not fit, "info" for a note."""
        self.failed = mark == "error"
        self._label.setText(printable(text))
        self.setToolTip(as_tip(tip))
        self.setAccessibleName(f"{self._name}: {text}")
        self.setAccessibleDescription(tip)
        self._icon.setVisible(bool(mark))
        if mark:
            icon = theme.icon("warning-octagon", "error") if self.failed else theme.icon("info", "muted")
            self._icon.setPixmap(icon.pixmap(ICON_SIZE, ICON_SIZE))
        of = theme.colors()
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
