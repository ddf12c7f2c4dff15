"""The tab that shows one tensor as a picture: its weights, their errors or their codes, down to each one."""

from math import prod

from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox

from app.activations import ActivationsDesk
from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written, why_lossless
from app.state import Row, State
from app.views.parts import button, named
from app.views.sourced_view import SourcedView
from engine.api.figures import HeatMap
from engine.api.recipe import Recipe
from engine.api.views import PictureOf, View

KINDS = {"value": "Values", "error": "Errors", "code": "Codes"}
TIP = "The weights, what the recipe's format makes wrong of them, or the codes that it stores"
SOURCE_TIP = (
    "The weights; or, token by token of a prompt, the inputs that they are multiplied with, and as errors "
    "what the recipe makes wrong of the outputs"
)
CODES_TIP = "The recipe does not quantize activations: they have no codes"
AROUND = 32
"""Columns shown at each side of a channel that is jumped to."""

Part = tuple[int, int, int, int]
"""First row, stop, first column, stop; stops of 0 are the end."""

ALL: Part = (0, 0, 0, 0)

Subject = tuple[str, str, Recipe | None, str | None]
"""What is shown of which tensor, as which recipe makes it, on which activations."""


class PictureView(SourcedView):
    """Where one zooms in, the engine is asked for that part again, finer.

    A part is laid over a whole of the same subject only: after another kind or recipe the whole comes first.
    """

    def __init__(self, state: State, reader: FigureReader, desk: ActivationsDesk) -> None:
        super().__init__("Weights", state, reader, desk, "{share:.0f} % is read")
        self._part = ALL
        self._subject: Subject = ("", "", None, None)
        self._there = False  # whether a whole of the subject is shown
        self._whole_first = False  # asked for though a part is looked at
        self.what = named(QComboBox(), "What is shown of each weight")
        for what, text in KINDS.items():
            self.what.addItem(text, what)
        self.what.setToolTip(TIP)
        self.source.setToolTip(SOURCE_TIP)
        self.what.currentIndexChanged.connect(self.follow)
        self.channel = button("Channel", "Zoom to the input channel that is marked in Outliers")
        self.channel.clicked.connect(self._jump)
        self.controls.addWidget(self.source)
        self.controls.addWidget(self.what)
        self.controls.addWidget(self.channel)
        self.controls.addStretch()
        self.figure.zoomed.connect(self._zoom)
        state.channel_changed.connect(self._mark)
        state.selection_changed.connect(self._mark)
        self._mark()

    def _promise(self) -> str:
        return "its weights are shown here as a picture."

    def _wanted(self, row: Row, tensor: str) -> View | str:
        self._offer_kinds()
        self._mark()
        what, recipe = self.what.currentData(), as_written(self._state, row)
        if what != "value" and recipe is None:
            return why_lossless(self._state, row)
        subject = (tensor, what, None if what == "value" else recipe, self._file)
        if (self._subject[0], self._subject[3]) != (tensor, self._file):
            self._part = ALL
        if self._file and self._subject[1] != what:  # columns are inputs, or outputs
            self._part = ALL
        self._there = self._subject == subject and self.slot.shown is not None
        self._subject, self._whole_first = subject, not self._there and self._part != ALL
        first_row, stop_row, first_column, stop_column = self._part if self._there else ALL
        return PictureOf(
            source=self.source.currentData(),
            tensor=tensor,
            what=what,
            first_row=first_row,
            stop_row=stop_row,
            first_column=first_column,
            stop_column=stop_column,
            recipe=subject[2],
            activations=subject[3],
        )

    def _offer_kinds(self) -> None:
        """Activations have no codes."""
        items, place = self.what.model(), self.what.findData("code")
        assert isinstance(items, QStandardItemModel), "what a combo box has by itself"
        items.item(place).setEnabled(not self._of_activations)
        items.item(place).setToolTip(CODES_TIP if self._of_activations else "")
        if self._of_activations and self.what.currentIndex() == place:
            before = self.what.blockSignals(True)
            self.what.setCurrentIndex(0)
            self.what.blockSignals(before)

    def _want(self, view: View, *, keep: bool = False) -> None:
        """A part of what is shown comes in its place; until then that is seen, enlarged."""
        super()._want(view, keep=self._there)

    def _zoom(self, part: Part | None) -> None:
        self._part = ALL if part is None else part
        self.follow()

    def _take(self, drawn: Drawn) -> None:
        """The marked channel is pointed out by a line; the part that one looks at is asked for again."""
        self._mark()
        if self._whole_first:
            self._whole_first = False
            self.figure.show_part(*self._part)
            self.follow()

    def _jump(self) -> None:
        row, channel = self._state.current, self._channel
        if row is not None and channel is not None:
            self.figure.show_part(0, self._height(row), channel - AROUND, channel + AROUND + 1)

    def _height(self, row: Row) -> int:
        """Rows of the matrix, or tokens."""
        shown = self.slot.shown.figure if self.slot.shown is not None else None
        if self._of_activations and isinstance(shown, HeatMap):
            return shown.stop_row or shown.height
        return prod(row.shape[:-1])

    @property
    def _channel(self) -> int | None:
        """The marked channel, if this tensor has it."""
        row, channel = self._state.current, self._state.channel
        if self._of_activations and self.what.currentData() == "error":
            return None  # columns are output channels
        return channel if row is not None and channel is not None and channel < row.shape[-1] else None

    def _mark(self) -> None:
        channel = self._channel
        self.channel.setVisible(channel is not None)
        if channel is not None:
            self.channel.setText(f"Channel {channel:,}")
            self.channel.setAccessibleName(f"Zoom to channel {channel:,}")
            if self.slot.shown is not None:
                self.figure.select(None, channel)
