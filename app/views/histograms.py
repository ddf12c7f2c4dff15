"""The tab of histograms: how weights or inputs of the selected tensor are distributed; some side by side."""

from math import prod

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.activations import ActivationsDesk
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written
from app.plain import as_tip, printable
from app.state import Row, State
from app.views.activations_offer import ActivationsLine, ActivationsOffer
from app.views.figure import FigureView
from app.views.hint import Hint
from app.views.parts import button, named
from app.views.tensor_view import TensorView
from engine.api.figures import Figure
from engine.api.views import HistogramOf, Scope, View

MOST_PINNED = 4
MOST_GROUPS = 2**31 - 1
PRESENT_SHARE, PINNED_SHARE = 3, 2

SCOPES: dict[Scope, str] = {
    "tensor": "Whole tensor",
    "output": "Output channel",
    "input": "Input channel",
    "group": "Group",
}


class HistogramsView(TensorView):
    """The present histogram above, those that were pinned below it."""

    def __init__(self, state: State, reader: FigureReader, desk: ActivationsDesk) -> None:
        self._desk = desk
        self.pinned: list[Pinned] = []
        super().__init__("Histograms", state, reader, "first, rough: {share:.0f} % is read")
        self.slot.dress = self._dress
        self._make_controls()
        state.channel_changed.connect(self._take_channel)
        desk.changed.connect(self.follow)
        reader.dropped.connect(self._unpin_all)

    # ------------------------------------------------------------------------------ its making

    def _make_hint(self) -> Hint:
        self.offer = ActivationsOffer(self._desk)
        return Hint(self._title, [self.layers, self.again], self.offer)

    def _make_controls(self) -> None:
        self.source = named(QComboBox(), "What is counted")
        self.source.addItem("Weights", "weights")
        self.source.addItem("Activations", "activations")
        self.source.setToolTip("The tensor's weights, or the inputs that it is multiplied with on a text")
        self.scope = named(QComboBox(), "Of which part of the tensor")
        for scope, text in SCOPES.items():
            self.scope.addItem(text, scope)
        self.scope.setToolTip(
            "All of the tensor, one output channel (a row), one input channel (a column), or one group of "
            "weights that share a scale, counted row by row"
        )
        self.number = named(QSpinBox(), "Number of the channel or group")
        self.number.setGroupSeparatorShown(True)
        self.number.setKeyboardTracking(False)
        self.number.setToolTip("Which one, from 0")
        self.quantized = named(QCheckBox("Quantized over it"), "Quantized over it")
        self.quantized.setToolTip("Lay over it what the recipe's format makes of the weights")
        self.percentiles = named(QCheckBox("Percentiles"), "Percentiles")
        self.percentiles.setToolTip("Mark the percentiles from 0.1 to 99.9 %")
        self.levels = named(QCheckBox("Levels"), "Levels and clip range")
        self.levels.setToolTip("Mark the levels of the format's grid and the range that it can hold")
        self.pin = button("Pin", "Keep this histogram below, beside up to three others")
        self.pin.setIcon(theme.icon("push-pin"))
        self.pin.clicked.connect(self._pin)
        for box in (self.source, self.scope):
            box.currentIndexChanged.connect(self.follow)
        self.number.valueChanged.connect(self.follow)
        self.number.hide()
        self.percentiles.setChecked(True)
        self.quantized.toggled.connect(self.follow)
        for mark in (self.percentiles, self.levels):
            mark.toggled.connect(self.slot.draw)
        parts = (self.source, self.scope, self.number, self.quantized, self.percentiles, self.levels)
        for part in parts:
            self.controls.addWidget(part)
        self.controls.addStretch()
        self.controls.addWidget(self.pin)
        self._refresh()

    def _fill(self, column: QVBoxLayout) -> None:
        upper = QWidget()
        top = QVBoxLayout(upper)
        top.setContentsMargins(0, 0, 0, 0)
        top.setSpacing(theme.SPACE)
        self.line = ActivationsLine(self._desk)
        top.addWidget(self.line)
        super()._fill(top)
        self._row = QHBoxLayout()
        self._row.setContentsMargins(0, theme.SPACE, 0, 0)
        self._row.setSpacing(2 * theme.SPACE)
        self.below = QWidget()
        self.below.setLayout(self._row)
        self.below.hide()
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.setAccessibleName("Present and pinned histograms")
        parts.setChildrenCollapsible(False)
        parts.addWidget(upper)
        parts.addWidget(self.below)
        parts.setStretchFactor(0, PRESENT_SHARE)
        parts.setStretchFactor(1, PINNED_SHARE)
        column.addWidget(parts, 1)

    # ------------------------------------------------------------------------------- what is shown

    @property
    def _of_activations(self) -> bool:
        return self.source.currentData() == "activations"

    def _promise(self) -> str:
        return "how its weights are distributed is shown here."

    def _follow(self, row: Row, tensor: str) -> None:
        self._limit(row)
        self.line.setVisible(self._of_activations)
        if self._of_activations and not self._desk.ready:
            self._show_hint(self._desk.sentence)
            self.offer.show()
        else:
            super()._follow(row, tensor)

    def _offer(self, sentence: str, *offered: object) -> None:
        self.offer.hide()
        super()._offer(sentence, *offered)

    def _limit(self, row: Row) -> None:
        """What can be chosen for this tensor."""
        scope = self._offer_scopes()
        rows, columns = prod(row.shape[:-1]), row.shape[-1] if row.shape else 1
        most = {"tensor": 0, "output": rows - 1, "input": columns - 1}.get(scope, rows * columns - 1)
        before = self.number.blockSignals(True)
        self.number.setMaximum(max(0, min(most, MOST_GROUPS)))
        self.number.blockSignals(before)
        for part in (self.quantized, self.levels):
            part.setVisible(not self._of_activations)
        self.number.setVisible(scope != "tensor")
        lossy = as_written(self._state, row) is not None and not self._of_activations
        self.quantized.setEnabled(lossy)

    def _offer_scopes(self) -> Scope:
        """What of a tensor there can be: activations are known as a whole, and of each input channel."""
        before = self.scope.blockSignals(True)
        items = self.scope.model()
        assert isinstance(items, QStandardItemModel), "that of a combo box"
        for place, scope in enumerate(SCOPES):
            there = not self._of_activations or scope in ("tensor", "input")
            items.item(place).setEnabled(there)
            if not there and self.scope.currentIndex() == place:
                self.scope.setCurrentIndex(0)
        self.scope.blockSignals(before)
        chosen: Scope = self.scope.currentData()
        return chosen

    def _wanted(self, row: Row, tensor: str) -> View | str:
        over = self.quantized.isEnabled() and self.quantized.isChecked()
        scope = self.scope.currentData()
        return HistogramOf(
            source=self.source.currentData(),
            tensor=row.key if self._of_activations else tensor,
            scope=scope,
            index=self.number.value() if scope != "tensor" else 0,
            recipe=as_written(self._state, row) if over else None,
            activations=str(self._desk.file) if self._of_activations else None,
        )

    def _take_channel(self) -> None:
        """The channel that was marked elsewhere is the one that is looked at."""
        if self._state.channel is None:
            return
        for part in (self.scope, self.number):
            part.blockSignals(True)
        self.scope.setCurrentIndex(self.scope.findData("input"))
        self.number.setMaximum(MOST_GROUPS)
        self.number.setValue(self._state.channel)
        for part in (self.scope, self.number):
            part.blockSignals(False)
        self.follow()

    def _dress(self, drawn: Drawn) -> Drawn:
        """Marks as far as they are wanted."""
        figure = drawn.figure
        assert isinstance(figure, Figure), "a histogram"
        kinds = {"percentile"} if self.percentiles.isChecked() else set()
        kinds |= {"clip", "level"} if self.levels.isChecked() else set()
        marks = [mark for mark in figure.marks if mark.kind in kinds]
        return Drawn(figure.model_copy(update={"marks": marks}), None, drawn.done, drawn.total, drawn.last)

    def _take(self, drawn: Drawn) -> None:
        self._refresh()

    # --------------------------------------------------------------------------------- the pinned

    def _pin(self) -> None:
        if self.slot.shown is None or len(self.pinned) >= MOST_PINNED:
            return
        figure = self.slot.dress(self.slot.shown).figure
        assert isinstance(figure, Figure), "a histogram"
        pinned = Pinned(figure, self.figure.logarithmic.isChecked())
        pinned.close_button.clicked.connect(lambda: self._unpin(pinned))
        self._row.addWidget(pinned, 1)
        self.pinned.append(pinned)
        self._refresh()

    def _unpin(self, pinned: "Pinned") -> None:
        self._row.removeWidget(pinned)
        self.pinned.remove(pinned)
        pinned.hide()
        pinned.deleteLater()
        self._refresh()

    def _unpin_all(self) -> None:
        for pinned in tuple(self.pinned):
            self._unpin(pinned)

    def _refresh(self) -> None:
        full = len(self.pinned) >= MOST_PINNED
        self.below.setVisible(bool(self.pinned))
        self.pin.setEnabled(self.slot.shown is not None and not full)
        tip = "Keep this histogram below, beside up to three others"
        self.pin.setToolTip(f"{tip}: close one of the {MOST_PINNED} first" if full else tip)


class Pinned(QWidget):
    """A histogram that stays as it is until it is closed."""

    def __init__(self, figure: Figure, logarithmic: bool) -> None:
        super().__init__()
        name = printable(figure.title)
        title = named(QLabel(name, textFormat=Qt.TextFormat.PlainText), f"Pinned: {name}")
        title.setMinimumWidth(1)  # a long name must not widen the view
        title.setToolTip(as_tip(name))
        self.close_button = QToolButton(autoRaise=True)
        self.close_button.setIcon(theme.icon("x", "muted"))
        self.close_button.setToolTip("Close this histogram")
        self.close_button.setAccessibleName(f"Close the histogram {name}")
        self.figure = FigureView(f"Pinned histogram: {name}")
        self.figure.logarithmic.setChecked(logarithmic)
        head = QHBoxLayout()
        head.addWidget(title, 1)
        head.addWidget(self.close_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self.figure, 1)
        self.figure.show_figure(figure)
