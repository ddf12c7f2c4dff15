"""How the window looks: Fusion with our own palette in light and dark, one small style sheet, icons, fonts.

Greys and one accent; warnings and errors have a color of their own and always come with an icon and words.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from PySide6.QtCore import QObject, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QIcon, QIconEngine, QPainter, QPalette, QPixmap
from PySide6.QtWidgets import QApplication

from resources import FOLDER

if TYPE_CHECKING:
    from qtawesome.iconic_font import IconicFont

Mode = Literal["system", "light", "dark"]

SPACE = 4
"""The grid, in pixels: 4 inside a cell, 8 between controls, 16 around a page."""

ICON_SIZE = 18


@dataclass(frozen=True)
class Colors:
    """The colors of one scheme. Every text color reads at 4.5:1 or better on every ground.

    Texts: `text`, `muted` (less important), `disabled`, `accent`, `warning`, `error`. Grounds: `window`,
    `base` (tables, fields), `alternate`, `button`, `selection`. `on_accent` is text on a ground of `accent`.
    `border` draws lines between areas, `grid` those of plots, `source` what is as it was before.
    """

    dark: bool
    window: QColor
    base: QColor
    alternate: QColor
    button: QColor
    selection: QColor
    text: QColor
    muted: QColor
    disabled: QColor
    accent: QColor
    on_accent: QColor
    warning: QColor
    error: QColor
    border: QColor
    grid: QColor
    source: QColor


LIGHT = Colors(
    dark=False,
    window=QColor("#F5F6F7"),
    base=QColor("#FFFFFF"),
    alternate=QColor("#F8F9FA"),
    button=QColor("#FBFBFC"),
    selection=QColor("#DDF0ED"),
    text=QColor("#1B1F23"),
    muted=QColor("#545C64"),
    disabled=QColor("#646B73"),
    accent=QColor("#0F766E"),
    on_accent=QColor("#FFFFFF"),
    warning=QColor("#8A5200"),
    error=QColor("#B42318"),
    border=QColor("#D5D9DD"),
    grid=QColor(27, 31, 35, 38),
    source=QColor("#737B83"),
)
DARK = Colors(
    dark=True,
    window=QColor("#1D2125"),
    base=QColor("#16191C"),
    alternate=QColor("#1A1D21"),
    button=QColor("#2A2F35"),
    selection=QColor("#143A36"),
    text=QColor("#E4E7EA"),
    muted=QColor("#A4ACB4"),
    disabled=QColor("#969EA6"),
    accent=QColor("#2DD4BF"),
    on_accent=QColor("#0B1F1D"),
    warning=QColor("#F0B429"),
    error=QColor("#FF8A80"),
    border=QColor("#363C43"),
    grid=QColor(228, 231, 234, 38),
    source=QColor("#8A929A"),
)


class Notifier(QObject):
    """Says when the colors changed; follows the system's scheme while the mode is "system"."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = "system"
        self.colors = LIGHT
        self._follows = False

    def apply(self, app: QApplication, mode: Mode) -> None:
        self.mode = mode
        hints = app.styleHints()
        if not self._follows:
            app.setStyle("Fusion")
            hints.colorSchemeChanged.connect(self._follow)
            self._follows = True
        # Native parts (title bar, file dialogs) follow the choice where the platform can.
        schemes = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}
        hints.setColorScheme(schemes.get(mode, Qt.ColorScheme.Unknown))
        dark = mode == "dark" or (mode == "system" and hints.colorScheme() == Qt.ColorScheme.Dark)
        self._take(app, DARK if dark else LIGHT)

    def _follow(self, scheme: Qt.ColorScheme) -> None:
        app = QApplication.instance()
        if self.mode == "system" and isinstance(app, QApplication):
            self._take(app, DARK if scheme == Qt.ColorScheme.Dark else LIGHT)

    def _take(self, app: QApplication, new: Colors) -> None:
        self.colors = new
        app.setPalette(palette(new))
        app.setStyleSheet(style_sheet(new))
        self.changed.emit()


@cache
def notifier() -> Notifier:
    """The one object whose `changed` says that `colors()` are others now."""
    return Notifier()


def apply_theme(app: QApplication, mode: Mode) -> None:
    """Give `app` our looks, light or dark; "system" follows the desktop, now and later."""
    notifier().apply(app, mode)


def colors() -> Colors:
    """The colors of the present scheme."""
    return notifier().colors


def palette(of: Colors) -> QPalette:
    """Every role of every group, so that nothing is left to the platform."""
    made = QPalette()
    role = QPalette.ColorRole
    roles = {
        role.Window: of.window,
        role.WindowText: of.text,
        role.Base: of.base,
        role.AlternateBase: of.alternate,
        role.Text: of.text,
        role.Button: of.button,
        role.ButtonText: of.text,
        role.BrightText: of.on_accent,
        role.ToolTipBase: of.base,
        role.ToolTipText: of.text,
        role.PlaceholderText: of.disabled,
        role.Highlight: of.selection,
        role.HighlightedText: of.text,
        role.Link: of.accent,
        role.LinkVisited: of.accent,
        role.Accent: of.accent,
        role.Light: of.button,
        role.Midlight: of.window,
        role.Mid: of.border,
        role.Dark: of.source,
        role.Shadow: of.text if not of.dark else QColor("#000000"),
    }
    for key, color in roles.items():
        made.setColor(key, color)
    for key in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText, role.ToolTipText):
        made.setColor(QPalette.ColorGroup.Disabled, key, of.disabled)
    for key in (role.Base, role.Button):
        made.setColor(QPalette.ColorGroup.Disabled, key, of.window)
    return made


