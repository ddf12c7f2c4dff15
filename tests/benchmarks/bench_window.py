"""The window: cold start, and how long its event loop is away while a job runs.

`python -m tests.benchmarks.bench_window`. Times are wall clock, so other work on the machine shows in them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEventLoop, QSettings, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from app import theme
from app.main_window import MainWindow
from app.session import Session
from app.settings import Settings
from engine.api.jobs import QuantizeRequest
from tests.app.models import write_wide_gguf
from tests.app.turns import Turns

STARTS = 7
STEPS = 200
BEAT_MS = 5

USABLE = """
import runpy, sys
from PySide6.QtCore import QTimer
from app import main_window
class Window(main_window.MainWindow):
    def showEvent(self, event):
        super().showEvent(event)
        QTimer.singleShot(0, self.leave)  # behind everything that the start has asked of the event loop
    def leave(self):
        print("usable", flush=True)
        self.close()
main_window.MainWindow = Window
sys.argv[1:] = []
runpy.run_module("app", run_name="__main__")
"""


def cold_start() -> list[float]:
    """Seconds from starting the process to a window that answers, for each start."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", USABLE], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "usable\n"
        times.append(time.perf_counter() - began)
        process.wait()
    return times


def wait(milliseconds: int) -> None:
    """In an event loop of its own, which blocks between events as the program's does; `QTest.qWait` polls."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


class Pulse:
    """A timer that should come every `BEAT_MS`; `late` notes by how many seconds it came too late."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._timer = QTimer(timerType=Qt.TimerType.PreciseTimer, interval=BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._last = time.perf_counter()
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, now - self._last - BEAT_MS / 1000))
        self._last = now


def work(folder: Path) -> tuple[list[float], list[float]]:
    """The table of 1,999 tensors scrolled and edited while a job runs.

    Seconds: CPU time of the turns of the event loop, and how late a pulse came in wall-clock time.
    """
    app = QApplication([])
    theme.apply_theme(app, "light")
    window = MainWindow(Session(Settings(QSettings(str(folder / "s.ini"), QSettings.Format.IniFormat))))
    window.show()
    window.session.start()
    model = write_wide_gguf(folder / "wide.gguf", blocks=222)
    window.session.open(model)
    while window.state.plan is None:
        wait(20)
    window.layers.expand_all()
    recipe = window.state.document.recipe
    assert recipe is not None
    request = QuantizeRequest(model=str(model), output=str(folder / "out.gguf"), recipe=recipe)
    window.session.desk.run(request)
    record = window.session.board.active[0]
    while record.progress is None or record.progress.stage != "quantize":
        wait(20)
    window.state.select(("blk.0.attn_q.weight",))
    pulse = Pulse()
    with Turns() as turns:
        for step in range(STEPS):
            QTest.keyClick(window.layers.table, Qt.Key.Key_Down)
            wait(5)
            window.layers.set_bits((8, 4)[step % 2])
            wait(5)
    assert record.state == "running", "the job ended before the table was worked on"
    window.session.ended.connect(app.quit)
    window.close()  # it asks, because of the job
    window.close()
    app.exec()
    return turns.cpu, pulse.late


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CONFIG_HOME"] = folder
        times = cold_start()
        print(f"cold start: median {statistics.median(times):.2f} s, worst {max(times):.2f} s of {STARTS}")
        cpu, late = work(Path(folder))
    for name, values in (
        ("CPU time of a turn of the event loop", cpu),
        ("wall clock, pulse late by", late),
    ):
        ordered = sorted(values)
        shown = ", ".join(
            f"{label} {1000 * ordered[int(share * (len(ordered) - 1))]:.1f} ms"
            for label, share in (("median", 0.5), ("99 %", 0.99), ("longest", 1.0))
        )
        print(f"{name}: {shown} ({len(ordered)} times)")


if __name__ == "__main__":
    main()
