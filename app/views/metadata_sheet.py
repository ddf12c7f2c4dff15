"""The metadata sheet: what the file will say of itself. Each edit is one undoable step of the recipe."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QTabWidget, QVBoxLayout, QWidget

from app import theme
from app.letters import Letters
from app.models.metadata import (
    KeyLine,
    csv_of,
    edited_by,
    edits_label,
    lines_of,
    refusal,
    text_of,
)
from app.plain import printable
from app.state import State
from app.views.metadata_form import LONG, MetadataForm
from app.views.metadata_keys import MetadataKeys
from app.views.parts import button
from engine.api.metadata import COMMON, Edit, MetadataEntry, full_key
from engine.api.units import size

WIDTH, HEIGHT = 820, 660

MOST_LETTERS = 100_000
"""Of a value, are looked for before it is shown."""


class MetadataSheet(QDialog):
    """Shows and edits the recipe's metadata as long as its model is open; needs no confirmation."""

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        assert state.export is not None, "the action needs a plan"
        self._state, self._path = state, state.path
        self._entries: dict[str, MetadataEntry] = {}
        self._shown: dict[str, Edit] | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(f"Metadata of {printable(state.path.name)}" if state.path else "Metadata")
        self.setAccessibleName("Metadata of the file")
        self.resize(WIDTH, HEIGHT)
        self.form = MetadataForm(self._refusal)
        self._keys: MetadataKeys | None = None
        self._lines: list[KeyLine] = []
        self._faults_told: dict[str, str] = {}
        self.tabs = QTabWidget(self)
        self.tabs.setDocumentMode(True)
        self.tabs.setAccessibleName("Common fields or all keys")
        self.tabs.addTab(self.form, "&Common")
        self._later = QWidget()
        QVBoxLayout(self._later).setContentsMargins(0, 0, 0, 0)
        self.tabs.addTab(self._later, "&All keys")
        self.status = QLabel(textFormat=Qt.TextFormat.PlainText)
        self.status.setFont(theme.figures_font(self.status.font()))
        self.status.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        self.reset = button("&Reset all", "Take all edits of metadata back, as one step")
        self.copy = button("Copy as CS&V", "Copy all keys and values as a table (CSV)")
        self.leave = button("Close", "Close the sheet; what is edited stays in the recipe (Escape)")
        self._lay_out()
        self._listen(self.form)
        self.tabs.currentChanged.connect(lambda: self.keys)
        self.reset.clicked.connect(lambda: self._change("Metadata as in the source", {}))
        self.copy.clicked.connect(self._copy)
        self.leave.clicked.connect(self.close)
        state.model_changed.connect(self._leave_with_model)
        for part in (self.tabs, self.copy, self.reset):
            part.setEnabled(False)
        self.status.setText("The values are being looked through.")
        letters = Letters(self)
        letters.ready.connect(self._begin)
        texts = {entry.key: text_of(entry)[:MOST_LETTERS] for entry in state.metadata}
        in_fields = [(theme.names_font(), texts[key]) for key in LONG if key in texts]
        letters.find([*in_fields, *((self.font(), text) for text in texts.values())])

    def _begin(self) -> None:
        """The letters of all values can be shown without a pause: what is typed counts from here on."""
        for part in (self.tabs, self.copy, self.reset):
            part.setEnabled(True)
        self._state.document.changed.connect(self._follow)
        self._state.plan_changed.connect(self._follow_plan)
        self._follow_plan()
        if self.isVisible():
            self.form.enter()

    def showEvent(self, event: QShowEvent) -> None:
        """Nothing is selected that typing would replace; what the window system does moves no cursor."""
        super().showEvent(event)
        if not event.spontaneous():
            self.form.enter()

    @property
    def keys(self) -> MetadataKeys:
        """The table, made when its tab is opened for the first time."""
        if self._keys is None:
            self._keys = MetadataKeys(self._refusal, self._later)
            layout = self._later.layout()
            assert layout is not None
            layout.addWidget(self._keys)
            self._listen(self._keys)
            self._keys.show_lines(self._lines)
        return self._keys

    def _listen(self, part: MetadataForm | MetadataKeys) -> None:
        part.edited.connect(self._edit)
        part.reset.connect(self._reset)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(2 * theme.SPACE)
        buttons.addWidget(self.status, 1)
        for part in (self.reset, self.copy, self.leave):
            buttons.addWidget(part)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[4 * theme.SPACE] * 4)
        layout.setSpacing(3 * theme.SPACE)
        layout.addWidget(self.tabs, 1)
        layout.addLayout(buttons)

    # ---------------------------------------------------------------------------------- edits

    @property
    def _edits(self) -> dict[str, Edit]:
        """The recipe's, which may have plain names, under the keys that they stand for."""
        recipe = self._state.document.recipe
        edits = recipe.output.options.metadata if recipe else {}
        return {full_key(key, self._entries): value for key, value in edits.items()}

    def _refusal(self, key: str, value: Edit) -> str:
        return refusal(self._entries.get(key), key, value)

    def _edit(self, key: str, value: Edit) -> None:
        """`value` is not refused; "" leaves the key out."""
        entry: MetadataEntry | None = self._entries.get(key)
        verb = "Leave out" if value == "" else "Metadata"
        self._change(f"{verb} {COMMON.get(key, key)}", edited_by(self._edits, entry, key, value))

    def _reset(self, key: str) -> None:
        left = {name: value for name, value in self._edits.items() if name != key}
        self._change(f"Reset {COMMON.get(key, key)}", left)

    def _change(self, text: str, edits: dict[str, Edit]) -> None:
        recipe = self._state.document.recipe
        if recipe is not None and edits != self._edits:
            self._state.change_recipe(text, recipe.with_options(metadata=edits))

    # ------------------------------------------------------------------------------ what it shows

    def _follow_plan(self) -> None:
        """Which importance matrix is used is in the metadata, too."""
        entries = {entry.key: entry for entry in self._state.metadata}
        if entries and entries != self._entries:
            self._entries, self._shown = entries, None
            self._follow()
        else:
            self._say()

    def _follow(self) -> None:
        """Show the recipe's edits: those of this sheet, of undo, of another recipe."""
        edits = self._edits
        if edits == self._shown:
            return
        self._shown = dict(edits)
        lines = lines_of(self._entries.values(), edits)
        self.form.show_lines({line.key: line for line in lines})
        self._lines = lines
        if self._keys is not None:
            self._keys.show_lines(lines)
        self.reset.setEnabled(bool(edits))
        self._say()

    def _say(self) -> None:
        count, edits = self._state.file_bytes, self._edits
        said = f"{len(self._lines):,} keys, {edits_label(edits)}"
        self.status.setText(said if count is None else f"{said} · file {size(count)}, predicted")
        self.status.setToolTip("" if count is None else f"{count:,} bytes, predicted, exact")
        self.status.setAccessibleName(self.status.text())

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(csv_of(self._lines))
        self.status.setText(f"Copied {len(self._lines):,} keys.")

    # ---------------------------------------------------------------------------------- leaving

    def _leave_with_model(self) -> None:
        if self._state.path != self._path or self._state.phase != "ready":
            self._faults_told = self._faults()
            self.close()

    def done(self, result: int) -> None:
        """What is being typed counts; what cannot be is told, and is left as it was when asked again."""
        self.form.commit()
        if self._keys is not None:
            self._keys.commit()
        faults = self._faults()
        if faults in ({}, self._faults_told):
            super().done(result)
            return
        self._faults_told = faults
        name = next(iter(faults))
        self.status.setText(f"{name} cannot be so: mend it, or close again to leave it as it was.")
        self.status.setAccessibleName(self.status.text())

    def _faults(self) -> dict[str, str]:
        """Why what stands in fields cannot be, by their names."""
        fields = [*self.form.fields.values(), *([] if self._keys is None else [self._keys.field])]
        return {field.name: field.wrong for field in fields if field.wrong}
