"""Choices as a list shows them: a name, a figure, what it is, and why not where it cannot be chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont, QIcon, QPixmap, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication

from app import theme
from app.plain import as_tip

NAME, FIGURE, SUMMARY = range(3)
"""The columns."""

NAME_ROLE = Qt.ItemDataRole.UserRole
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True)
class Offer:
    """One choice.

    `text` is what the line shows for `name`, `figure` its bits or bytes, `summary` what it is. Where it is
    not `possible`, `reason` says why. `present`: what is chosen now. `caution`: what to know before; `tip`: a
    line that hovering adds.
    """

    name: str
    text: str
    figure: str
    summary: str
    possible: bool = True
    present: bool = False
    reason: str = ""
    caution: str = ""
    tip: str = ""

    @property
    def said(self) -> str:
        """What the last column says."""
        return self.reason.partition("\n")[0] or " · ".join(filter(None, (self.caution, self.summary)))


class OfferModel(QStandardItemModel):
    """The offers under their headings; a heading "" has no line. `marked`: a sign before what is present."""

    def __init__(self, groups: Mapping[str, Sequence[Offer]], marked: bool, parent: QObject | None = None):
        super().__init__(0, 3, parent)
        self.headings: list[int] = []
        self._rows: dict[str, int] = {}
        self._figures = theme.figures_font(QApplication.font())
        self._marked = marked
        for heading, offers in groups.items():
            if heading:
                self.headings.append(self.rowCount())
                self.appendRow([_heading(heading), _plain(""), _plain("")])
            for offer in offers:
                self._rows[offer.name] = self.rowCount()
                self.appendRow(self._line(offer))

    def data(
        self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """The color is that of the moment: the theme may change under an open list."""
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == SUMMARY:
            usable = index.flags() & Qt.ItemFlag.ItemIsEnabled
            return theme.colors().muted if usable else theme.colors().disabled
        return super().data(index, role)

    def row_of(self, name: str) -> int:
        """The line of an offer."""
        return self._rows[name]

    def replace(self, offer: Offer) -> None:
        """Show an offer as it is now."""
        for column, item in enumerate(self._line(offer)):
            self.setItem(self._rows[offer.name], column, item)

    def _line(self, offer: Offer) -> list[QStandardItem]:
        items = [_plain(offer.text), _plain(offer.figure), _plain(offer.said)]
        items[FIGURE].setTextAlignment(RIGHT)
        items[FIGURE].setFont(self._figures)
        if offer.caution and offer.possible:
            items[SUMMARY].setIcon(theme.icon("warning", "warning"))
        if self._marked:
            items[NAME].setIcon(theme.icon("check", "accent") if offer.present else _blank())
        said = [offer.text, offer.figure, offer.said] + ["chosen now"] * offer.present
        items[NAME].setData(", ".join(filter(None, said)), Qt.ItemDataRole.AccessibleTextRole)
        tip = as_tip(offer.reason or "\n".join(filter(None, (offer.summary, offer.caution, offer.tip))))
        for item in items:
            item.setData(offer.name, NAME_ROLE)
            item.setToolTip(tip)
            item.setEnabled(offer.possible)
        return items


def _plain(text: str) -> QStandardItem:
    item = QStandardItem(text)
    item.setEditable(False)
    return item


def _heading(text: str) -> QStandardItem:
    item = _plain(text)
    font = QFont(QApplication.font())
    font.setWeight(QFont.Weight.DemiBold)
    item.setFont(font)
    item.setEnabled(False)
    return item


def _blank() -> QIcon:
    """As wide as the sign, so that names stand below each other."""
    room = QPixmap(theme.ICON_SIZE, theme.ICON_SIZE)
    room.fill(Qt.GlobalColor.transparent)
    return QIcon(room)