def style_sheet(of: Colors) -> str:
    """Lines between areas, room around things, and what Fusion draws with its selection color."""
    line = f"1px solid {of.border.name()}"
    icons = {
        name: (FOLDER / "icons" / f"{name}-{'dark' if of.dark else 'light'}.svg").as_posix()
        for name in ("check", "close", "float")
    }
    return f"""
    QToolBar {{ border: 0; border-bottom: {line}; padding: 4px 8px; spacing: 4px; }}
    QToolBar QToolButton {{ padding: 4px 8px; }}
    QToolButton#menu::menu-indicator {{ image: none; }}
    QToolBar QToolButton#primary {{ border-radius: 4px; padding: 5px 16px; font-weight: 600; }}
    QToolBar QToolButton#primary:enabled {{ background: {of.accent.name()}; color: {of.on_accent.name()}; }}
    QToolBar QToolButton#primary:enabled:hover {{ background: {of.accent.lighter(112).name()}; }}
    QMenuBar {{ border-bottom: {line}; }}
    QStatusBar {{ border-top: {line}; }}
    QStatusBar::item {{ border: 0; }}
    QMainWindow::separator {{ background: {of.border.name()}; width: 1px; height: 1px; }}
    CommandPalette, OfferPopup {{ border: {line}; background: {of.window.name()}; }}
    QDockWidget {{ titlebar-close-icon: url("{icons["close"]}");
        titlebar-normal-icon: url("{icons["float"]}"); }}
    QDockWidget::title {{ padding: 6px 8px; border-bottom: {line}; text-align: left; }}
    QHeaderView::section {{ background: {of.window.name()}; color: {of.muted.name()};
        border: 0; border-bottom: {line}; padding: 4px 8px; }}
    QToolTip {{ background: {of.base.name()}; color: {of.text.name()}; border: {line}; padding: 4px; }}
    QLineEdit {{ background: {of.base.name()}; border: {line}; border-radius: 2px; padding: 3px 4px; }}
    QLineEdit:focus, ValueEditor:focus {{ border-color: {of.accent.name()}; }}
    ValueEditor {{ background: {of.base.name()}; border: {line}; border-radius: 2px; }}
    QToolButton#fold {{ border: 1px solid transparent; border-radius: 2px; padding: 2px 4px 2px 0; }}
    QToolButton#fold:focus {{ border-color: {of.accent.name()}; }}
    QAbstractSpinBox QLineEdit, QComboBox QLineEdit {{ border: 0; padding: 0; }}
    QPushButton:default {{ background: {of.accent.name()}; color: {of.on_accent.name()};
        border: 1px solid {of.accent.name()}; border-radius: 2px; padding: 4px 16px; }}
    QPushButton:default:focus {{ border-color: {of.text.name()}; }}
    QPushButton:default:disabled {{ background: {of.window.name()}; color: {of.disabled.name()};
        border-color: {of.border.name()}; }}
    QCheckBox::indicator {{ width: 14px; height: 14px; border: 1px solid {of.source.name()};
        border-radius: 3px; background: {of.base.name()}; }}
    QCheckBox::indicator:focus, QCheckBox::indicator:hover {{ border-color: {of.accent.name()}; }}
    QCheckBox::indicator:checked {{ background: {of.accent.name()}; border-color: {of.accent.name()};
        image: url("{icons["check"]}"); }}
    QProgressBar {{ border: {line}; border-radius: 2px; background: {of.base.name()}; text-align: center; }}
    QProgressBar::chunk {{ background: {of.accent.name()}; }}
    """


# ------------------------------------------------------------------------------------------- fonts


def figures_font(base: QFont) -> QFont:
    """`base` with digits of one width, so that columns of numbers stand still."""
    font = QFont(base)
    font.setFeature(QFont.Tag("tnum"), 1)
    return font


def names_font() -> QFont:
    """The system's monospace at the size of the other text: for names of tensors, commands, logs."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(QApplication.font().pointSizeF())
    return font


# ------------------------------------------------------------------------------------------- icons


Tint = Literal["text", "muted", "accent", "on_accent", "warning", "error"]


@cache
def icon(name: str, tint: Tint = "text") -> QIcon:
    """An outline icon by its Phosphor name ("folder-open"), in the colors of the moment it is painted."""
    return QIcon(_OutlineIcon(name, tint))


@cache
def app_icon() -> QIcon:
    """The program's own icon."""
    return QIcon(str(FOLDER / "icons" / "bitwright.svg"))


@cache
def _outlines() -> "IconicFont":
    """The icon font, loaded with the first icon that is painted: the start need not wait for it.

    Only the one family: qtawesome's own functions would load all twelve, which takes a tenth of a second.
    """
    from qtawesome.iconic_font import IconicFont

    return IconicFont(("ph", "phosphor-1.3.0.ttf", "phosphor-charmap-1.3.0.json"))


class _OutlineIcon(QIconEngine):
    """One character of the icon font."""

    def __init__(self, name: str, tint: Tint) -> None:
        super().__init__()
        self._name, self._tint = name, tint

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        outlines = _outlines()
        painter.save()
        painter.setFont(outlines.font("ph", min(rect.width(), rect.height())))
        painter.setPen(getattr(colors(), "disabled" if mode == QIcon.Mode.Disabled else self._tint))
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, outlines.charmap["ph"][self._name])
        painter.restore()

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        made = QPixmap(size)
        made.fill(Qt.GlobalColor.transparent)
        painter = QPainter(made)
        self.paint(painter, QRect(0, 0, size.width(), size.height()), mode, state)
        painter.end()
        return made
