"""The tab of outliers: layers x channels as a heat map, and below it the channels that stand out most."""

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent, QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.activations import ActivationsDesk
from app.background import Latest
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written, why_lossless
from app.models.outliers import Channel, Layer, WorstChannels, worst_channels
from app.models.roles import OUTPUTS, block_outputs, matrices_by_role, role_of
from app.state import State
from app.views.activations_offer import ActivationsLine, ActivationsOffer
from app.views.figure import FigureView
from app.views.figure_slot import FigureSlot
from app.views.hint import Hint
from app.views.outlier_lines import WorstLines
from app.views.parts import button, named
from engine.api.figures import HeatMap
from engine.api.recipe import Recipe
from engine.api.views import OutliersOf

FIRST_ROLE = "ffn_down"
MAP_SHARE, TABLE_SHARE = 3, 2

METRICS = {
    "absmax": "Largest magnitude",
    "ratio": "Largest over median channel",
    "kurtosis": "Kurtosis",
    "error": "Error of the recipe",
}
MEASURE_TIP = (
    "The largest magnitude of a channel, that over the median channel's, the kurtosis (3 for a normal "
    "distribution), or what the recipe loses: squared error over the mean channel's squared weights"
)
ERROR_TIP = "Errors are those of weights: activations are not quantized"


