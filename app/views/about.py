"""What runs here: versions of Bitwright, of what it stands on, and of the engine; to copy into a report."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from PySide6.QtCore import QLibraryInfo, QSysInfo, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.theme import SPACE
from engine.api.events import Hello

PACKAGES = ("PySide6-Essentials", "pyqtgraph", "torch", "transformers", "numba", "numpy", "gguf")


class AboutPanel(QWidget):
    """Reads versions from installed metadata alone: nothing is imported for them."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("About Bitwright")
        self.setAccessibleName("About Bitwright")
        self._versions = _versions()
        self._values = {name: _value(name, found) for name, found in self._versions.items()}
        self.copy_button = QPushButton("&Copy")
        self.copy_button.setToolTip("Copy all versions, for a report")
        self.copy_button.setAccessibleName("Copy all versions")
        self.copy_button.clicked.connect(self._copy)
        close = QPushButton("C&lose")
        close.setAccessibleName("Close")
        close.setShortcut(Qt.Key.Key_Escape)
        close.clicked.connect(self.close)
        buttons = QHBoxLayout()
        buttons.setSpacing(2 * SPACE)
        buttons.addStretch(1)
        buttons.addWidget(self.copy_button)
        buttons.addWidget(close)
        form = QFormLayout()
        form.setSpacing(2 * SPACE)
        for name, value in self._values.items():
            form.addRow(name, value)
        column = QVBoxLayout(self)
        column.setContentsMargins(*[6 * SPACE] * 4)
        column.setSpacing(4 * SPACE)
        column.addLayout(_heading())
        column.addLayout(form)
        column.addStretch(1)
        column.addLayout(buttons)

    @property
    def text(self) -> str:
        """One line a version: what Copy copies."""
        return "".join(f"{name}: {found}\n" for name, found in self._versions.items())

    def set_engine(self, hello: Hello) -> None:
        """The engine said what it is."""
        devices = ", ".join(hello.devices)
        self._versions["Engine"] = f"{hello.version}, protocol {hello.protocol}, {devices}"
        self._values["Engine"].setText(self._versions["Engine"])

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text)


def _versions() -> dict[str, str]:
    found = {
        "Bitwright": _installed("bitwright"),
        "Engine": "not started yet",
        "Python": f"{platform.python_version()} ({sys.executable})",
        "Qt": QLibraryInfo.version().toString(),
        "System": f"{QSysInfo.prettyProductName()}, {QSysInfo.kernelType()} {QSysInfo.kernelVersion()}, "
        f"{QSysInfo.currentCpuArchitecture()}",
        "Screen": f"{QGuiApplication.platformName()}, {_scale():g} × scale",
    }
    return found | {name: _installed(name) for name in PACKAGES}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed (runs from a checkout)" if package == "bitwright" else "not installed"


def _scale() -> float:
    screen = QGuiApplication.primaryScreen()
    return screen.devicePixelRatio() if screen else 1.0


def _heading() -> QHBoxLayout:
    picture = QLabel()
    picture.setPixmap(theme.app_icon().pixmap(48, 48))
    picture.setAccessibleName("Bitwright's icon")
    name = QLabel("Bitwright")
    font = name.font()
    font.setPointSizeF(font.pointSizeF() * 1.6)
    font.setBold(True)
    name.setFont(font)
    row = QHBoxLayout()
    row.setSpacing(3 * SPACE)
    row.addWidget(picture)
    row.addWidget(name, 1)
    return row


def _value(name: str, text: str) -> QLabel:
    label = QLabel(text)
    label.setAccessibleName(name)
    label.setTextInteractionFlags(
        Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
    )
    return label
