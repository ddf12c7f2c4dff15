"""The tab of histograms: how weights or inputs of the selected tensor are distributed; some side by side."""

from math import prod

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.activations import ActivationsDesk
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written, why_lossless
from app.plain import as_tip, printable
from app.state import Row, State
from app.views.elided import Elided
from app.views.figure import FigureView
from app.views.parts import button, named
from app.views.sourced_view import SourcedView
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
OF_ACTIVATIONS: tuple[Scope, ...] = ("tensor", "input")
PIN_TIP = f"Keep this histogram below, beside up to {MOST_PINNED - 1} others"
OVER_TIP = "Lay over it what the recipe's format makes of the weights"
LEVELS_TIP = "Mark the range that the format can hold and, of a single group, the levels of its grid"


class HistogramsView(SourcedView):
    """The present histogram above, those that were pinned below it."""

    def __init__(self, state: State, reader: FigureReader, desk: ActivationsDesk) -> None:
        self.pinned: list[Pinned] = []
        self._numbers: dict[Scope, int] = {}
        super().__init__("Histograms", state, reader, desk, "not complete: {share:.0f} % is done")
        self.slot.dress = self._dress
        self._make_controls()
        state.channel_changed.connect(self._take_channel)
        reader.dropped.connect(self._unpin_all)

    # ------------------------------------------------------------------------------ its making

    def _make_controls(self) -> None:
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
        self.percentiles = named(QCheckBox("Percentiles"), "Percentiles")
        self.percentiles.setToolTip("Mark the percentiles from 0.1 to 99.9 %")
        self.levels = named(QCheckBox("Levels"), "Levels and clip range")
        self.pin = button("Pin", PIN_TIP)
        self.pin.setIcon(theme.icon("push-pin"))
        self.pin.clicked.connect(self._pin)
        self.scope.currentIndexChanged.connect(self.follow)
        self.number.valueChanged.connect(self._take_number)
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

    def _promise(self) -> str:
        return "how its weights are distributed is shown here."

    def _follow(self, row: Row, tensor: str) -> None:
        self._limit(row)
        super()._follow(row, tensor)

    def follow(self) -> None:
        super().follow()
        self._refresh()

    def _offer(self, sentence: str, *offered: QPushButton) -> None:
        super()._offer(sentence, *offered)
        self._refresh()

    def _limit(self, row: Row) -> None:
        """What can be chosen for this tensor, and why not the rest."""
        self._offer_scopes()
        scope = self.scope.currentData()
        rows, columns = prod(row.shape[:-1]), row.shape[-1] if row.shape else 1
        most = {"tensor": 0, "output": rows - 1, "input": columns - 1}.get(scope, rows * columns - 1)
        before = self.number.blockSignals(True)
        self.number.setMaximum(max(0, min(most, MOST_GROUPS)))
        self.number.setValue(self._numbers.get(scope, 0))
        self.number.blockSignals(before)
        for part in (self.quantized, self.levels):
            part.setVisible(not self._of_activations)
        self.number.setVisible(scope != "tensor")
        lossy = as_written(self._state, row) is not None
        self.quantized.setEnabled(lossy)
        self.quantized.setToolTip(OVER_TIP if lossy else as_tip(why_lossless(self._state, row)))
        self.levels.setEnabled(self._over)
        self.levels.setToolTip(LEVELS_TIP if self._over else f"{LEVELS_TIP}: lay the quantized over it first")

    def _offer_scopes(self) -> None:
        """Activations are counted by layer and by input channel alone."""
        items = self.scope.model()
        assert isinstance(items, QStandardItemModel), "what a combo box has by itself"
        known = OF_ACTIVATIONS if self._of_activations else tuple(SCOPES)
        for place, scope in enumerate(SCOPES):
            items.item(place).setEnabled(scope in known)
            tip = "" if scope in known else "Activations are counted by layer and by input channel"
            items.item(place).setToolTip(tip)
        if self.scope.currentData() not in known:
            before = self.scope.blockSignals(True)
            self.scope.setCurrentIndex(0)
            self.scope.blockSignals(before)

    @property
    def _over(self) -> bool:
        """Whether what the recipe makes of the weights is laid over them."""
        return self.quantized.isEnabled() and self.quantized.isChecked()

    def _wanted(self, row: Row, tensor: str) -> View | str:
        of_activations = self._of_activations
        return HistogramOf(
            source="activations" if of_activations else "weights",
            tensor=row.key if of_activations else tensor,
            scope=self.scope.currentData(),
            index=self.number.value() if self.scope.currentData() != "tensor" else 0,
            recipe=as_written(self._state, row) if self._over and not of_activations else None,
            activations=self._file,
        )

    def _take_number(self, number: int) -> None:
        """Each scope has its own: the output channel of the same number is another one."""
        self._numbers[self.scope.currentData()] = number
        self.follow()

    def _take_channel(self) -> None:
        """The channel that was marked elsewhere is the one that is looked at."""
        if self._state.channel is None:
            return
        self._numbers["input"] = self._state.channel
        before = self.scope.blockSignals(True)
        self.scope.setCurrentIndex(self.scope.findData("input"))
        self.scope.blockSignals(before)
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
        self.below.setVisible(bool(self.pinned))
        problem = "nothing is shown yet" if self.slot.shown is None else ""
        if len(self.pinned) >= MOST_PINNED:
            problem = f"close one of the {MOST_PINNED} first"
        self.pin.setEnabled(not problem)
        self.pin.setToolTip(f"{PIN_TIP}: {problem}" if problem else PIN_TIP)


class Pinned(QWidget):
    """A histogram that stays as it is until it is closed."""

    def __init__(self, figure: Figure, logarithmic: bool) -> None:
        super().__init__()
        name = printable(figure.title)
        self.title = named(Elided(name, Qt.TextElideMode.ElideMiddle), f"Pinned: {name}")
        drawn = [series.name for series in figure.series]
        self.title.setToolTip(as_tip("\n".join([name, *drawn]) if len(drawn) > 1 else name))
        self.close_button = QToolButton(autoRaise=True)
        self.close_button.setIcon(theme.icon("x", "muted"))
        self.close_button.setToolTip("Close this histogram")
        self.close_button.setAccessibleName(f"Close the histogram {name}")
        self.figure = FigureView(f"Pinned histogram: {name}")
        self.figure.logarithmic.setChecked(logarithmic)
        head = QHBoxLayout()
        head.addWidget(self.title, 1)
        head.addWidget(self.close_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self.figure, 1)
        self.figure.show_figure(figure)
