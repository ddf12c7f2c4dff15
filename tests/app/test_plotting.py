"""pyqtgraph is loaded on demand, in turns that the window does not feel."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, time
from PySide6.QtCore import QAbstractEventDispatcher
from PySide6.QtWidgets import QApplication
app = QApplication([])
import app.views.inspector
from app.plotting import plotting
assert "pyqtgraph" not in sys.modules and "numpy" not in sys.modules
marks = []  # CPU time of this thread whenever it is about to wait: waiting takes none
QAbstractEventDispatcher.instance().aboutToBlock.connect(lambda: marks.append(time.thread_time()))
plotting().ready.connect(QApplication.quit)
plotting().load()
QApplication.exec()
marks.append(time.thread_time())
assert plotting().loaded
import pyqtgraph
assert pyqtgraph.PlotWidget and pyqtgraph.mkPen("r").color().red() == 255
print(max(after - before for before, after in zip(marks, marks[1:])))
"""


def test_it_is_loaded_in_short_turns():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    longest = float(done.stdout)
    assert 0.001 < longest < 0.05, "a turn of the event loop took longer than the window may"
    assert done.stderr == ""
