"""Versions to copy, without loading what they are of."""

import platform
import subprocess
import sys

import pytest
from PySide6 import __version__ as pyside_version
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication

from app.views.about import AboutPanel
from engine.api.events import Hello
from engine.api.messages import PROTOCOL


@pytest.fixture
def panel(qtbot):
    panel = AboutPanel()
    qtbot.addWidget(panel)
    return panel


def test_copy_takes_every_version(panel, qtbot):
    panel.set_engine(Hello(protocol=PROTOCOL, version="1.2.3", devices=["cpu: 8 threads"], pid=1))
    qtbot.mouseClick(panel.copy_button, Qt.MouseButton.LeftButton)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert f"PySide6-Essentials: {pyside_version}" in lines
    assert f"Engine: 1.2.3, protocol {PROTOCOL}, cpu: 8 threads" in lines
    assert any(line.startswith(f"Python: {platform.python_version()}") for line in lines)
    assert {"Bitwright", "Qt", "System", "torch"} <= {line.split(":")[0] for line in lines}


def test_before_the_engine_is_up(panel):
    assert "Engine: not started yet" in panel.text


def test_nothing_is_imported_for_a_version():
    code = (
        "import sys, os; os.environ['QT_QPA_PLATFORM'] = 'offscreen'\n"
        "from PySide6.QtWidgets import QApplication\n"
        "application = QApplication([])\n"
        "from app.views.about import AboutPanel\n"
        "AboutPanel()\n"
        "print([name for name in ('torch', 'transformers', 'numba', 'pyqtgraph') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
