"""The metadata that the file will get, line by line: as the source has it, edited, added, left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app import theme
from app.plain import MOST_TOLD, as_tip, printable, shortened
from engine.api.errors import RecipeError
from engine.api.metadata import COMMON, Edit, MetadataEntry, edited_entries
from engine.api.tables import csv_text

Index = QModelIndex | QPersistentModelIndex
Standing = Literal["", "edited", "added", "left out"]

TITLES = ("Key", "Type", "Value", "Bytes", "")
KEY, TYPE, VALUE, BYTES, STANDING = range(5)
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter

KINDS: dict[str, type[str] | type[int] | type[float] | type[bool]] = {
    "text": str,
    "whole number": int,
    "number": float,
    "true or false": bool,
}
"""What the value of a new key can be."""


@dataclass(frozen=True)
class KeyLine:
    """One key. `before` is the source's entry, None for an added key; `now` what the file gets, or None."""

    key: str
    before: MetadataEntry | None
    now: MetadataEntry | None
    standing: Standing

    @property
    def entry(self) -> MetadataEntry:
        """What is shown: what the file gets, or else what is left out."""
        entry = self.now or self.before
        assert entry is not None, "a line is about something"
        return entry

    @property
    def bytes(self) -> int:
        """What it takes in the file's header."""
        return self.now.bytes if self.now else 0

    @property
    def fixed(self) -> str:
        """Why it cannot be edited, a sentence; or empty. What an edit has made long can be."""
        reason = self.before.fixed if self.before else ""
        return f"{reason[0].upper()}{reason[1:]}." if reason else ""


def lines_of(entries: Iterable[MetadataEntry], edits: Mapping[str, Edit]) -> list[KeyLine]:
    """All keys of the file, those that are left out, and then the added ones."""
    lines = []
    left = dict(edits)
    for entry in entries:
        value = left.pop(entry.key, None)
        if value is None:
            lines.append(KeyLine(entry.key, entry, entry, ""))
        else:
            now = changed(entry, entry.key, value)
            lines.append(KeyLine(entry.key, entry, now, "edited" if now else "left out"))
    added = {key: changed(None, key, value) for key, value in left.items()}
    return lines + [KeyLine(key, None, now, "added") for key, now in added.items() if now]


def changed(entry: MetadataEntry | None, key: str, value: Edit) -> MetadataEntry | None:
    """What an edit makes of the entry `key`; None: it is left out. Raises `RecipeError`."""
    found = edited_entries([entry] if entry else [], {key: value})
    if found and found[0].value is None:  # a text too long to be edited, were it the source's
        return found[0].model_copy(update={"value": value})
    return found[0] if found else None


def refusal(entry: MetadataEntry | None, key: str, value: Edit) -> str:
    """Why a key cannot have this value, a sentence for the reader; empty where it can."""
    try:
        changed(entry, key, value)
    except RecipeError as error:
        return str(error).removeprefix("metadata: ")
    return ""


def edited_by(
    edits: Mapping[str, Edit], entry: MetadataEntry | None, key: str, value: Edit
) -> dict[str, Edit]:
    """`edits` with one more, its value in the key's type; none where it says what the source says anyway.

    Raises `RecipeError`.
    """
    now = changed(entry, key, value)
    others = {name: kept for name, kept in edits.items() if name != key}
    if now is None:
        return {**edits, key: ""} if entry else others
    assert now.value is not None, "what was edited can be"
    return others if entry is not None and now.value == entry.value else {**edits, key: now.value}


def value_of(text: str, kind: str) -> Edit:
    """The value of a new key from what was typed. `kind` is one of `KINDS`. Raises `RecipeError`."""
    said = text.strip()
    if kind == "true or false" and said.lower() in ("true", "false"):
        return said.lower() == "true"
    try:
        if kind == "whole number" and len(said) <= 40:
            return int(said)
        if kind == "number":
            return float(said)
    except ValueError:
        pass
    if kind != "text":
        raise RecipeError(f"“{shortened(printable(said), 40)}” is no {kind}." if said else "Give a value.")
    if not text:
        raise RecipeError("Give a value.")
    return text


