"""The help, in the window: the Markdown pages of `resources/help`, the same that the README links."""

import re

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QGuiApplication, QTextBlock, QTextBlockFormat, QTextCursor, QTextTable
from PySide6.QtWidgets import QComboBox, QFrame, QLabel, QLineEdit, QTextBrowser, QVBoxLayout, QWidget

from app import theme
from app.plain import breakable, printable, shortened
from app.theme import SPACE
from resources import FOLDER

PAGES = FOLDER / "help"
FIRST = "window"


class HelpPanel(QWidget):
    """A choice of pages, a field to search the page, the page. Links to the web are copied, never opened."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Help")
        self.page = ""
        self.pages = QComboBox()
        self.pages.setAccessibleName("Help pages")
        for name, title in titles().items():
            self.pages.addItem(title, name)
        self.pages.activated.connect(lambda place: self.show_page(self.pages.itemData(place)))
        self.search = QLineEdit(placeholderText="Search this page", clearButtonEnabled=True)
        self.search.setAccessibleName("Search the help page")
        self.search.textChanged.connect(self._find_first)
        self.search.returnPressed.connect(self._find_next)
        self.note = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.note.setAccessibleName("Note")
        self.note.hide()
        self.browser = QTextBrowser(openLinks=False)
        self.browser.setAccessibleName("Help page")
        self.browser.setFrameShape(QFrame.Shape.NoFrame)
        self.browser.document().setDocumentMargin(3 * SPACE)
        self.browser.document().setIndentWidth(5 * SPACE)
        self.browser.anchorClicked.connect(self._follow)
        fields = QVBoxLayout()
        fields.setContentsMargins(2 * SPACE, 2 * SPACE, 2 * SPACE, 0)
        fields.setSpacing(2 * SPACE)
        for field in (self.pages, self.search, self.note):
            fields.addWidget(field)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2 * SPACE)
        column.addLayout(fields)
        column.addWidget(self.browser, 1)
        theme.notifier().changed.connect(self._render)
        self.show_page(FIRST)

    def show_page(self, name: str, anchor: str = "") -> None:
        """The page of that name ("recipes"), at a heading if `anchor` names one ("the-table")."""
        self._say("")
        if name != self.page:
            self.page = name
            self.pages.setCurrentIndex(self.pages.findData(name))
            self._render()
        top = self._heading(anchor)
        bar = self.browser.verticalScrollBar()
        bar.setValue(
            round(self.browser.document().documentLayout().blockBoundingRect(top).top()) if top else 0
        )

    def _render(self) -> None:
        """Lay the page out again: links and lines take their color when that is done."""
        self.browser.setMarkdown(_text(self.page))
        document = self.browser.document()
        for frame in document.rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                _lay_out(frame)
        block = document.begin()
        while block.isValid():
            _set_out(block)
            block = block.next()

    def _heading(self, anchor: str) -> QTextBlock | None:
        block = self.browser.document().begin()
        while anchor and block.isValid():
            if block.blockFormat().headingLevel() and slug(block.text()) == anchor:
                return block
            block = block.next()
        return None

    def _follow(self, link: QUrl) -> None:
        if link.scheme():
            QGuiApplication.clipboard().setText(link.toString())
            self._say(f"{link.toString()} is copied. Bitwright opens nothing on the web by itself.")
        else:
            self.show_page(link.path().removesuffix(".md") or self.page, link.fragment())

    def _find_first(self, text: str) -> None:
        self.browser.moveCursor(QTextCursor.MoveOperation.Start)
        self._find(text)

    def _find_next(self) -> None:
        if self.search.text() and not self._find(self.search.text()):
            self._find_first(self.search.text())

    def _find(self, text: str) -> bool:
        found = bool(text) and self.browser.find(text)
        elsewhere = [title for name, title in titles().items() if text.lower() in _text(name).lower()]
        others = f" It is in: {', '.join(elsewhere)}." if elsewhere else ""
        self._say(
            f"“{shortened(printable(text))}” is not further down this page.{others}"
            if text and not found
            else ""
        )
        return found

    def _say(self, text: str) -> None:
        self.note.setText(breakable(text))
        self.note.setVisible(bool(text))


def titles() -> dict[str, str]:
    """Each page's name and its first heading; the page on the window comes first."""
    names = sorted((path.stem for path in PAGES.glob("*.md")), key=lambda name: (name != FIRST, name))
    return {name: _text(name).splitlines()[0].lstrip("# ") for name in names}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _text(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def _lay_out(table: QTextTable) -> None:
    """Thin lines in our color and room in the cells, instead of the ruled default."""
    form = table.format()
    form.setBorder(1)
    form.setBorderCollapse(True)
    form.setBorderBrush(theme.colors().border)
    form.setCellPadding(SPACE)
    form.setCellSpacing(0)
    table.setFormat(form)


def _set_out(block: QTextBlock) -> None:
    """Room above headings; commands wrap, for the panel is narrow."""
    form = QTextBlockFormat(block.blockFormat())
    form.setNonBreakableLines(False)
    if form.headingLevel() > 1:
        form.setTopMargin(4 * SPACE)
    QTextCursor(block).setBlockFormat(form)
