"""The tab of errors: what the recipe loses of the selected tensor, channel by channel or group by group."""

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QSplitter, QVBoxLayout

from app.activations import ActivationsDesk
from app.background import Latest
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written, why_lossless
from app.models.worst_errors import Loss, WorstErrors, worst_errors
from app.state import Row, State
from app.views.outlier_lines import WorstLines
from app.views.parts import named
from app.views.sourced_view import SourcedView
from engine.api.figures import Figure
from engine.api.views import ErrorOf, View

SCOPES = {
    "input": "By input channel",
    "output": "By output channel",
    "group": "By group",
    "token": "By token",
}
SCOPE_TIPS = {
    "group": "Groups are of weights; outputs have none",
    "token": "Tokens are there where activations are shown",
}
SOURCE_TIP = (
    "What is lost of the weights; or of the outputs, on the text or prompt that activations are gathered on"
)
PICTURE_SHARE, TABLE_SHARE = 3, 2


class ErrorsView(SourcedView):
    """Squared error over squared weights, measured on what the format makes of the weights; worst below.

    With activations the same of the outputs.
    """

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, state: State, reader: FigureReader, desk: ActivationsDesk) -> None:
        self.model = WorstErrors()
        super().__init__("Error", state, reader, desk, "{share:.0f} % is measured")
        self.model.setParent(self)
        self._finding = Latest(self)
        self._finding.answered.connect(self._take_lines)
        self.scope = named(QComboBox(), "The error by what")
        for scope, text in SCOPES.items():
            self.scope.addItem(text, scope)
        self.scope.setToolTip(
            "Squared error over the mean one's squared weights: for each input channel (a column), each "
            "output channel (a row), or each group of weights that share a scale"
        )
        self.scope.currentIndexChanged.connect(self.follow)
        self.figure.logarithmic.setChecked(False)  # channels differ by a few percent, mostly
        self.figure.cell_clicked.connect(lambda row, group: self._mark((row, group)))
        self.source.setToolTip(SOURCE_TIP)
        self.controls.addWidget(self.source)
        self.controls.addWidget(self.scope)
        self.controls.addStretch()
        state.channel_changed.connect(self._follow_channel)

    def _fill(self, column: QVBoxLayout) -> None:
        self.figure.add_control(self.name)
        self.figure.add_control(self.slot.progress)
        column.addWidget(self.line)
        self.lines = WorstLines(self.model, "Where most is lost")
        self.lines.message.connect(self.message)
        self.lines.table.chosen.connect(self._choose)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.setAccessibleName("Errors and where they are largest")
        parts.setChildrenCollapsible(False)
        parts.addWidget(self.figure)
        parts.addWidget(self.lines)
        parts.setStretchFactor(0, PICTURE_SHARE)
        parts.setStretchFactor(1, TABLE_SHARE)
        column.addWidget(parts, 1)

    def _promise(self) -> str:
        return "what the recipe loses of it is shown here."

    def _wanted(self, row: Row, tensor: str) -> View | str:
        recipe = as_written(self._state, row)
        if recipe is None:
            return why_lossless(self._state, row)
        self._offer_scopes()
        self.lines.file_name = f"errors-{row.key}"
        return ErrorOf(
            source=self.source.currentData(),
            tensor=tensor,
            scope=self.scope.currentData(),
            recipe=recipe,
            activations=self._file,
        )

    def _offer_scopes(self) -> None:
        """Groups are of weights, tokens of activations."""
        items = self.scope.model()
        assert isinstance(items, QStandardItemModel), "what a combo box has by itself"
        unknown = "group" if self._of_activations else "token"
        for scope, tip in SCOPE_TIPS.items():
            item = items.item(self.scope.findData(scope))
            item.setEnabled(scope != unknown)
            item.setToolTip(tip if scope == unknown else "")
        if self.scope.currentData() == unknown:
            before = self.scope.blockSignals(True)
            self.scope.setCurrentIndex(0)
            self.scope.blockSignals(before)

    def _want(self, view: View, *, keep: bool = False) -> None:
        super()._want(view, keep=keep)
        if self.slot.shown is None:  # lines of what was shown before are not those of this
            self.model.show([])

    # ---------------------------------------------------------------------------- the worst of them

    def _take(self, drawn: Drawn) -> None:
        self._finding.ask(partial(_found, drawn))
        self._follow_channel()

    def _take_lines(self, found: tuple[Drawn, list[Loss]]) -> None:
        drawn, lines = found
        if drawn is not self.slot.shown:
            return
        figure = drawn.figure
        axes = [figure.x.name] if isinstance(figure, Figure) else [figure.y.name, figure.x.name]
        lost = figure.y.name if isinstance(figure, Figure) else figure.z.name
        self.model.show_of(axes, lost, lines)
        self.lines.table.fit_columns()
        self._follow_channel()

    @property
    def _by_input(self) -> bool:
        return self.scope.currentData() == "input"

    def _choose(self, line: Loss) -> None:
        """The line of an input channel marks it everywhere."""
        self._mark(line.cell)
        if self._by_input:
            self._state.mark_channel(line.cell[1])

    def _mark(self, cell: tuple[int | None, int]) -> None:
        self.figure.select(*cell)
        self.lines.table.choose(self.model.row_of(cell))

    def _follow_channel(self) -> None:
        """The channel that is marked elsewhere, among input channels."""
        if self._by_input and self._state.channel is not None and self.slot.shown is not None:
            self._mark((None, self._state.channel))


def _found(drawn: Drawn) -> tuple[Drawn, list[Loss]]:
    return drawn, worst_errors(drawn.figure, drawn.values)