def text_of(entry: MetadataEntry | None) -> str:
    """The whole value for a field; lists with commas."""
    if entry is None:
        return ""
    if isinstance(entry.value, list):
        return ", ".join(entry.value)
    return entry.value if isinstance(entry.value, str) else entry.text


def edits_label(edits: Mapping[str, Edit]) -> str:
    """ "3 edits", as the run sheet says it."""
    if not edits:
        return "as in the source"
    return "1 edit" if len(edits) == 1 else f"{len(edits):,} edits"


def csv_of(lines: Sequence[KeyLine]) -> str:
    """Keys, types, values, bytes, what was done, and why a key is fixed."""
    rows = (
        (line.key, line.entry.type, text_of(line.entry), line.bytes, line.standing, line.entry.fixed)
        for line in lines
    )
    return csv_text(("key", "type", "value", "bytes", "change", "fixed"), rows)


class KeysModel(QAbstractTableModel):
    """The lines that a filter shows: `shown`."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.lines: list[KeyLine] = []
        self.shown: list[KeyLine] = []
        self._filter = ""
        self._names_font = theme.names_font()

    def show(self, lines: list[KeyLine]) -> None:
        """Other lines, or the same ones changed."""
        same = [line.key for line in self.lines] == [line.key for line in lines]
        self.lines = lines
        if same and not self._filter:
            self.shown = lines
            self.dataChanged.emit(self.index(0, 0), self.index(len(lines) - 1, STANDING))
        else:
            self.filter(self._filter)

    def filter(self, text: str) -> None:
        """Show the lines whose key or value has `text` in it."""
        self.beginResetModel()
        self._filter = text
        low = text.lower()
        self.shown = [
            line for line in self.lines if low in line.key.lower() or low in line.entry.text.lower()
        ]
        self.endResetModel()

    def row_of(self, key: str) -> int:
        """Where a key is shown, -1: nowhere."""
        return next((row for row, line in enumerate(self.shown) if line.key == key), -1)

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.shown)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(TITLES)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line, column = self.shown[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(line, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return as_tip(_tip(line, column)) or None
        if role == Qt.ItemDataRole.TextAlignmentRole and column == BYTES:
            return RIGHT
        if role == Qt.ItemDataRole.FontRole and column == KEY:
            return self._names_font
        if role == Qt.ItemDataRole.ForegroundRole:
            if column == STANDING and not line.fixed:
                return theme.colors().accent
            return theme.colors().muted if line.fixed or line.now is None or column == TYPE else None
        if role == Qt.ItemDataRole.AccessibleTextRole and column == KEY:
            name = COMMON.get(line.key)
            said = [line.key, name, line.standing or None, line.fixed or None]
            return ", ".join(part for part in said if part)
        return None

    def _text(self, line: KeyLine, column: int) -> str:
        if column == VALUE:
            text = shortened(line.entry.text, 2 * MOST_TOLD).replace("\n", " ")
            return shortened(printable(text))
        if column == STANDING:
            return "fixed" if line.fixed else line.standing
        return {KEY: printable(line.key), TYPE: line.entry.type.lower(), BYTES: f"{line.bytes:,}"}[column]

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return TITLES[section]
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return (RIGHT if section == BYTES else left) if role == Qt.ItemDataRole.TextAlignmentRole else None


def _tip(line: KeyLine, column: int) -> str:
    if column == VALUE:
        was = text_of(line.before) if line.standing == "edited" else ""
        text = shortened(line.entry.text, MOST_TOLD)
        return f"{text}\nin the source: {shortened(was, 200)}" if was else text
    if column == BYTES:
        return "Key and value, in the header of the file"
    if column == KEY:
        return "\n".join(filter(None, (COMMON.get(line.key), line.fixed)))
    return line.fixed