class OutliersView(QWidget):
    """A click on a cell, or on a line, selects the tensor and marks the channel everywhere."""

    message = Signal(str)
    """A passing sentence."""

    def __init__(self, state: State, reader: FigureReader, desk: ActivationsDesk) -> None:
        super().__init__()
        self._state, self._desk = state, desk
        self._layers: dict[int, Layer] = {}  # by block, of what is shown
        self._by_role: dict[str, dict[int, Layer]] = {}
        self._recipe: tuple[list[Recipe | None], Recipe | None] = ([], None)
        self.setAccessibleName("Outliers")
        self.figure = FigureView("Outliers")
        self.slot = FigureSlot(self.figure, reader, "outliers", self._told, self)
        self.slot.drawn.connect(self._take)
        self.slot.failed.connect(self._fail)
        self.figure.cell_clicked.connect(self._click)
        self.model = WorstChannels(self)
        self._finding = Latest(self)
        self._finding.answered.connect(self._take_channels)
        self._make_controls()
        self._make_table()
        self._lay_out()
        state.model_changed.connect(self._take_model)
        state.plan_changed.connect(self._follow_plan)
        state.selection_changed.connect(self._choose)
        state.channel_changed.connect(self._choose)
        desk.changed.connect(self.follow)
        reader.dropped.connect(self._clear)
        self._take_model()

    # ------------------------------------------------------------------------------ its making

    def _make_controls(self) -> None:
        self.role = named(QComboBox(), "Role of the tensors")
        self.role.setToolTip("Which tensor of each block; the selected tensor's is taken at first")
        self.source = named(QComboBox(), "Weights or activations")
        self.source.addItem("Weights", "weights")
        self.source.addItem("Activations", "activations")
        self.source.setToolTip("The weights of each input channel, or the inputs that reach it on a text")
        self.measure = named(QComboBox(), "What is shown of a channel")
        for metric, text in METRICS.items():
            self.measure.addItem(text, metric)
        self.measure.setToolTip(MEASURE_TIP)
        self.source.currentIndexChanged.connect(self._take_model)
        for box in (self.role, self.measure):
            box.currentIndexChanged.connect(self.follow)

    def _make_table(self) -> None:
        self.lines = WorstLines(self.model, "Worst channels")
        self.lines.message.connect(self.message)
        self.table = self.lines.table
        self.table.chosen.connect(self._publish)

    def _lay_out(self) -> None:
        controls = QHBoxLayout()
        controls.setSpacing(2 * theme.SPACE)
        for box in (self.role, self.source, self.measure):
            controls.addWidget(box)
        controls.addStretch()
        self.again = button("Try again", "Ask for the picture again")
        self.again.clicked.connect(self.follow)
        self.offer = ActivationsOffer(self._desk)
        self.hint = Hint("Outliers", [self.again], self.offer)
        self.line = ActivationsLine(self._desk)
        upper = QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.SPACE)
        self.figure.add_control(self.slot.progress)
        column.addWidget(self.line)
        column.addWidget(self.figure, 1)
        body = QSplitter(Qt.Orientation.Vertical)
        body.setAccessibleName("Heat map and worst channels")
        body.setChildrenCollapsible(False)
        body.addWidget(upper)
        body.addWidget(self.lines)
        body.setStretchFactor(0, MAP_SHARE)
        body.setStretchFactor(1, TABLE_SHARE)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.hint)
        self.pages.addWidget(body)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * theme.SPACE, 2 * theme.SPACE, 2 * theme.SPACE, 0)
        layout.setSpacing(2 * theme.SPACE)
        layout.addLayout(controls)
        layout.addWidget(self.pages, 1)

    # ------------------------------------------------------------------------------- what is shown

    def _take_model(self) -> None:
        """The roles of the model that is open now, and of what is shown of it."""
        before = self.role.currentData()
        self._by_role = matrices_by_role(self._state.rows)
        if self._of_activations and self._by_role:
            self._by_role[OUTPUTS] = block_outputs(self._state.rows)
        roles = [*self._by_role]
        if roles != [self.role.itemData(place) for place in range(self.role.count())]:
            blocked = self.role.blockSignals(True)
            self.role.clear()
            for role in roles:
                self.role.addItem("output of the block" if role == OUTPUTS else role, role)
            self.role.setCurrentIndex(self.role.findData(self._first_role(before)))
            self.role.blockSignals(blocked)
        self.follow()

    def _first_role(self, before: str | None) -> str:
        row = self._state.current
        wanted = [before, role_of(row) if row is not None and row.block is not None else None, FIRST_ROLE]
        roles = [*self._by_role, ""]
        return next((role for role in wanted if role in roles), roles[0])

    @property
    def _of_activations(self) -> bool:
        return self.source.currentData() == "activations"

    @property
    def _of_errors(self) -> bool:
        return self.measure.currentData() == "error"

    def _offer_metrics(self) -> None:
        """Of activations there are no errors."""
        items, place = self.measure.model(), self.measure.findData("error")
        assert isinstance(items, QStandardItemModel), "what a combo box has by itself"
        items.item(place).setEnabled(not self._of_activations)
        items.item(place).setToolTip(ERROR_TIP if self._of_activations else "")
        if self._of_activations and self._of_errors:
            blocked = self.measure.blockSignals(True)
            self.measure.setCurrentIndex(0)
            self.measure.blockSignals(blocked)

    def _follow_plan(self) -> None:
        if self._of_errors:
            self.follow()

    def _recipe_of(self, layers: dict[int, Layer]) -> Recipe | str:
        """The recipe, the same one until it makes something else of these tensors; or why nothing is lost."""
        by_key = {row.key: row for row in self._state.rows}
        rows = [by_key[layer.key] for layer in layers.values()]
        parts = [as_written(self._state, row) for row in rows]
        if not any(parts):
            return why_lossless(self._state, rows[0])
        if parts != self._recipe[0]:
            self._recipe = parts, self._state.document.recipe
        recipe = self._recipe[1]
        assert recipe is not None, "it makes something of them"
        return recipe

    def follow(self) -> None:
        """Show what the controls say, if anybody can see it."""
        if not self.isVisible():
            return
        self._offer_metrics()
        role = self.role.currentData()
        self.offer.setVisible(self._of_activations and not self._desk.ready)
        self.line.setVisible(self._of_activations)
        if self._state.phase in ("empty", "opening"):
            self._say("The model is being opened…")
        elif not role:
            self._say("This model has no blocks of matrices to compare.")
        elif self._of_activations and not self._desk.ready:
            self._say(self._desk.sentence)
        else:
            self._layers = self._by_role[role]
            self.lines.file_name = f"outliers-{role}"
            recipe = self._recipe_of(self._layers) if self._of_errors else None
            if isinstance(recipe, str):
                self._say(recipe)
            else:
                self._want(role, recipe)

    def _want(self, role: str, recipe: Recipe | None) -> None:
        self.pages.setCurrentIndex(1)
        self.slot.want(
            OutliersOf(
                source=self.source.currentData(),
                role=role,
                metric=self.measure.currentData(),
                recipe=recipe,
                activations=str(self._desk.file) if self._of_activations else None,
            )
        )
        if self.slot.shown is None:  # lines of what was shown before are not those of this
            self._clear()

    def _say(self, sentence: str, *offered: QPushButton) -> None:
        self.slot.forget()
        self._clear()
        self.hint.say(sentence, *offered)
        self.pages.setCurrentIndex(0)

    def _fail(self, sentence: str) -> None:
        self._say(sentence, self.again)

    def _clear(self) -> None:
        self.model.show([])

    def _told(self, drawn: Drawn) -> str:
        what = "block" if drawn.total == len(self._layers) else "tensor"  # a block may have many experts
        return f"{what} {drawn.done:,} of {drawn.total:,}"

    def _take(self, drawn: Drawn) -> None:
        assert isinstance(drawn.figure, HeatMap), "layers x channels"
        if drawn.values is not None:
            self._finding.ask(partial(_found, drawn, self._layers, by_value=self._of_errors))

    def _take_channels(self, found: tuple[Drawn, list[Channel]]) -> None:
        drawn, channels = found
        if drawn is self.slot.shown:
            self.model.show(channels)
            self._choose()

    # ----------------------------------------------------------------------------- the selection

    def _click(self, block: int, channel: int) -> None:
        if block in self._layers:
            self._select(self._layers[block], channel)

    def _publish(self, channel: Channel) -> None:
        self._select(channel.layer, channel.channel)

    def _select(self, layer: Layer, channel: int) -> None:
        if layer.key:
            self._state.select((layer.key,))
        self._state.mark_channel(channel)

    def _choose(self) -> None:
        """Select the line and the cell of what is selected elsewhere, if it is one of those shown here."""
        row, channel = self._state.current, self._state.channel
        if row is None or channel is None:
            return
        self.table.choose(self.model.row_of(row.key, channel))
        layer = self._layers.get(row.block) if row.block is not None else None
        if layer is None or layer.key not in (row.key, ""):  # outputs of blocks are those of no tensor
            self.figure.deselect()
        elif self.slot.shown is not None:
            self.figure.select(layer.block, channel)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.follow()


def _found(drawn: Drawn, layers: dict[int, Layer], *, by_value: bool) -> tuple[Drawn, list[Channel]]:
    assert drawn.values is not None, "a heat map has values"
    return drawn, worst_channels(drawn.values, layers, by_value=by_value)
