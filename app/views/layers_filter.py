"""The row over the table of layers: a regular expression on names, the roles to show, how many are left."""

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QMenu, QPushButton, QWidget

from app import theme
from app.models.layers import LayersModel
from app.plain import as_tip
from app.views.elided import Elided
from engine.api.model import Role

MOST_NAMED = 2
"""So many roles are named on the button; more are counted."""


class FilterRow(QWidget):
    """Drives the filter of a `LayersModel`."""

    leave = Signal()
    """The user is done with the field and wants the table."""

    def __init__(self, model: LayersModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.field = _Field()
        self.field.setPlaceholderText("filter names, e.g. ffn_down")
        self.field.setAccessibleName("Filter names by a regular expression")
        self.field.setToolTip("A regular expression, searched in the source's names and those in the file")
        self.field.setClearButtonEnabled(True)
        self.field.addAction(theme.icon("funnel", "muted"), QLineEdit.ActionPosition.LeadingPosition)
        fault = theme.icon("warning-circle", "error")
        self._fault = self.field.addAction(fault, QLineEdit.ActionPosition.TrailingPosition)
        self.field.textChanged.connect(self.apply)
        self.field.returnPressed.connect(self.leave)
        self.field.escaped.connect(self._escape)
        self.roles = QPushButton()
        self.roles.setAccessibleName("Roles to show")
        self.roles.setToolTip("Show the tensors of these roles alone")
        self.menu = _CheckMenu(self.roles)
        self.roles.setMenu(self.menu)
        self.reason = Elided()
        self.reason.setAccessibleName("Why the filter is not applied")
        self.count = QLabel()
        self.count.setAccessibleName("Tensors shown")
        row = QHBoxLayout(self)
        row.setContentsMargins(2 * theme.SPACE, 2 * theme.SPACE, 2 * theme.SPACE, 2 * theme.SPACE)
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(self.field, 1)
        row.addWidget(self.roles)
        row.addWidget(self.reason, 1)
        row.addWidget(self.count)
        model.modelReset.connect(self._count)
        theme.notifier().changed.connect(self._dress)
        self.fill()
        self._dress()

    @property
    def offered(self) -> list[Role]:
        return list(self._actions)

    def fill(self) -> None:
        """Offer the roles of the model that is open now; what was filtered is shown again."""
        self.menu.clear()
        self._every = QAction("All roles", self.menu)
        self._every.setToolTip("Show every role")
        self._every.triggered.connect(self._show_every)
        self.menu.addAction(self._every)
        self.menu.addSeparator()
        self._actions: dict[Role, QAction] = {}
        for role, count in self._model.roles.items():
            action = QAction(f"{role.value}\t{count:,}", self.menu)
            action.setCheckable(True)
            action.toggled.connect(self.apply)
            self.menu.addAction(action)
            self._actions[role] = action
        self.clear()

    def clear(self) -> None:
        """Show everything."""
        self.field.clear()
        self._show_every()

    def _show_every(self) -> None:
        for action in self._actions.values():
            action.blockSignals(True)
            action.setChecked(False)
            action.blockSignals(False)
        self.apply()

    def apply(self) -> None:
        """Filter the model by what is chosen here, and say so if it cannot be."""
        roles = [role for role, action in self._actions.items() if action.isChecked()]
        reason = self._model.set_filter(self.field.text(), frozenset(roles))
        self.reason.setText(reason)
        self.reason.setToolTip(as_tip(reason))
        self._fault.setVisible(bool(reason))
        self._fault.setToolTip(as_tip(reason))
        if not roles:
            self.roles.setText("All roles")
        elif len(roles) <= MOST_NAMED:
            self.roles.setText(", ".join(role.value for role in roles))
        else:
            self.roles.setText(f"{len(roles)} roles")
        self._count()

    def _escape(self) -> None:
        """First out of the text, then out of the field."""
        if self.field.text():
            self.field.clear()
        else:
            self.leave.emit()

    def _count(self) -> None:
        shown, total = self._model.shown, self._model.total
        noun = "tensor" if total == 1 else "tensors"
        self.count.setText(f"{shown:,} of {total:,} {noun}" if self._model.filtered else f"{total:,} {noun}")

    def _dress(self) -> None:
        colors = theme.colors()
        self.reason.setStyleSheet(f"color: {colors.error.name()}")
        self.count.setStyleSheet(f"color: {colors.muted.name()}")
        self.count.setFont(theme.figures_font(self.font()))


class _Field(QLineEdit):
    """Says when Escape is pressed in it."""

    escaped = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.escaped.emit()
        else:
            super().keyPressEvent(event)


class _CheckMenu(QMenu):
    """A menu that stays open while one checks several of its items."""

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if not self._toggled(self.actionAt(event.position().toPoint())):
            super().mouseReleaseEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() != Qt.Key.Key_Space or not self._toggled(self.activeAction()):
            super().keyPressEvent(event)

    def _toggled(self, action: QAction | None) -> bool:
        if action is None or not action.isCheckable():
            return False
        action.trigger()
        return True
