"""The actions of the window and its menus, made from the table."""

from collections.abc import Callable, Mapping

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu, QMenuBar, QWidget

from app.action_specs import ActionSpec, MenuSpec, Standard
from app.action_table import ACTIONS, MENUS
from app.plain import as_tip
from app.theme import icon


class Actions:
    """The QActions of the table and the menus that hold them, made for one window.

    A disabled action says why: its status tip is the reason, its tool tip ends with it.
    """

    def __init__(self, window: QWidget) -> None:
        self._actions = {
            spec.key: _action(spec, menu, window) for menu in MENUS.values() for spec in menu.actions
        }
        self._menus = {name: QMenu(menu.text, window) for name, menu in MENUS.items()}
        groups: dict[str, QActionGroup] = {}
        for spec in ACTIONS:
            if spec.group:
                groups.setdefault(spec.group, QActionGroup(window)).addAction(self._actions[spec.key])
            if not spec.focused:
                window.addAction(self._actions[spec.key])
        self._fill()
        self.enable({})

    def __getitem__(self, key: str) -> QAction:
        return self._actions[key]

    def all(self) -> list[QAction]:
        """In the order of the table."""
        return list(self._actions.values())

    def connect(self, key: str, run: Callable[[], object]) -> None:
        """Call `run` whenever the action is triggered."""
        self._actions[key].triggered.connect(lambda _checked=False: run())

    def menu(self, name: str) -> QMenu:
        """A menu by its name in `MENUS`."""
        return self._menus[name]

    @property
    def recent_menu(self) -> QMenu:
        return self._menus["Recent"]

    def fill_menus(self, menu_bar: QMenuBar) -> None:
        """Put the menus into `menu_bar`."""
        for name, menu in MENUS.items():
            if not menu.inside:
                menu_bar.addMenu(self._menus[name])

    def enable(self, unmet: Mapping[str, str]) -> None:
        """Disable what needs something in `unmet` (need → a sentence that says why), enable the others."""
        for spec in ACTIONS:
            _enable(self._actions[spec.key], spec.tip, unmet.get(spec.needs, ""))
        for name, menu in MENUS.items():
            if menu.needs:
                _enable(self._menus[name].menuAction(), menu.tip, unmet.get(menu.needs, ""))

    def _fill(self) -> None:
        """Actions into their menus in the order of the table, submenus at their places."""
        submenus = {menu.before: name for name, menu in MENUS.items() if menu.inside}
        for made in self._menus.values():
            made.setToolTipsVisible(True)
        for name, menu in MENUS.items():
            holder = self._menus[name]
            for spec in menu.actions:
                if spec.key in submenus:
                    holder.addMenu(self._menus[submenus[spec.key]])
                if spec.rule:
                    holder.addSeparator()
                holder.addAction(self._actions[spec.key])


def _action(spec: ActionSpec, menu: MenuSpec, window: QObject) -> QAction:
    action = QAction(spec.text, window)
    action.setObjectName(spec.key)
    action.setWhatsThis(f"{spec.tip}.")
    action.setShortcuts([key for shortcut in spec.shortcuts for key in _sequences(shortcut)])
    if spec.icon:
        action.setIcon(icon(spec.icon))
    if menu.inside:
        action.setProperty("submenu", menu.text.replace("&", ""))
    action.setCheckable(spec.checkable or bool(spec.group))
    if spec.focused:
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
    return action


def _sequences(shortcut: Standard | str) -> list[QKeySequence]:
    if isinstance(shortcut, str):
        return [QKeySequence(shortcut)]
    return QKeySequence.keyBindings(shortcut)


def _enable(action: QAction, tip: str, reason: str) -> None:
    said = reason or f"{tip}."
    if action.statusTip() == said:
        return  # as it was: each change goes through every menu and button that shows the action
    keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
    shown = f"{tip} ({keys})" if keys else tip
    action.setEnabled(not reason)
    action.setToolTip(as_tip(f"{shown}\n{reason}" if reason else shown))
    action.setStatusTip(said)
