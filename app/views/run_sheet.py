"""The sheet between a recipe and a run: what will be written where, what was checked, what is measured."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from app.background import Latest
from app.dialogs import ask_file, ask_folder
from app.models.command import preset_start
from app.models.metadata import edits_label
from app.models.run_request import (
    QUICK_WINDOWS,
    Written,
    file_name,
    formats_line,
    lm_studio_output,
    memory_limit,
    memory_refusal,
    pre_tokenizers,
    proposed_folder,
    proposed_name,
    refusal,
    text_label,
    text_windows,
    will_be_made,
    written,
)
from app.plain import as_tip, printable
from app.settings import Settings
from app.state import State
from app.views.checked_sheet import CheckedSheet
from app.views.metadata_sheet import MetadataSheet
from app.views.output_options import OutputOptions
from app.views.parts import button, named, side_by_side, top_label, value_label
from engine.api.errors import OutputError
from engine.api.formats import EFFORTS
from engine.api.jobs import Check, Measure, PresetStart, QuantizeRequest
from engine.api.lm_studio import models_folder
from engine.api.recipe import Recipe
from engine.api.units import size
from engine.api.wording import for_window
from resources import EVALUATION_TEXT

WIDTH = 660
MOST_WINDOWS = 100_000


class ChecksRuns(Protocol):
    """What the sheet needs of the inspecting engine (`app.inspection.Inspection`)."""

    def check(
        self,
        request: QuantizeRequest,
        then: Callable[[list[Check]], None],
        failed: Callable[[str], None],
    ) -> None: ...


class RunSheet(CheckedSheet):
    """Open it with `open()`; once accepted, `request` is what to run."""

    def __init__(
        self, state: State, settings: Settings, inspection: ChecksRuns, parent: QWidget | None = None
    ) -> None:
        super().__init__("Run", "Write the file", parent)
        assert state.path is not None, "a model is open"
        assert state.document.recipe is not None, "a model is open"
        # As they are now: another model may be opened under the sheet.
        self._model, self._recipe = state.path, state.document.recipe
        self._plan, self._export = state.plan, state.export
        self._start: PresetStart | None = None
        self._written: Written | None = None
        self._counter = Latest(self)
        self._counter.answered.connect(self._take_written)
        self._state, self._settings, self._inspection = state, settings, inspection
        self._text = EVALUATION_TEXT
        self.setWindowTitle("Run")
        self.setAccessibleName("Run: confirm what will be written")
        self.setMinimumWidth(WIDTH)
        self._make_fields()
        self._make_form()
        self._show_pre_tokenizers()
        self._take_text(EVALUATION_TEXT)
        self._connect()
        self._change()

    @property
    def request(self) -> QuantizeRequest:
        """What the fields say."""
        windows = self.windows.value() or None
        measure = Measure(text=str(self._text), windows=windows) if self.measure.isChecked() else None
        return QuantizeRequest(
            model=str(self._model),
            output=str(self._output()),
            recipe=self._chosen,
            preset=self._start,
            make_folders=will_be_made(self.folder.text().strip()),
            overwrite=self._replaces,
            measure=measure,
            memory_limit=memory_limit(self.memory.text()),
        )

    @property
    def _replaces(self) -> bool:
        """Whether the user wants what is there replaced: at this very place."""
        found = self._written
        here = found is not None and found.there and found.output == self._output()
        return here and self.replace.isChecked()

    @property
    def _chosen(self) -> Recipe:
        """The recipe with the effort and the size of files that are chosen here."""
        recipe = self._recipe.with_options(split_max_size=self.options.most)
        return recipe.model_copy(update={"effort": self.effort.currentData()})

    # ------------------------------------------------------------------------------ its making

    def _make_fields(self) -> None:
        folder = proposed_folder(self._model, self._settings.output_folder)
        self.name = named(QLineEdit(proposed_name(self._state)), "File name")
        self.folder = named(QLineEdit(str(folder)), "Folder of the file")
        self.browse_folder = button("Browse…", "Choose the folder")
        self.lm_studio = button("LM Studio", "Write where LM Studio lists it; its folder is made by the run")
        if models_folder() is None:
            self.lm_studio.setEnabled(False)
            tip = "LM Studio has no folder on this machine (.lmstudio in your home): start it once"
            self.lm_studio.setToolTip(tip)
        self.replace = named(QCheckBox("Replace what is there"), "Replace what is there")
        self.written = value_label("What will be written")
        self.importance = value_label("Importance matrix")
        self.options = OutputOptions(self._recipe.output.options.split_max_size)
        self.effort = named(QComboBox(), "Effort of the encoders")
        for name, text in EFFORTS.items():
            self.effort.addItem(f"{name}: {text}", name)
        said = "effort" in self._recipe.model_fields_set
        chosen = self._recipe.effort if said else self._settings.effort
        self.effort.setCurrentIndex(self.effort.findData(chosen))
        self.effort.setToolTip("How long the method search looks for scales; the file has the same size")
        self.measure = named(QCheckBox("Measure what was lost"), "Measure what was lost")
        self.measure.setChecked(self._settings.measure)
        self.measure.setToolTip(
            "Perplexity, KL divergence and agreement with the original, after the file is written"
        )
        self.windows = named(QSpinBox(), "Windows to measure on")
        self.windows.setRange(0, MOST_WINDOWS)
        self.windows.setSpecialValueText("all")
        self.windows.setToolTip(
            "Windows of 512 tokens that are measured; more take longer and make the error smaller"
        )
        self.memory = named(QLineEdit(), "Memory limit")
        self.memory.setPlaceholderText("all that the machine can give")
        self.memory.setToolTip("The most memory that the job may take, such as 8 GB. With less it is slower")
        self.text_line = value_label("Evaluation text")
        self.browse_text = button("Browse…", "Choose a text to measure on")

    def _make_form(self) -> None:
        form = QFormLayout()
        folder = QLabel("&Folder")
        folder.setBuddy(self.folder)
        form.addRow("&Name", self.name)
        form.addRow(folder, side_by_side(self.folder, self.browse_folder, self.lm_studio))
        form.addRow("", self.replace)
        self._replace_row = form.rowCount() - 1
        form.addRow(top_label("Written"), self.written)
        form.addRow(top_label("Options"), self.options)
        form.addRow("&Effort", self.effort)
        form.addRow("Importance", self.importance)
        if self._recipe.calibration:
            unused = value_label("Calibration text")
            unused.setText("the recipe names one, but none of its methods uses it")
            form.addRow("Calibration", unused)
        form.addRow(top_label("Checks"), self.checks)
        form.addRow("Measure", side_by_side(self.measure, self.windows, QLabel("windows"), stretch=True))
        form.addRow("", side_by_side(self.text_line, self.browse_text))
        form.addRow("Memory &limit", self.memory)
        self._form = form
        self._lay_out(form)

    def _name_importance(self) -> None:
        """What the recipe weighs errors by; a calibration that ends under the sheet may change that."""
        awaited = self._awaited
        imatrix = awaited or (Path(self._recipe.imatrix) if self._recipe.imatrix else None)
        name = printable(imatrix.name) if imatrix else "none"
        self.importance.setText(f"{name}, being read" if awaited else name)
        self.importance.setToolTip(as_tip(str(imatrix or "")))

    def _connect(self) -> None:
        self._state.document.changed.connect(self._follow_recipe)
        self._state.awaited_changed.connect(self._change)
        self._state.plan_changed.connect(self._follow_plan)
        self.name.textChanged.connect(self._change)
        self.folder.textChanged.connect(self._change)
        self.replace.toggled.connect(self._change)
        self.effort.currentIndexChanged.connect(self._change)
        self.measure.toggled.connect(self._change)
        self.windows.valueChanged.connect(self._change)
        self.memory.textChanged.connect(self._change)
        self.browse_folder.clicked.connect(self._choose_folder)
        self.lm_studio.clicked.connect(self._choose_lm_studio)
        self.options.changed.connect(self._change)
        self.options.unfolded.connect(self._fit)
        self.options.edit_metadata.connect(self._edit_metadata)
        self.options.pre_tokenizer_chosen.connect(self._choose_pre_tokenizer)
        self.browse_text.clicked.connect(self._choose_text)

    # ------------------------------------------------------------------------------ the fields

    def _output(self) -> Path:
        return Path(self.folder.text().strip()).expanduser() / file_name(self.name.text())

    def _choose_folder(self) -> None:
        def take(folder: Path) -> None:
            self.folder.setText(str(folder))

        ask_folder(self, "Write into", self.folder.text(), take)

    def _choose_lm_studio(self) -> None:
        try:
            output = lm_studio_output(self._state)
        except OutputError as error:
            self._refuse(for_window(str(error)))
            return
        self.folder.setText(str(output.parent))
        self.name.setText(output.name)

    def _edit_metadata(self) -> None:
        """Over this sheet, for it is modal; its edits are steps of the recipe."""
        if self._same_model:
            MetadataSheet(self._state, self).open()

    def _choose_pre_tokenizer(self, name: str | None) -> None:
        """A step of the recipe, as the metadata's edits are."""
        if self._same_model:
            text = f"Pre-tokenizer {name}" if name else "Pre-tokenizer as recognised"
            self._state.change_recipe(text, self._recipe.with_options(pre_tokenizer=name))

    @property
    def _same_model(self) -> bool:
        return self._state.path == self._model and self._state.phase == "ready"

    @property
    def _awaited(self) -> Path | None:
        """The matrix that the recipe gets if it fits."""
        return self._state.awaited if self._same_model else None

    def _follow_recipe(self) -> None:
        recipe = self._state.document.recipe
        if self._same_model and recipe is not None and recipe != self._recipe:
            self._recipe, self._plan = recipe, None
            self._show_pre_tokenizers()
            self._change()

    def _show_pre_tokenizers(self) -> None:
        kind = self._state.summary.kind if self._state.summary else ""
        choices = pre_tokenizers(self._export, self._recipe, kind)
        self.options.show_pre_tokenizers(choices, self._recipe.output.options.pre_tokenizer)

    def _follow_plan(self) -> None:
        if self._same_model and self._state.plan is not None:
            self._plan, self._export = self._state.plan, self._state.export
            self._count()

    def _choose_text(self) -> None:
        def take(text: Path) -> None:
            self._take_text(text)
            self._change()

        start = Path.home() if self._text == EVALUATION_TEXT else self._text.parent
        ask_file(self, "Measure on", str(start), ["Texts (*.txt *.raw *.md)", "All files (*)"], take)

    def _take_text(self, text: Path) -> None:
        """Measure on `text`: on all of it where it is short."""
        self._text = text
        self.text_line.setText(text_label(text))
        self.text_line.setToolTip(str(text))
        windows = text_windows(text)
        self.windows.setValue(0 if windows is not None and windows < QUICK_WINDOWS else QUICK_WINDOWS)

    def _change(self) -> None:
        super()._change()
        for control in (self.windows, self.browse_text):
            control.setEnabled(self.measure.isChecked())
            tip = control.toolTip().removesuffix(": measuring is off")
            control.setToolTip(tip if self.measure.isChecked() else f"{tip}: measuring is off")
        self._name_importance()
        self.options.show_metadata(edits_label(self._recipe.output.options.metadata))
        self._count()
        self._describe()

    def _wrong(self) -> str:
        name = file_name(self.name.text())
        wrong = refusal(name, self.folder.text()) or memory_refusal(self.memory.text())
        wrong = wrong or self.options.refusal
        if self._awaited and not wrong:
            return f"{printable(self._awaited.name)} is being read: wait until the recipe uses it."
        return wrong

    def _count(self) -> None:
        """How many files of which size it will be: beside the window's thread, for it asks every tensor."""
        if self._plan is None or self._export is None or self.options.refusal:
            return
        wrong = refusal(file_name(self.name.text()), self.folder.text())
        output = None if wrong else self._output()
        self._counter.ask(partial(written, self._export, self._plan, self._chosen.output.options, output))

    def _take_written(self, found: Written) -> None:
        self._written = found
        self._describe()

    def _describe(self) -> None:
        plan, found = self._plan, self._written
        if plan is None or found is None:
            return
        name = file_name(self.name.text())
        figures = f"{size(found.bytes)}, {plan.bits_per_weight:.3g} bits per weight"
        parts = f" in {found.files:,} files" if found.files > 1 else ""
        self.written.setText(f"{name or 'a file'}, {figures}{parts}\n{formats_line(plan)} tensors")
        self.written.setToolTip(f"{found.bytes:,} bytes, predicted, exact")
        self.options.show_files(Path(name), found.files)
        if self._form.isRowVisible(self._replace_row) != found.there:
            self._form.setRowVisible(self._replace_row, found.there)
            self._fit()

    # ------------------------------------------------------------------------------ the checks

    def _check(self, then: Callable[[list[Check]], None], failed: Callable[[str], None]) -> None:
        self._inspection.check(self.request, then, failed)

    def _allow(self) -> None:
        super()._allow()
        if not self.name.isModified() and not self.folder.isModified():
            self.run.setFocus()

    def _remember(self) -> None:
        self._start = preset_start(self._state, self._recipe) if self._same_model else None
        self._settings.effort = self.effort.currentData()
        if not will_be_made(str(self._output().parent)):  # LM Studio's are of one model
            self._settings.output_folder = str(self._output().parent)
        self._settings.measure = self.measure.isChecked()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._fit()
        self.name.setFocus()
        self.name.selectAll()
