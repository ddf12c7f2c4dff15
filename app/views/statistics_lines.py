"""All statistics of one tensor as lines of a form, which can be copied."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFormLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.models.statistics import Fact, facts_of, text_of
from app.plain import as_tip, breakable
from app.views.parts import button, named
from engine.api.statistics import WeightStatistics


class StatisticsLines(QWidget):
    """Hidden as long as nothing is known; every line has a tip with all digits."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: WeightStatistics | None = None
        self._lines: list[tuple[QLabel, QLabel]] = []
        self._form = QFormLayout(horizontalSpacing=3 * theme.SPACE, verticalSpacing=theme.SPACE)
        self._problem = named(QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText), "Statistics: state")
        self.copy = button("Copy all", "Copy all statistics of the tensor as text")
        self.copy.setAccessibleName("Copy all statistics")
        self.copy.clicked.connect(self._copy)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2 * theme.SPACE)
        column.addWidget(self._problem)
        column.addLayout(self._form)
        column.addWidget(self.copy, alignment=Qt.AlignmentFlag.AlignLeft)
        self.show_statistics(None)

    def show_statistics(self, statistics: WeightStatistics | None) -> None:
        self.statistics = statistics
        self._problem.hide()
        facts = [] if statistics is None else facts_of(statistics)
        for fact, line in zip(facts, self._lines_for(len(facts)), strict=False):
            _fill(line, fact)
        self.setVisible(bool(facts))

    def show_problem(self, sentence: str) -> None:
        """Why they, or those of the error, are not known."""
        self._problem.setText(breakable(sentence))
        self._problem.show()
        self.copy.setVisible(self.statistics is not None)
        self.show()

    def text(self) -> str:
        """Everything, a line each, all digits."""
        return "" if self.statistics is None else text_of(self.statistics)

    def _lines_for(self, count: int) -> list[tuple[QLabel, QLabel]]:
        """As many lines as are needed, those behind them hidden; lines are made once."""
        while len(self._lines) < count:
            label, value = QLabel(textFormat=Qt.TextFormat.PlainText), QLabel(wordWrap=True)
            label.setForegroundRole(self.palette().ColorRole.PlaceholderText)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setFont(theme.figures_font(value.font()))
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._form.addRow(label, value)
            self._lines.append((label, value))
        for place, line in enumerate(self._lines):
            for part in line:
                part.setVisible(place < count)
        self.copy.setVisible(count > 0)
        return self._lines

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text())


def _fill(line: tuple[QLabel, QLabel], fact: Fact) -> None:
    label, value = line
    label.setText(fact.name)
    value.setText(breakable(fact.text))
    value.setAccessibleName(f"{fact.name}: {fact.text}")
    for part in line:
        part.setToolTip(as_tip(fact.tip))
