"""Loads pyqtgraph in small steps of the event loop, when the first figure is to be drawn.

Importing it takes a third of a second: too long for the start and for one turn of the loop. It cannot be done
in another thread: PySide makes its classes when they are first touched, and two threads that do so crash.
So its package is run here a statement at a time, as an import would run it in one go.
"""

import ast
import importlib
import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import QObject, QTimer, Signal

PACKAGE = "pyqtgraph"
DRAWING = ("app.views.plot", "app.views.heat_map")
"""The modules that stand on it."""

PAUSE_MS = 10
"""Between two steps the window has its turn."""

STEP_SECONDS = 0.005
"""Steps begin as long as this much time of a turn is left."""


class Plotting(QObject):
    """`loaded` says that what draws (`DRAWING`) can be imported at once; until then `load` makes it so."""

    ready = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.loaded = False
        self._steps = _steps()
        self._timer = QTimer(self, interval=PAUSE_MS)
        self._timer.timeout.connect(self._go_on)

    def load(self) -> None:
        """Begin, unless it has begun; `ready` follows."""
        if not self.loaded:
            self._timer.start()

    def _go_on(self) -> None:
        until = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < until:
            try:
                if next(self._steps):
                    return
            except StopIteration:
                self._timer.stop()
                self.loaded = True
                self.ready.emit()
                return


@cache
def plotting() -> Plotting:
    """The one loader."""
    return Plotting()


def _steps() -> Iterator[bool]:
    """The import in pieces. True: nothing to do but wait."""
    for classes in (QtCore, QtGui, QtWidgets):  # pyqtgraph touches every class of these
        for name in dir(classes):
            getattr(classes, name)
            yield False
    numpy = threading.Thread(target=importlib.import_module, args=("numpy",), daemon=True)
    numpy.start()  # knows nothing of Qt, so it may load beside us
    while numpy.is_alive():
        yield True
    if PACKAGE not in sys.modules:
        yield from _statements()
    yield False
    for module in DRAWING:
        importlib.import_module(module)
        yield False


def _statements() -> Iterator[bool]:
    """Run the package's own module, a statement a step."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None, f"{PACKAGE} is not installed"
    assert isinstance(spec.loader, SourceFileLoader), f"{PACKAGE} has no source"
    source = spec.loader.get_source(PACKAGE)
    assert source is not None, f"{PACKAGE} has no source"
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    try:
        for statement in ast.parse(source).body:
            code = compile(ast.Module([statement], []), spec.loader.path, "exec")
            exec(code, module.__dict__)
            yield False
    except BaseException:
        del sys.modules[PACKAGE]
        raise
