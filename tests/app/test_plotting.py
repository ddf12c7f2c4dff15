"""pyqtgraph is loaded on demand, in turns that the window does not feel."""

import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from app import plotting

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
pieces = []  # how many modules of it each step imports
def counted(steps):
    there = 0
    for step in steps:
        now = sum(name.startswith("pyqtgraph") for name in sys.modules)
        pieces.append(now - there)
        there = now
        yield step
plotting()._steps = counted(plotting()._steps)
plotting().load()
QApplication.exec()
marks.append(time.thread_time())
assert plotting().loaded
import pyqtgraph
assert pyqtgraph.PlotWidget and pyqtgraph.mkPen("r").color().red() == 255
assert sum(pieces) > 100 and max(pieces) < 12, sorted(pieces)[-5:]
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


def test_it_waits_where_the_window_is_busy(qapp, monkeypatch):
    spent = [0.0]
    clock = SimpleNamespace(thread_time=lambda: spent[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(plotting, "time", clock)
    loader, taken = plotting.Plotting(), []
    loader._steps = (taken.append(step) or True for step in count())
    loader._go_on()
    assert len(taken) == 1
    spent[0] += plotting.STEP_SECONDS
    loader._go_on()
    assert len(taken) == 1
    loader._go_on()
    assert len(taken) == 2
    for _ in range(plotting.MOST_WAITS + 1):  # it is always busy, and does not wait for ever
        spent[0] += plotting.STEP_SECONDS
        loader._go_on()
    assert len(taken) == 3
