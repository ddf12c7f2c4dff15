"""What is known of the selected tensor: facts, what the recipe does with it and why, and its weights."""

from dataclasses import replace
from math import prod
from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAction, QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QScrollArea, QStackedLayout, QVBoxLayout, QWidget

from app import theme
from app.activations import ActivationsDesk
from app.figure_reader import STATISTICS, Drawn, FigureReader
from app.models.layer_lines import COPIED
from app.models.looked_at import COMPUTED, as_written, stored
from app.plain import BREAK, MOST_TOLD, as_tip, breakable, printable, shortened
from app.state import State
from app.views.figure import FigureView
from app.views.figure_slot import FigureSlot
from app.views.statistics_lines import StatisticsLines
from engine.api.formats import LAYOUTS, METHODS
from engine.api.plan import TensorPlan
from engine.api.recipe import Recipe
from engine.api.statistics import WeightStatistics
from engine.api.units import size
from engine.api.views import HistogramOf

SETTLE_MS = 250
"""How long a recipe must stand before it is measured what it loses."""

FIGURE_HEIGHT = 220
"""Pixels at least: below that a histogram says nothing."""

BINS = 120
"""Of the small histogram."""


class Inspector(QWidget):
    """Follows the shared selection; its last row is the one shown."""

    def __init__(
        self, state: State, reader: FigureReader, desk: ActivationsDesk, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._state, self._reader, self._desk = state, reader, desk
        self._shown: tuple[Path | None, str] = (None, "")
        self._known: tuple[str, Recipe | None, Path | None] | None = None  # what the statistics are about
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        self._facts: dict[str, tuple[QLabel, QLabel]] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._make_widgets()
        state.selection_changed.connect(self._follow)
        state.model_changed.connect(self._follow)
        state.plan_changed.connect(self._follow_plan)
        reader.dropped.connect(self._follow)
        desk.changed.connect(self._follow_activations)
        self._follow()

    def _make_widgets(self) -> None:
        self._empty = QLabel(wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        self._empty.setMargin(4 * theme.SPACE)
        self._name = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self._name.setFont(theme.names_font())
        copy = QAction("Copy name", self._name)
        copy.triggered.connect(lambda: QGuiApplication.clipboard().setText(self._name.accessibleName()))
        self._name.addAction(copy)
        self._name.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        form = QFormLayout(horizontalSpacing=3 * theme.SPACE, verticalSpacing=theme.SPACE)
        for fact in ("Selected", "Shape", "Role", "Source", "Format", "Method", "Size", "Chosen by", "Note"):
            self._facts[fact] = self._add_fact(form, fact)
        self.figure = FigureView("Weights")
        self.figure.setMinimumHeight(FIGURE_HEIGHT)
        self.slot = FigureSlot(self.figure, self._reader, "inspector", _rough, self)
        self.slot.dress = _without_marks
        self.figure.add_control(self.slot.progress)
        self.slot.failed.connect(self.figure.show_text)
        self.slot.drawn.connect(self._ask_statistics)
        self.statistics = StatisticsLines()
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(*[3 * theme.SPACE] * 4)
        layout.setSpacing(2 * theme.SPACE)
        layout.addWidget(self._name)
        layout.addLayout(form)
        layout.addWidget(self.figure, 1)
        layout.addWidget(self.statistics)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        scroll = QScrollArea()  # where other panels leave little room; squeezed lines lose their underscores
        scroll.setAccessibleName("Inspector")
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidgetResizable(True)
        scroll.setWidget(page)
        self._stack.addWidget(scroll)

    def _add_fact(self, form: QFormLayout, name: str) -> tuple[QLabel, QLabel]:
        label = QLabel(name, alignment=Qt.AlignmentFlag.AlignTop)
        value = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        label.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        value.setFont(theme.figures_font(value.font()))
        value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        form.addRow(label, value)
        return label, value

    # ------------------------------------------------------------------------------- the facts

    def _follow(self) -> None:
        """Show the current row at once, its weights when the selection has settled."""
        row = self._state.current
        if row is None:
            self._settle.stop()
            self._forget()
            self._shown = (None, "")
            empty = "Open a model to look at its tensors."
            some = "Select a tensor in the table: what is known of it is shown here."
            self._empty.setText(some if self._state.rows else empty)
            self._stack.setCurrentIndex(0)
            return
        name = shortened(printable(row.name))
        self._name.setText(breakable(name.replace(".", "." + BREAK).replace("_", "_" + BREAK)))
        self._name.setAccessibleName(row.name)
        name, key = _told(row.name), _told(row.key)
        self._name.setToolTip(as_tip(name if row.name == row.key else f"{name}\nIn the file: {key}"))
        self._show_facts()
        self._stack.setCurrentIndex(1)  # filled: shown first, it would be laid out anew for every fact
        if self._shown != (self._state.path, row.key):
            self._shown = (self._state.path, row.key)
            self._forget()
            self._ask()

    def _forget(self) -> None:
        """What was shown of the weights was of another tensor."""
        self._known = None
        self.slot.forget()
        self._reader.drop(STATISTICS)
        self.statistics.show_statistics(None)

    def _follow_plan(self) -> None:
        self._show_facts()
        found, row = self.statistics.statistics, self._state.current
        if found is None or row is None or self._known is None:
            return
        known, recipe, activations = self._known
        if found.error is not None and (known, recipe) != (stored(row), as_written(self._state, row)):
            self._reader.drop(STATISTICS)
            self._known = (found.tensor, None, activations)
            self.statistics.show_statistics(found.model_copy(update={"error": None}))
        self._settle.start()  # the recipe may lose something else of it now

    def _follow_activations(self) -> None:
        if self._known is not None and self._known[2] != self._desk.file:
            self._settle.start()

    def _show_facts(self) -> None:
        row = self._state.current
        if row is None:
            return
        plan = self._state.planned(row)
        count = len(self._state.selection)
        others = f"{count} tensors; the last one is shown" if count > 1 else ""
        block = f", block {row.block}" if row.block is not None else ""
        weights = prod(row.shape)
        self._set("Selected", others)
        self._set("Shape", f"{' × '.join(map(str, row.shape)) or 'one value'}", f"{weights:,} weights")
        self._set("Role", row.role.value + block)
        dtype, sources = shortened(printable(row.dtype)), _told(", ".join(row.sources))
        self._set("Source", f"{dtype}, {size(row.bytes)}", f"{row.bytes:,} bytes; {sources}")
        recipe = self._state.document.recipe
        if plan is None or recipe is None:
            self._set("Format", "not in the output" if self._state.phase == "ready" else "")
            for fact in ("Method", "Size", "Chosen by", "Note"):
                self._set(fact, "")
            return
        self._set(
            "Format",
            f"{plan.format}, {8 * plan.bytes / weights:.3g} bits",
            f"bits per weight, scales and all\n{LAYOUTS[plan.format].summary}",
        )
        if plan.copied:
            self._set("Method", "copied", COPIED)
        else:
            self._set("Method", "" if plan.kept else plan.method, METHODS[plan.method])
        exact = f"{row.bytes:,} → {plan.bytes:,} bytes, predicted, exact"
        self._set("Size", f"{size(row.bytes)} → {size(plan.bytes)}", exact)
        chooser = printable(_chooser(plan, recipe))
        self._set("Chosen by", shortened(chooser), _told(chooser) if shortened(chooser) != chooser else "")
        self._set("Note", plan.note or "")

    def _set(self, fact: str, text: str, tip: str = "") -> None:
        """A fact that says nothing takes no line."""
        if self._said.get(fact) == (text, tip):
            return
        self._said[fact] = text, tip
        label, value = self._facts[fact]
        value.setText(breakable(text))
        value.setToolTip(as_tip(tip))
        value.setAccessibleName(f"{fact}: {text}")
        for part in (label, value):
            if part.isHidden() == bool(text):
                part.setVisible(bool(text))

    # ------------------------------------------------------------------------------ the weights

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._ask()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._settle.stop()

    def _ask(self) -> None:
        """The histogram first; when its weights are read, the statistics are ready, too."""
        row = self._state.current
        if row is None or not self.isVisible():
            return
        tensor = stored(row)
        if tensor is None:
            self.figure.show_text(COMPUTED)
            return
        self.slot.want(HistogramOf(tensor=tensor, bins=BINS))
        if self.slot.shown is not None:
            self._ask_statistics(self.slot.shown)

    def _ask_statistics(self, drawn: Drawn) -> None:
        """Those of the weights come first, those of the format's errors when they are measured."""
        row = self._state.current
        tensor = stored(row) if row is not None else None
        if row is None or tensor is None or not drawn.last:
            return
        recipe = as_written(self._state, row)
        if self._known is None or self._known[0] != tensor:
            self._read_statistics(tensor, None)
        elif self._known != (tensor, recipe, self._desk.file):
            self._read_statistics(tensor, recipe)

    def _read_statistics(self, tensor: str, recipe: Recipe | None) -> None:
        self._known = (tensor, recipe, self._desk.file)

        def take(found: WeightStatistics) -> None:
            self.statistics.show_statistics(found)
            if self.slot.shown is not None:
                self._ask_statistics(self.slot.shown)

        self._reader.statistics(tensor, recipe, self._desk.file, take, self.statistics.show_problem)


def _without_marks(drawn: Drawn) -> Drawn:
    """There is no room for their names, and the lines below have the percentiles."""
    return replace(drawn, figure=drawn.figure.model_copy(update={"marks": []}))


def _rough(drawn: Drawn) -> str:
    return "first, rough"


def _told(name: str) -> str:
    """As much of a name as a tool tip says."""
    return shortened(printable(name), MOST_TOLD)


def _chooser(plan: TensorPlan, recipe: Recipe) -> str:
    """Which rule of the recipe chose: "rule 3: down, blocks 0-3"."""
    if plan.kept:
        return ""
    if plan.rule is None:
        return "the default"
    rule = recipe.rules[plan.rule]
    blocks = f", blocks {rule.blocks}" if rule.blocks else ""
    pinned = ", pinned" if rule.pinned else ""
    return f"rule {plan.rule + 1}: {rule.match}{blocks}{pinned}"
