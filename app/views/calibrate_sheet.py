"""The sheet before an importance matrix is computed: on which text, how much of it, and where it goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit, QSpinBox, QWidget

from app.dialogs import ask_folder
from app.models.calibrate_request import is_there, matrix_name, proposed_matrix, there
from app.models.run_request import memory_limit, memory_refusal, proposed_folder, refusal
from app.settings import Settings
from app.state import State
from app.views.checked_sheet import CheckedSheet
from app.views.file_list import FileList
from app.views.parts import button, named, side_by_side, top_label
from engine.api.jobs import CalibrateRequest, Check

WIDTH = 660
MOST_WINDOWS = 1_000_000
LEAST_LENGTH, MOST_LENGTH = 8, 1_000_000
TEXT_FILES = ["Texts (*.txt *.md *.jsonl *.raw)", "All files (*)"]
MATRIX_FILES = ["Importance matrices (*.gguf *.dat)", "All files (*)"]


class ChecksCalibrations(Protocol):
    """What the sheet needs of `app.importance_reader.ImportanceReader`."""

    def check(
        self,
        request: CalibrateRequest,
        then: Callable[[list[Check]], None],
        failed: Callable[[str], None],
    ) -> None: ...


class CalibrateSheet(CheckedSheet):
    """Open it with `open()`; once accepted, `request` is what to run, `used` whether the recipe gets it."""

    def __init__(
        self, state: State, settings: Settings, reader: ChecksCalibrations, parent: QWidget | None = None
    ) -> None:
        super().__init__("Compute", "Compute the importance matrix", parent)
        assert state.path is not None, "a model is open"
        self._model, self._settings, self._reader = state.path, settings, reader
        self.setWindowTitle("Compute importance matrix")
        self.setAccessibleName("Compute importance matrix: confirm what will be computed")
        self.setMinimumWidth(WIDTH)
        self._make_fields()
        self._make_form()
        self._connect()
        self._follow()

    @property
    def request(self) -> CalibrateRequest:
        """What the fields say."""
        return CalibrateRequest(
            model=str(self._model),
            texts=self.texts.paths,
            output=str(self._output()),
            windows=self.windows.value() or None,
            length=self.length.value(),
            output_tensor=self.output_tensor.isChecked(),
            merge=self.merge.paths,
            overwrite=not self.replace.isHidden() and self.replace.isChecked(),
            memory_limit=memory_limit(self.memory.text()),
        )

    @property
    def used(self) -> bool:
        """Whether the recipe is to weigh errors by it when it is done."""
        return self.use.isChecked()

    # ------------------------------------------------------------------------------ its making

    def _make_fields(self) -> None:
        settings = self._settings
        empty = (
            "The sample text that ships with Bitwright. It is short: texts like those that the model is for "
        )
        self.texts = FileList("Texts", f"{empty}are better.", TEXT_FILES, folders=True)
        self.texts.add(there(settings.calibration_texts))
        self.windows = named(QSpinBox(), "Windows of text")
        self.windows.setRange(0, MOST_WINDOWS)
        self.windows.setSpecialValueText("all")
        self.windows.setGroupSeparatorShown(True)
        self.windows.setValue(settings.calibration_windows)
        self.windows.setToolTip("The most windows, shared evenly among the texts; 100 and more are good")
        self.length = named(QSpinBox(), "Tokens of a window")
        self.length.setRange(LEAST_LENGTH, MOST_LENGTH)
        self.length.setGroupSeparatorShown(True)
        self.length.setValue(512)
        self.length.setToolTip("Tokens of a window; matrices of windows of one length can be merged")
        self.output_tensor = named(QCheckBox("The output matrix, too"), "The output matrix, too")
        self.output_tensor.setChecked(settings.output_tensor)
        self.output_tensor.setToolTip("Takes memory and time; most presets keep that matrix precise anyway")
        self.merge = FileList(
            "Merge with", "Nothing. Sums of matrices in this list are added.", MATRIX_FILES, folders=False
        )
        folder = proposed_folder(self._model, settings.output_folder)
        self.name = named(QLineEdit(proposed_matrix(self._model)), "File name")
        self.name.setToolTip("A name in .dat gets llama.cpp's older format, any other GGUF")
        self.folder = named(QLineEdit(str(folder)), "Folder of the file")
        self.browse_folder = button("Browse…", "Choose the folder")
        self.replace = named(QCheckBox("Replace what is there"), "Replace what is there")
        self.memory = named(QLineEdit(), "Memory limit")
        self.memory.setPlaceholderText("all that the machine can give")
        self.memory.setToolTip("The most memory that the job may take, such as 8 GB")
        self.use = named(QCheckBox("Use it for the recipe when it is done"), "Use it for the recipe")
        self.use.setChecked(settings.use_importance)
        self.use.setToolTip("The open model's recipe weighs errors by it then; one step that undo takes back")

    def _make_form(self) -> None:
        form = QFormLayout()
        folder, texts = QLabel("&Folder"), top_label("&Text")
        folder.setBuddy(self.folder)
        texts.setBuddy(self.texts.list)
        form.addRow(texts, self.texts)
        windows = QLabel("&Windows")
        windows.setBuddy(self.windows)
        form.addRow(
            windows,
            side_by_side(self.windows, QLabel("of"), self.length, QLabel("tokens"), stretch=True),
        )
        form.addRow("Include", self.output_tensor)
        form.addRow(top_label("Merge with"), self.merge)
        form.addRow("&Name", self.name)
        form.addRow(folder, side_by_side(self.folder, self.browse_folder))
        form.addRow("", self.replace)
        self._replace_row = form.rowCount() - 1
        form.addRow(top_label("Checks"), self.checks)
        form.addRow("Memory &limit", self.memory)
        form.addRow("Then", self.use)
        self._form = form
        self._lay_out(form)

    def _connect(self) -> None:
        for list_ in (self.texts, self.merge):
            list_.changed.connect(self._follow)
        for place in (self.name, self.folder):  # what may be replaced is the file that one looked at
            place.textChanged.connect(lambda: self.replace.setChecked(False))
        for field in (self.name, self.folder, self.memory):
            field.textChanged.connect(self._follow)
        for number in (self.windows, self.length):
            number.valueChanged.connect(self._follow)
        for box in (self.output_tensor, self.replace):
            box.toggled.connect(self._follow)
        self.browse_folder.clicked.connect(self._choose_folder)

    # ------------------------------------------------------------------------------ the fields

    def _output(self) -> Path:
        return Path(self.folder.text().strip()).expanduser() / matrix_name(self.name.text())

    def _choose_folder(self) -> None:
        ask_folder(self, "Write into", self.folder.text(), lambda folder: self.folder.setText(str(folder)))

    def _follow(self) -> None:
        self._form.setRowVisible(self._replace_row, not self._wrong() and is_there(self._output()))
        self._change()

    def _wrong(self) -> str:
        wrong = refusal(matrix_name(self.name.text()), self.folder.text())
        return wrong or memory_refusal(self.memory.text())

    def _check(self, then: Callable[[list[Check]], None], failed: Callable[[str], None]) -> None:
        self._reader.check(self.request, then, failed)

    def _remember(self) -> None:
        self._settings.calibration_texts = self.texts.paths
        self._settings.calibration_windows = self.windows.value()
        self._settings.output_tensor = self.output_tensor.isChecked()
        self._settings.use_importance = self.use.isChecked()
        self._settings.output_folder = str(self._output().parent)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.texts.list.setFocus()
