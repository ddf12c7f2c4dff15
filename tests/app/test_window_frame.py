"""What holds for the whole window: names for screen readers, keys, reasons, layout, theme, imports."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QGraphicsView,
    QLineEdit,
    QPlainTextEdit,
    QTabBar,
    QTextBrowser,
    QToolButton,
    QWidget,
)

from app import theme
from app.session import Notice
from app.views.about import AboutPanel
from app.views.metadata_sheet import MetadataSheet
from app.views.offers import OfferPopup
from app.views.run_sheet import RunSheet
from tests.app.test_window import SAMPLE, click_row, open_model, open_sheet

ROOT = Path(__file__).parents[2]
CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QGraphicsView,
    QLineEdit,
    QPlainTextEdit,
    QTextBrowser,
)


@pytest.fixture
def full(qtbot, window, tmp_path):
    """The window with everything open: model, selection with its plot, all docks, help, a banner."""
    open_model(qtbot, window, SAMPLE)
    for dock in (window.jobs_dock, window.log_dock, window.help_dock):
        dock.show()
    window.show_notice(Notice("error", "Something happened.", "trace", (("Again", lambda: None),)))
    click_row(qtbot, window, "blk.0.ffn_down.weight")
    qtbot.waitUntil(lambda: bool(window.inspector.findChildren(QGraphicsView)), timeout=60_000)
    return window


def test_buttons_of_the_toolbar_have_room_for_their_text(qtbot, window):
    """Run is bold in color once there is a model: the size that it was given before must do."""
    assert window.windowTitle() == "Bitwright"
    before = {button: button.width() for button in window.toolbar.findChildren(QToolButton)}
    open_model(qtbot, window, SAMPLE)
    run = window.toolbar.run_button
    assert run.isEnabled()
    again = QToolButton(window.toolbar, objectName=run.objectName(), text=run.text(), icon=run.icon())
    again.setToolButtonStyle(run.toolButtonStyle())
    again.setIconSize(run.iconSize())
    again.ensurePolished()
    assert run.width() >= again.sizeHint().width()
    assert run.width() == before[run]


def about_panels() -> list[QWidget]:
    return [widget for widget in QApplication.topLevelWidgets() if isinstance(widget, AboutPanel)]


def unnamed(root: QWidget) -> list[str]:
    """The controls that a screen reader could not name."""
    found = []
    for widget in root.findChildren(QWidget):
        if not isinstance(widget, CONTROLS) or widget.accessibleName() or made_by_qt(widget):
            continue
        if not (isinstance(widget, QAbstractButton) and widget.text()):
            found.append(f"{type(widget).__name__} {widget.objectName()!r} in {widget.parentWidget()}")
    return found


def made_by_qt(widget: QWidget) -> bool:
    """Whether it is a part of one of Qt's own controls, which has the name: an arrow, a list that pops up."""
    if widget.objectName().startswith("qt_"):
        return True
    owner = widget.parentWidget()
    while owner is not None:
        if isinstance(owner, QComboBox | QAbstractSpinBox | QLineEdit | QTabBar):
            return True
        if isinstance(owner, QDockWidget):
            return widget.parentWidget() is owner and widget is not owner.widget()
        if isinstance(owner, QAbstractItemView):
            return bool(owner.accessibleName())
        owner = owner.parentWidget()
    return False


def test_every_control_and_plot_has_a_name(qtbot, full, tmp_path):
    assert not unnamed(full)
    sheet = open_sheet(qtbot, full, tmp_path)
    assert not unnamed(sheet)
    sheet.reject()
    full.actions_table["metadata"].trigger()
    metadata = full.findChild(MetadataSheet)
    metadata.tabs.setCurrentIndex(1)
    assert not unnamed(metadata)
    metadata.close()
    full.actions_table["preset"].trigger()
    assert not unnamed(full.findChild(OfferPopup))
    full.findChild(OfferPopup).close()
    full.actions_table["about"].trigger()
    panels = [
        widget for widget in QApplication.topLevelWidgets() if widget.accessibleName().startswith("About")
    ]
    assert panels
    assert not unnamed(panels[0])
    panels[0].close()


