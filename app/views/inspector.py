"""What is known of the selected tensor: facts, what the recipe does with it and why, and its weights."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAction, QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QScrollArea, QStackedLayout, QVBoxLayout, QWidget

from app import theme
from app.models.layer_lines import COPIED
from app.plain import BREAK, MOST_TOLD, as_tip, breakable, printable, shortened
from app.plotting import plotting
from app.state import Row, State
from app.views.figure import FigureView
from engine.api.events import HistogramRead
from engine.api.figures import Axis, Figure, Series
from engine.api.formats import LAYOUTS, METHODS
from engine.api.plan import TensorPlan
from engine.api.recipe import Recipe
from engine.api.units import size

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

SETTLE_MS = 250
"""How long a selection must stand before its weights are read."""

FIGURE_HEIGHT = 220
"""Pixels at least: below that a histogram says nothing."""

NO_BREAK = "\N{NO-BREAK SPACE}"


class ReadsHistograms(Protocol):
    """What the inspector needs of the inspecting engine (`app.inspection.Inspection`)."""

    def histogram(
        self,
        model: Path,
        tensor: str,
        then: "Callable[[HistogramRead, np.ndarray], None]",
        failed: "Callable[[str], None]",
    ) -> None: ...


class Inspector(QWidget):
    """Follows the shared selection; its last row is the one shown."""

    def __init__(self, state: State, inspection: ReadsHistograms, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._inspection = state, inspection
        self._shown: tuple[Path | None, str] = (None, "")
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        self._facts: dict[str, tuple[QLabel, QLabel]] = {}
        self._said: dict[str, tuple[str, str]] = {}
        plotting().ready.connect(self._ask)
        self._make_widgets()
        state.selection_changed.connect(self._follow)
        state.model_changed.connect(self._follow)
        state.plan_changed.connect(self._show_facts)
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
        self._figures = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self._figures.setFont(theme.figures_font(self._figures.font()))
        self._figures.setAccessibleName("Weights: smallest, largest, mean, standard deviation")
        self._figures.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(*[3 * theme.SPACE] * 4)
        layout.setSpacing(2 * theme.SPACE)
        layout.addWidget(self._name)
        layout.addLayout(form)
        layout.addWidget(self.figure, 1)
        layout.addWidget(self._figures)
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

    def _current(self) -> Row | None:
        if not self._state.selection:
            return None
        key = self._state.selection[-1]
        return next((row for row in self._state.rows if row.key == key), None)

    def _follow(self) -> None:
        """Show the current row at once, its weights when the selection has settled."""
        row = self._current()
        if row is None:
            self._settle.stop()
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
            self.figure.show_text("Reading the weights…")
            self._figures.clear()
            self._settle.start()

    def _show_facts(self) -> None:
        row = self._current()
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
        if self.figure.figure is None:
            self._settle.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._settle.stop()

    def _ask(self) -> None:
        row, path = self._current(), self._state.path
        if row is None or path is None or not self.isVisible():
            return
        if not row.sources:
            self.figure.show_text("Computed when the file is written: there are no stored weights to count.")
            return
        if not plotting().loaded:  # numpy comes along, which the answer needs at once
            plotting().load()
            return
        asked = self._shown
        name = row.sources[0]

        def take(read: HistogramRead, counts: "np.ndarray") -> None:
            if asked == self._shown:
                self._show_histogram(read, counts, len(row.sources))

        def fail(reason: str) -> None:
            if asked == self._shown:
                self.figure.show_text(reason)

        self._inspection.histogram(path, name, take, fail)

    def _show_histogram(self, read: HistogramRead, counts: "np.ndarray", sources: int) -> None:
        self.figure.show_figure(histogram_figure(read, counts))
        figures = [
            f"min{NO_BREAK}{read.minimum:.4g}",
            f"max{NO_BREAK}{read.maximum:.4g}",
            f"mean{NO_BREAK}{read.mean:.3g}",
            f"σ{NO_BREAK}{read.deviation:.3g}",
        ]
        name = breakable(shortened(printable(read.tensor)))
        first = f"\nThe first of {sources} sources: {name}" if sources > 1 else ""
        self._figures.setText(" · ".join(figures).replace("-", "−") + first)
        self._figures.setToolTip(
            f"minimum {read.minimum!r}\nmaximum {read.maximum!r}\nmean {read.mean!r}\n"
            f"standard deviation {read.deviation!r}\n{read.count:,} weights"
        )


def histogram_figure(read: HistogramRead, counts: "np.ndarray") -> Figure:
    """The distribution of a tensor's weights. `counts`: float64 [2, bins], lower edges and counts."""
    lows, heights = counts.tolist()
    series = Series(name="original", x=lows, y=heights, width=read.width)
    return Figure(
        title=f"Weights of {read.tensor}", x=Axis(name="weight"), y=Axis(name="count"), series=[series]
    )


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
