"""The fields that people look at or change most, by plain names."""

from collections.abc import Mapping
from functools import partial

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QLineEdit, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.models.metadata import KeyLine
from app.views.metadata_fields import Field, Refusal
from engine.api.metadata import COMMON, LISTS

LONG = ("tokenizer.chat_template",)
LONG_HEIGHT = 120


class MetadataForm(QWidget):
    """One field a key of `COMMON`."""

    edited = Signal(str, object)
    reset = Signal(str)

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        # Each part has its parent from the start: a move to another one styles it anew.
        self._scroll = scroll = QScrollArea(self)
        page = QWidget(scroll)
        self.fields = {
            key: Field(key, name, refusal, page, lines=key in LONG) for key, name in COMMON.items()
        }
        form = QFormLayout(page)
        form.setHorizontalSpacing(4 * theme.SPACE)
        form.setVerticalSpacing(2 * theme.SPACE)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for key, field in self.fields.items():
            field.edited.connect(self.edited)
            field.reset.connect(self.reset)
            field.faulted.connect(partial(QTimer.singleShot, 0, self, partial(self.reveal, field)))
            label = QLabel(COMMON[key], page)
            label.setToolTip(key + (": separated by commas" if key in LISTS else ""))
            label.setMinimumHeight(field.field.sizeHint().height() if key not in LONG else 0)
            if key in LONG:
                label.setAlignment(Qt.AlignmentFlag.AlignTop)
                field.field.setMinimumHeight(LONG_HEIGHT)
            form.addRow(label, field)
        scroll.setAccessibleName("Common fields")
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidgetResizable(True)
        scroll.setWidget(page)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scroll)

    def show_lines(self, lines: Mapping[str, KeyLine]) -> None:
        """By key, what the file gets."""
        for key, field in self.fields.items():
            field.show_line(lines.get(key))

    def reveal(self, field: Field) -> None:
        """Scroll to the end of a field, where its fault stands."""
        self._scroll.ensureVisible(0, field.geometry().bottom(), 0, 2 * theme.SPACE)

    def enter(self) -> None:
        """Put the cursor behind the first field's text."""
        first = next(iter(self.fields.values())).field
        first.setFocus(Qt.FocusReason.OtherFocusReason)
        if isinstance(first, QLineEdit):
            first.end(False)

    def commit(self) -> None:
        """What is being typed counts now."""
        for field in self.fields.values():
            field.commit(waits=False)
