"""The file dialogs: opened without waiting, their answer goes to a function. And saving of texts."""

from collections.abc import Callable, Iterable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget

Then = Callable[[Path], None]


def ask_folder(parent: QWidget, title: str, start: str, then: Then) -> QFileDialog:
    """An existing folder."""
    dialog = _dialog(parent, title, start)
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setLabelText(QFileDialog.DialogLabel.Accept, "Open")
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    return _open(dialog, then)


def ask_file(parent: QWidget, title: str, start: str, filters: list[str], then: Then) -> QFileDialog:
    """An existing file, by name filters such as "Recipes (*.json)"."""
    dialog = _dialog(parent, title, start)
    dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
    dialog.setNameFilters(filters)
    return _open(dialog, then)


def ask_new_file(parent: QWidget, title: str, proposed: Path, filters: list[str], then: Then) -> QFileDialog:
    """A file to write; the dialog asks before one is replaced. The suffix is that of `proposed`."""
    dialog = _dialog(parent, title, str(proposed.parent))
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setFileMode(QFileDialog.FileMode.AnyFile)
    dialog.setNameFilters(filters)
    dialog.setDefaultSuffix(proposed.suffix.removeprefix("."))
    dialog.selectFile(proposed.name)
    return _open(dialog, then)


def save_text(path: Path, text: str) -> str:
    """Write a file that `ask_new_file` gave; what there is to say then."""
    return save_chunks(path, (text.encode(),))


def save_chunks(path: Path, chunks: Iterable[bytes]) -> str:
    """The same for what comes in pieces; may be called in any thread."""
    try:
        with path.open("wb") as file:
            file.writelines(chunks)
    except OSError as error:
        return f"{path}: cannot be written: {error.strerror}."
    return f"Saved {path.name}."


def _dialog(parent: QWidget, title: str, start: str) -> QFileDialog:
    dialog = QFileDialog(parent, title, start)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setAccessibleName(title)
    return dialog


def _open(dialog: QFileDialog, then: Then) -> QFileDialog:
    dialog.fileSelected.connect(lambda path: then(Path(path)))
    dialog.open()
    return dialog
