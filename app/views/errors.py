"""The tab of errors: what the recipe loses of the selected tensor, channel by channel or group by group."""

from PySide6.QtWidgets import QComboBox

from app.figure_reader import FigureReader
from app.models.looked_at import as_written, why_lossless
from app.state import Row, State
from app.views.parts import named
from app.views.tensor_view import TensorView
from engine.api.views import ErrorOf, View

SCOPES = {"output": "By output channel", "input": "By input channel", "group": "By group"}


class ErrorsView(TensorView):
    """Squared error over squared weights, measured on what the format makes of the weights."""

    def __init__(self, state: State, reader: FigureReader) -> None:
        super().__init__("Error", state, reader, "{share:.0f} % is measured")
        self.scope = named(QComboBox(), "The error by what")
        for scope, text in SCOPES.items():
            self.scope.addItem(text, scope)
        self.scope.setToolTip(
            "Squared error over squared weights: for each output channel (a row), each input channel (a "
            "column), or each group of weights that share a scale"
        )
        self.scope.currentIndexChanged.connect(self.follow)
        self.figure.logarithmic.setChecked(False)  # channels differ by a few percent, mostly
        self.controls.addWidget(self.scope)
        self.controls.addStretch()

    def _promise(self) -> str:
        return "what the recipe loses of it is shown here."

    def _wanted(self, row: Row, tensor: str) -> View | str:
        recipe = as_written(self._state, row)
        if recipe is None:
            return why_lossless(self._state, row)
        return ErrorOf(tensor=tensor, scope=self.scope.currentData(), recipe=recipe)