def test_no_shortcut_stands_twice(full):
    """Two views may have the same key where each is heard in its own only."""
    everywhere = Counter(keys_of(full, lambda context: context == Qt.ShortcutContext.WindowShortcut))
    assert not [key for key, count in everywhere.items() if count > 1]
    assert everywhere["F1"] == 1
    in_views = set(keys_of(full, lambda context: context != Qt.ShortcutContext.WindowShortcut))
    assert {"4", "Del"} <= in_views
    assert not in_views & set(everywhere)


def keys_of(window: QWidget, wanted: Callable[[Qt.ShortcutContext], bool]) -> list[str]:
    return [
        key.toString(QKeySequence.SequenceFormat.PortableText)
        for action in window.findChildren(QAction)
        if wanted(action.shortcutContext())
        for key in action.shortcuts()
        if not key.isEmpty()
    ]


def test_disabled_actions_say_why(window):
    for action in window.actions_table.all():
        if not action.isEnabled():
            assert "\n" in action.toolTip(), action.text()
            assert action.statusTip().endswith("."), action.text()
    assert "Open a model first." in window.actions_table["run"].toolTip()
    assert "Open a model first." in window.toolbar.preset_button.toolTip()


def test_tab_goes_through_the_main_controls_in_order(qtbot, full):
    full.activateWindow()
    qtbot.waitUntil(full.isActiveWindow)
    full.toolbar.open_button.setFocus()
    order = [full.layers.filter.field, full.layers.filter.roles, full.layers.table]
    seen = []
    for _ in range(60):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        seen.append(QApplication.focusWidget())
        if seen[-1] is order[-1]:
            break
    places = [seen.index(widget) for widget in order]
    assert places == sorted(places)


def test_layout_is_remembered_and_reset(qtbot, window, settings):
    open_model(qtbot, window, SAMPLE)
    assert window.inspector_dock.isVisible()
    window.actions_table["toggle_inspector"].trigger()
    window.actions_table["toggle_log"].trigger()
    assert not window.inspector_dock.isVisible()
    assert window.log_dock.isVisible()
    window.actions_table["reset_layout"].trigger()
    assert window.inspector_dock.isVisible()
    assert not window.log_dock.isVisible()
    assert abs(window.inspector_dock.width() - 300) <= 40


def test_recent_models_and_closing(qtbot, window, settings, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in SAMPLE.iterdir():
        (folder / file.name).symlink_to(file)
    open_model(qtbot, window, folder)
    assert settings.recent == [str(folder)]
    window.actions_table["close_model"].trigger()
    assert window.start_page.isVisible()
    assert not window.inspector_dock.isVisible()
    window.actions_table.recent_menu.actions()[0].trigger()
    qtbot.waitUntil(lambda: window.state.phase == "ready", timeout=60_000)


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_theme_is_switched_and_remembered(window, settings, mode):
    window.actions_table[f"theme_{mode}"].trigger()
    assert theme.colors().dark == (mode == "dark")
    assert settings.theme == mode
    assert window.palette().window().color() == theme.colors().window


def test_help_opens_by_f1_and_palette_by_its_keys(qtbot, window):
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, Qt.Key.Key_F1)
    assert window.help_dock.isVisible()
    window.actions_table["command_palette"].trigger()
    qtbot.keyClicks(QApplication.focusWidget(), "reset")
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Return)
    assert not window.help_dock.isVisible()


def test_only_the_sheet_is_modal(qtbot, full, tmp_path):
    for key in ("about", "command_palette", "help", "metadata"):
        full.actions_table[key].trigger()
        assert QApplication.activeModalWidget() is None
    sheet = open_sheet(qtbot, full, tmp_path)
    assert isinstance(QApplication.activeModalWidget(), RunSheet)
    sheet.reject()
    for about in about_panels():
        about.close()
    full.findChild(MetadataSheet).close()


def test_the_window_loads_no_heavy_library():
    code = (
        "import sys\n"
        "import app.__main__\n"
        "heavy = {'torch', 'transformers', 'numba', 'triton', 'numpy', 'pyqtgraph'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
