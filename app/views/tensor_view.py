"""What tabs that show one figure of the selected tensor have in common."""

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import COMPUTED, called, stored
from app.plain import MOST_TOLD, as_tip, printable, shortened
from app.state import Row, State
from app.views.figure import FigureView
from app.views.figure_slot import FigureSlot
from app.views.hint import Hint
from app.views.parts import button, named
from engine.api.views import OutliersOf, View


class TensorView(QWidget):
    """The controls, the tensor's name, the figure; or why there is none, and what to do.

    Subclasses say in `_wanted` what is to be seen, and call `follow` when their controls change.
    """

    layers_wanted = Signal()
    """The table of tensors is to be shown, to select one."""

    def __init__(
        self, title: str, state: State, reader: FigureReader, told: str = "{done} of {total}"
    ) -> None:
        """`told`: how far a figure is that is not complete, with `done` and `total`."""
        super().__init__()
        self._state, self._reader, self._title = state, reader, title
        self.setAccessibleName(title)
        self.figure = FigureView(title)
        self.slot = FigureSlot(
            self.figure,
            reader,
            title.lower(),
            lambda drawn: told.format(share=100 * drawn.done / max(1, drawn.total)),
            self,
        )
        self.slot.failed.connect(self._fail)
        self.slot.drawn.connect(self._take)
        self._make_widgets()
        for signal in (
            state.selection_changed,
            state.model_changed,
            state.plan_changed,
            reader.dropped,
        ):
            signal.connect(self.follow)

    def _make_widgets(self) -> None:
        self.name = named(QLabel(textFormat=Qt.TextFormat.PlainText), f"{self._title}: tensor")
        self.name.setFont(theme.names_font())
        self.name.setMinimumWidth(1)  # a long name must not widen the view
        self.layers = button("Go to Layers", "Select a tensor in the table of layers")
        self.layers.clicked.connect(self.layers_wanted)
        self.again = button("Try again", "Ask for the figure again")
        self.again.clicked.connect(self.follow)
        self.hint = self._make_hint()
        self.controls = QHBoxLayout()
        self.controls.setSpacing(2 * theme.SPACE)
        self.body = QWidget()
        column = QVBoxLayout(self.body)
        column.setContentsMargins(0, 0, 0, theme.SPACE)
        column.setSpacing(theme.SPACE)
        self._fill(column)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.hint)
        self.pages.addWidget(self.body)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * theme.SPACE, 2 * theme.SPACE, 2 * theme.SPACE, 0)
        layout.setSpacing(2 * theme.SPACE)
        layout.addLayout(self.controls)
        layout.addWidget(self.pages, 1)

    def _make_hint(self) -> Hint:
        return Hint(self._title, [self.layers, self.again])

    def _fill(self, column: QVBoxLayout) -> None:
        """Lay out what is below the controls."""
        self.figure.add_control(self.name)
        self.figure.add_control(self.slot.progress)
        column.addWidget(self.figure, 1)

    # ------------------------------------------------------------------------------- what is shown

    def follow(self) -> None:
        """Show what the selection, the recipe and the controls say, if anybody can see it."""
        if not self.isVisible():
            return
        row = self._state.current
        if row is None:
            self._show_hint(f"Select a tensor in the table of layers: {self._promise()}", self.layers)
        elif (tensor := stored(row)) is None:
            self._show_hint(COMPUTED, self.layers)
        else:
            self._show_name(row)
            self._follow(row, tensor)

    def _promise(self) -> str:
        """What would be shown here, the end of a sentence."""
        raise NotImplementedError

    def _follow(self, row: Row, tensor: str) -> None:
        """Show something of the source's `tensor`."""
        wanted = self._wanted(row, tensor)
        if isinstance(wanted, str):
            self._show_hint(wanted, self.layers)
        else:
            recipe = None if isinstance(wanted, OutliersOf) else wanted.recipe
            as_ = f" as {recipe.default.format}" if recipe else ""
            self.name.setText(f"{called(row)}{as_}")
            self._want(wanted)

    def _wanted(self, row: Row, tensor: str) -> View | str:
        """What is to be seen of the source's `tensor`, or why there is nothing to see."""
        raise NotImplementedError

    def _want(self, view: View, *, keep: bool = False) -> None:
        self.pages.setCurrentWidget(self.body)
        self.slot.want(view, keep=keep)

    def _take(self, drawn: Drawn) -> None:
        """A figure is shown now."""

    def _show_name(self, row: Row) -> None:
        self.name.setToolTip(as_tip(shortened(printable("\n".join((row.key, *row.sources[:4]))), MOST_TOLD)))

    def _show_hint(self, sentence: str, *offered: QPushButton) -> None:
        self.slot.forget()
        self._offer(sentence, *offered)

    def _offer(self, sentence: str, *offered: QPushButton) -> None:
        self.hint.say(sentence, *offered)
        self.pages.setCurrentWidget(self.hint)

    def _fail(self, sentence: str) -> None:
        self._offer(sentence, self.again)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.follow()
