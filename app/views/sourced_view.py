"""What tabs have in common that show weights or activations of the selected tensor."""

from PySide6.QtWidgets import QComboBox, QPushButton, QVBoxLayout

from app.activations import ActivationsDesk
from app.figure_reader import FigureReader
from app.state import Row, State
from app.views.activations_offer import ActivationsLine, ActivationsOffer
from app.views.hint import Hint
from app.views.parts import named
from app.views.tensor_view import TensorView


class SourcedView(TensorView):
    """A choice of weights or activations; where there are none of these yet, ways to gather them.

    Subclasses put `source` among their controls, and `line`, which says of what activations are, over the
    figure.
    """

    def __init__(
        self, title: str, state: State, reader: FigureReader, desk: ActivationsDesk, told: str
    ) -> None:
        self._desk = desk
        self.line = ActivationsLine(desk)
        self.source = named(QComboBox(), "Weights or activations")
        self.source.addItem("Weights", "weights")
        self.source.addItem("Activations", "activations")
        super().__init__(title, state, reader, told)
        self.source.currentIndexChanged.connect(self.follow)
        desk.changed.connect(self.follow)

    def _make_hint(self) -> Hint:
        self.offer = ActivationsOffer(self._desk)
        return Hint(self._title, [self.layers, self.again], self.offer)

    def _fill(self, column: QVBoxLayout) -> None:
        column.addWidget(self.line)
        super()._fill(column)

    @property
    def _of_activations(self) -> bool:
        return self.source.currentData() == "activations"

    @property
    def _file(self) -> str | None:
        """Of the activations, where these are shown."""
        return str(self._desk.file) if self._of_activations else None

    def _follow(self, row: Row, tensor: str) -> None:
        self.line.setVisible(self._of_activations)
        if self._of_activations and not self._desk.ready:
            self._show_hint(self._desk.sentence)
            self.offer.show()
        else:
            super()._follow(row, tensor)

    def _offer(self, sentence: str, *offered: QPushButton) -> None:
        self.offer.hide()
        super()._offer(sentence, *offered)

    def _fail(self, sentence: str) -> None:
        super()._fail(sentence)
        # The file of activations may be gone, of another state of the model, or not of a prompt.
        self.offer.setVisible(self._of_activations)
