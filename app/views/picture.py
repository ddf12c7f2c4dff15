"""The tab that shows one tensor as a picture: its weights, their errors or their codes, down to each one."""

from math import prod

from PySide6.QtWidgets import QComboBox

from app.figure_reader import Drawn, FigureReader
from app.models.looked_at import as_written, why_lossless
from app.state import Row, State
from app.views.parts import button, named
from app.views.tensor_view import TensorView
from engine.api.recipe import Recipe
from engine.api.views import PictureOf, View

KINDS = {"value": "Values", "error": "Errors", "code": "Codes"}
TIP = "The weights, what the recipe's format makes wrong of them, or the codes that it stores"
AROUND = 32
"""Columns shown at each side of a channel that is jumped to."""

Part = tuple[int, int, int, int]
"""First row, stop, first column, stop; stops of 0 are the end."""

ALL: Part = (0, 0, 0, 0)

Subject = tuple[str, str, Recipe | None]
"""What is shown of which tensor, as which recipe makes it."""


class PictureView(TensorView):
    """Where one zooms in, the engine is asked for that part again, finer.

    A part is laid over a whole of the same subject only: after another kind or recipe the whole comes first.
    """

    def __init__(self, state: State, reader: FigureReader) -> None:
        super().__init__("Weights", state, reader, "{share:.0f} % is read")
        self._part = ALL
        self._subject: Subject = ("", "", None)
        self._there = False  # whether a whole of the subject is shown
        self._whole_first = False  # asked for though a part is looked at
        self.what = named(QComboBox(), "What is shown of each weight")
        for what, text in KINDS.items():
            self.what.addItem(text, what)
        self.what.setToolTip(TIP)
        self.what.currentIndexChanged.connect(self.follow)
        self.channel = button("Channel", "Zoom to the input channel that is marked in Outliers")
        self.channel.clicked.connect(self._jump)
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
        what, recipe = self.what.currentData(), as_written(self._state, row)
        if what != "value" and recipe is None:
            return why_lossless(self._state, row)
        subject = (tensor, what, None if what == "value" else recipe)
        if self._subject[0] != tensor:
            self._part = ALL
        self._there = self._subject == subject and self.slot.shown is not None
        self._subject, self._whole_first = subject, not self._there and self._part != ALL
        first_row, stop_row, first_column, stop_column = self._part if self._there else ALL
        return PictureOf(
            tensor=tensor,
            what=what,
            first_row=first_row,
            stop_row=stop_row,
            first_column=first_column,
            stop_column=stop_column,
            recipe=subject[2],
        )

    def _want(self, view: View, *, keep: bool = False) -> None:
        """A part of what is shown comes in its place; until then that is seen, enlarged."""
        super()._want(view, keep=self._there)

    def _zoom(self, part: Part | None) -> None:
        self._part = ALL if part is None else part
        self.follow()

    def _take(self, drawn: Drawn) -> None:
        """The marked channel is pointed out by a line; the part that one looks at is asked for again."""
        if self._channel is not None:
            self.figure.select(None, self._channel)
        if self._whole_first:
            self._whole_first = False
            self.figure.show_part(*self._part)
            self.follow()

    def _jump(self) -> None:
        row, channel = self._state.current, self._channel
        if row is not None and channel is not None:
            self.figure.show_part(0, prod(row.shape[:-1]), channel - AROUND, channel + AROUND + 1)

    @property
    def _channel(self) -> int | None:
        """The marked channel, if this tensor has it."""
        row, channel = self._state.current, self._state.channel
        return channel if row is not None and channel is not None and channel < row.shape[-1] else None

    def _mark(self) -> None:
        channel = self._channel
        self.channel.setVisible(channel is not None)
        if channel is not None:
            self.channel.setText(f"Channel {channel:,}")
            self.channel.setAccessibleName(f"Zoom to channel {channel:,}")
            if self.slot.shown is not None:
                self.figure.select(None, channel)
