"""Loads pyqtgraph in small steps of the event loop, when the first figure is to be drawn.

Importing it takes a third of a second: too long for the start and for one turn of the loop. It cannot be done
in another thread: PySide makes its classes when they are first touched, and two threads that do so crash.
So its modules are run here a piece at a time, in the order in which an import runs them in one go.
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
from types import CodeType

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import QObject, QTimer, Signal

PACKAGE = "pyqtgraph"
DRAWING = ("app.views.plot", "app.views.heat_map")
"""The modules that stand on it."""

PAUSE_MS = 10
"""Between two steps the window has its turn."""

STEP_SECONDS = 0.005
"""Steps begin as long as this much time of a turn is left; none where the window takes as much itself."""

MOST_WAITS = 5
"""So many turns in a row: a window that is always busy gets its plots, too."""


class Plotting(QObject):
    """`loaded` says that what draws (`DRAWING`) can be imported at once; until then `load` makes it so."""

    ready = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.loaded = False
        self._steps = _steps()
        self._timer = QTimer(self, interval=PAUSE_MS)
        self._timer.timeout.connect(self._go_on)
        self._waits = 0  # turns in a row that were the window's
        self._rested = 0.0  # CPU time of this thread when the window got its turn

    def load(self) -> None:
        """Begin, unless it has begun; `ready` follows."""
        if not (self.loaded or self._timer.isActive()):
            self._rested = time.thread_time()
            self._timer.start()

    def _go_on(self) -> None:
        busy = time.thread_time() - self._rested >= STEP_SECONDS
        self._waits = self._waits + 1 if busy and self._waits < MOST_WAITS else 0
        if not self._waits:
            self._step()
        self._rested = time.thread_time()

    def _step(self) -> None:
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
        yield from _run(PACKAGE)
    yield False
    for module in DRAWING:
        importlib.import_module(module)
        yield False
    yield True  # what waits for it has a turn of its own


def _run(name: str) -> Iterator[bool]:
    """Import a module of the package: each import at its head is a step, and so is all that stands below.

    The package's own module is imports for the most part: of that every statement is a step.
    """
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert isinstance(spec.loader, SourceFileLoader), f"{name} has no source"
    source, code = spec.loader.get_source(name), spec.loader.get_code(name)
    assert source is not None, f"{name} has no source"
    assert code is not None, f"{name} has no code"
    whole = name == PACKAGE
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        for statement in ast.parse(source).body if whole else _head(source, code):
            for wanted in _wanted(statement, module.__package__):
                yield from _run(wanted)
            piece = compile(ast.Module([statement], []), spec.loader.path, "exec")
            exec(piece, module.__dict__)
            yield False
        if not whole:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    yield False


def _head(source: str, code: CodeType) -> list[ast.stmt]:
    """The imports above a module's first function or class: to parse all of a large one takes 30 ms."""
    inner = [const.co_firstlineno for const in code.co_consts if isinstance(const, CodeType)]
    above = source.splitlines()[: min(inner, default=sys.maxsize) - 1]
    try:
        statements = ast.parse("\n".join(above)).body
    except SyntaxError:  # cut in the middle of a statement
        return []
    return [statement for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]


def _wanted(statement: ast.stmt, package: str | None) -> Iterator[str]:
    """The modules of the package that a statement in `package` will import, in order.

    To be asked for one after the other: what one of them defines is no module.
    """
    if isinstance(statement, ast.ImportFrom):
        start = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
        names = [start, *(f"{start}.{alias.name}" for alias in statement.names)]
    elif isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        names = []
    for name in names:
        parts = name.split(".")
        for end in range(2, len(parts) + 1):  # what stands around a module is imported first
            if parts[0] == PACKAGE and _is_missing(".".join(parts[:end])):
                yield ".".join(parts[:end])


def _is_missing(module: str) -> bool:
    """Whether that is a module that is not imported yet."""
    parent, _, child = module.rpartition(".")
    around = sys.modules.get(parent)
    if module in sys.modules or not hasattr(around, "__path__") or hasattr(around, child):
        return False
    return importlib.util.find_spec(module) is not None
