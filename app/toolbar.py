"""The toolbar: open, preset, undo, run."""

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QSizePolicy, QToolBar, QToolButton, QWidget

from app import theme
from app.actions import Actions
from app.plain import as_tip, printable, shortened
from app.state import State
from app.views.parts import follow_action

PRESET_TIP = "Begin the recipe from a preset; pinned tensors stay as they are"
MOST_OF_NAME = 40
"""Letters of a recipe's name on its button."""


class MainToolBar(QToolBar):
    """Its buttons are the window's actions; the preset's says where the recipe comes from."""

    def __init__(self, actions: Actions, state: State, parent: QWidget) -> None:
        super().__init__("Main toolbar", parent)
        self._state = state
        self.setObjectName("toolbar")
        self.setAccessibleName("Main toolbar")
        self.setMovable(False)
        self.setIconSize(QSize(theme.ICON_SIZE, theme.ICON_SIZE))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.open_button = _menu_button("Open ▾", "Open a model: a folder or a file", "folder-open")
        menu = QMenu("Open", self.open_button)
        menu.addActions([actions["open_folder"], actions["open_file"], actions["open_sample"]])
        menu.addMenu(actions.recent_menu)
        self.open_button.setMenu(menu)
        self.preset_button = _menu_button("Preset ▾", PRESET_TIP, "sliders-horizontal")
        self.preset_button.clicked.connect(actions["preset"].trigger)
        self.addWidget(self.open_button)
        self.addWidget(self.preset_button)
        self.addSeparator()
        self.addActions([actions["undo"], actions["redo"]])
        space = QWidget()
        space.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.addWidget(space)
        self.run_button = _run_button(actions["run"])
        self.addWidget(self.run_button)
        actions["undo"].setIconText("Undo")  # the menu names the step as well; here it would be too long
        actions["redo"].setIconText("Redo")
        for key, name in (("undo", "Undo"), ("redo", "Redo")):
            button = self.widgetForAction(actions[key])
            button.setObjectName(name)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def refresh(self, reason: str) -> None:
        """Show the preset; `reason` says why none can be chosen now, or is empty."""
        version = self._state.document.version
        edited = " · edited" if version and version.edited else ""
        if version and version.recipe.imatrix:
            edited += " · imatrix"
        name = f"Preset: {version.name}{edited}" if version else "Preset"
        shown = shortened(printable(version.name), MOST_OF_NAME) + edited if version else name
        self.preset_button.setText(f"{shown.replace('&', '&&')} ▾")  # a recipe's file may be named anything
        self.preset_button.setAccessibleName(name)
        self.preset_button.setEnabled(not reason)
        self.preset_button.setToolTip(as_tip(f"{PRESET_TIP}\n{reason}" if reason else PRESET_TIP))


def _run_button(action: QAction) -> QToolButton:
    """The one button in the accent color; its icon is lighter than that of the menu's entry."""
    button = QToolButton()
    button.setObjectName("primary")
    button.setText("Run")
    button.setAccessibleName("Run")
    button.setIcon(theme.icon("play", "on_accent"))
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    follow_action(button, action)
    return button


def _menu_button(text: str, tip: str, icon: str) -> QToolButton:
    button = QToolButton()
    button.setObjectName("menu")
    button.setIcon(theme.icon(icon))
    button.setText(text)
    button.setToolTip(tip)
    button.setAccessibleName(text.removesuffix(" ▾"))
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button
