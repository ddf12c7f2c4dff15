"""The menu of a right click in the table of layers."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMenu, QWidget

from app.models.offers import Offer
from app.plain import as_tip
from app.state import Row
from app.views.layers_edits import LayerEdits


def context_menu(
    parent: QWidget,
    edits: LayerEdits,
    rows: Sequence[Row],
    current: Row,
    choose_format: Callable[[], None],
    select_role: Callable[[Row], None],
) -> QMenu:
    """All that can be done to `rows`, of which `current` is the one that was clicked."""
    menu = QMenu(parent)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    menu.setAccessibleName("Layers")
    menu.setToolTipsVisible(True)
    formats = menu.addAction("&Format…", choose_format)
    formats.setToolTip("List the formats that these tensors can have")
    methods = menu.addMenu("&Method")
    methods.setAccessibleName("Method")
    methods.setToolTipsVisible(True)
    for offer in edits.methods(rows):
        _add(methods, offer, lambda name: edits.set_method(rows, name))
    refusal = edits.refusal(rows)
    if refusal:
        for action in (formats, methods.menuAction()):
            action.setEnabled(False)
            action.setToolTip(as_tip(refusal))
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


def _add(menu: QMenu, offer: Offer, choose: Callable[[str], None]) -> None:
    action = menu.addAction(offer.text, lambda: choose(offer.name))
    if offer.present:  # the others need no box
        action.setCheckable(True)
        action.setChecked(True)
    action.setEnabled(offer.possible)
    action.setToolTip(as_tip(offer.reason or offer.summary))
