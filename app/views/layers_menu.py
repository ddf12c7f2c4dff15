"""The menus of the table of layers: formats for Q, and everything for a right click."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMenu, QWidget

from app.plain import as_tip
from app.state import Row
from app.views.layers_edits import LayerEdits, Offer


def format_menu(parent: QWidget, edits: LayerEdits, rows: Sequence[Row]) -> QMenu:
    """The formats that `rows` can have; the others greyed, with what would come instead."""
    menu = _menu(parent, "Format")
    _fill(menu, edits.formats(rows), lambda name: edits.set_format(rows, name))
    return menu


def context_menu(
    parent: QWidget, edits: LayerEdits, rows: Sequence[Row], current: Row, select_role: Callable[[Row], None]
) -> QMenu:
    """All that can be done to `rows`, of which `current` is the one that was clicked."""
    menu = _menu(parent, "Layers")
    formats = _submenu(menu, "&Format")
    _fill(formats, edits.formats(rows), lambda name: edits.set_format(rows, name))
    methods = _submenu(menu, "&Method")
    _fill(methods, edits.methods(rows), lambda name: edits.set_method(rows, name))
    for submenu in (formats, methods):
        if submenu.isEmpty():
            submenu.menuAction().setEnabled(False)
            submenu.menuAction().setToolTip(as_tip(edits.refusal(rows)))
    menu.addAction("Un&pin" if edits.all_pinned(rows) else "&Pin", lambda: edits.toggle_pin(rows))
    menu.addSeparator()
    role = current.role.value
    apply = menu.addAction(f"&Apply to all of role {role}", lambda: edits.apply_to_role(current))
    apply.setToolTip(f"Give every tensor of role {role} the format and method of this one")
    menu.addAction(f"&Select all of role {role}", lambda: select_role(current))
    menu.addSeparator()
    menu.addAction("&Copy names", lambda: copy_names(rows))
    return menu


def copy_names(rows: Sequence[Row]) -> None:
    """The source's names, one a line, to the clipboard."""
    QGuiApplication.clipboard().setText("\n".join(row.name for row in rows))


def _menu(parent: QWidget, name: str) -> QMenu:
    menu = QMenu(parent)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    menu.setAccessibleName(name)
    menu.setToolTipsVisible(True)
    return menu


def _submenu(menu: QMenu, title: str) -> QMenu:
    submenu = menu.addMenu(title)
    submenu.setAccessibleName(title.replace("&", ""))
    submenu.setToolTipsVisible(True)
    return submenu


def _fill(menu: QMenu, offers: Sequence[Offer], choose: Callable[[str], None]) -> None:
    for offer in offers:
        _add(menu, offer, choose)


def _add(menu: QMenu, offer: Offer, choose: Callable[[str], None]) -> None:
    action = menu.addAction(offer.text, lambda: choose(offer.name))
    if offer.present:  # the others need no box
        action.setCheckable(True)
        action.setChecked(True)
    action.setEnabled(offer.possible)
    action.setToolTip(as_tip(offer.reason))
