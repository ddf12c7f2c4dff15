"""What else can be said of an output, folded away on the run sheet: parts, pre-tokenizer, metadata."""

from collections.abc import Mapping
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.run_request import ONE_FILE, SPLITS, files_label, split_refusal, split_size, split_text
from app.plain import as_tip, breakable, printable

MOST_NAMED = 24
"""Files that the tool tip names."""


class OutputOptions(QWidget):
    """One line that says what is chosen; opened, the choices."""

    changed = Signal()
    unfolded = Signal()
    """Its height is another one now."""

    edit_metadata = Signal()
    pre_tokenizer_chosen = Signal(object)
    """llama.cpp's name for one, or None."""

    def __init__(self, split: int | None) -> None:
        super().__init__()
        self._metadata = ""
        self.fold = QToolButton(autoRaise=True)
        self.fold.setObjectName("fold")
        self.fold.setCheckable(True)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.fold.setToolTip("Split the file, name its pre-tokenizer, edit its metadata")
        self.split = QComboBox(editable=True)
        self.split.setAccessibleName("Split into files of at most")
        self.split.setToolTip("Parts as llama.cpp reads them; a size such as 4 GB, or one file")
        self.split.addItems([ONE_FILE, *SPLITS])
        self.split.setCurrentText(split_text(split))
        self.pre_tokenizer = QComboBox()
        self.pre_tokenizer.setAccessibleName("Pre-tokenizer")
        self.pre_tokenizer.setToolTip(
            "llama.cpp's name for how the tokenizer splits text, where another one is meant than recognised"
        )
        self.files = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.files.setAccessibleName("Files that will be written")
        self.metadata = QLabel(textFormat=Qt.TextFormat.PlainText)
        self.metadata.setAccessibleName("Metadata")
        self.edit = QPushButton("E&dit…")
        self.edit.setAccessibleName("Edit the metadata")
        self.edit.setToolTip("View and edit what the file will say of itself")
        self.edit.setAutoDefault(False)
        self._lay_out()
        self.fold.toggled.connect(self._unfold)
        self.split.currentTextChanged.connect(self._change)
        self.pre_tokenizer.activated.connect(self._choose_pre_tokenizer)
        self.edit.clicked.connect(self.edit_metadata)
        self._say()

    def _lay_out(self) -> None:
        edited = QHBoxLayout()
        edited.addWidget(self.metadata, 1)
        edited.addWidget(self.edit)
        self._choices = QWidget()
        form = self._form = QFormLayout(self._choices)
        form.setContentsMargins(5 * theme.SPACE, 0, 0, 0)
        form.setHorizontalSpacing(3 * theme.SPACE)
        form.setVerticalSpacing(2 * theme.SPACE)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("&Split into files of at most", self.split)
        form.addRow(QLabel("Files", alignment=Qt.AlignmentFlag.AlignTop), self.files)
        form.addRow("&Pre-tokenizer", self.pre_tokenizer)
        form.addRow("Metadata", edited)
        self._choices.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2 * theme.SPACE)
        column.addWidget(self.fold, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self._choices)

    @property
    def most(self) -> int | None:
        """Bytes of one file; None: it is not split, also where `refusal` says why not."""
        return split_size(self.split.currentText())

    @property
    def refusal(self) -> str:
        """Why the text is no size of files; empty where it is one."""
        return split_refusal(self.split.currentText())

    def show_files(self, output: Path, count: int) -> None:
        """The files that will be written for `output`."""
        text, every = files_label(output, count, MOST_NAMED)
        self.files.setText(breakable(text))
        self.files.setToolTip(as_tip(every))

    def show_metadata(self, said: str) -> None:
        """ "3 edits"."""
        self._metadata = said
        self.metadata.setText(said)
        self._say()

    def show_pre_tokenizers(self, choices: Mapping[str, str | None], chosen: str | None) -> None:
        """What can be chosen, by its words; nothing where there is no choice."""
        self.pre_tokenizer.clear()
        for text, name in choices.items():
            self.pre_tokenizer.addItem(printable(text), name)
        self.pre_tokenizer.setCurrentIndex(list(choices.values()).index(chosen) if choices else -1)
        self._form.setRowVisible(self.pre_tokenizer, bool(choices))
        self._say()

    def _choose_pre_tokenizer(self) -> None:
        self.pre_tokenizer_chosen.emit(self.pre_tokenizer.currentData())

    def _change(self) -> None:
        self._say()
        self.changed.emit()

    def _unfold(self, wanted: bool) -> None:
        self.fold.setArrowType(Qt.ArrowType.DownArrow if wanted else Qt.ArrowType.RightArrow)
        self._choices.setVisible(wanted)
        self.unfolded.emit()

    def _say(self) -> None:
        most = self.most
        parts = "one file" if most is None else f"files of at most {split_text(most)}"
        name = self.pre_tokenizer.currentData()
        splits = f" · pre-tokenizer: {printable(name)}" if name else ""
        said = f"{parts}{splits} · metadata: {self._metadata}"
        self.fold.setText(said)
        self.fold.setAccessibleName(f"Output options: {said}")
