"""Colors that can be read, a palette without holes, icons that follow the theme."""

import ast
from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QColor, QIcon, QImage, QPalette
from PySide6.QtWidgets import QLabel, QWidget

from app import theme
from app.views.parts import Fault

SCHEMES = {"light": theme.LIGHT, "dark": theme.DARK}
TEXTS = ("text", "muted", "disabled", "accent", "warning", "error")
GROUNDS = ("window", "base", "alternate", "button", "selection")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def light_again(qapp):
    yield
    theme.apply_theme(qapp, "light")


def luminance(color: QColor) -> float:
    """Relative luminance as the Web Content Accessibility Guidelines define it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (color.redF(), color.greenF(), color.blueF())
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: QColor, other: QColor) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_the_published_ratio():
    assert contrast(QColor("black"), QColor("white")) == pytest.approx(21)
    assert contrast(QColor("#777777"), QColor("white")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("text", "ground"), [*product(TEXTS, GROUNDS), ("on_accent", "accent")])
def test_every_text_reads_on_every_ground(scheme, text, ground):
    of = SCHEMES[scheme]
    assert contrast(getattr(of, text), getattr(of, ground)) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_palette_reads_in_every_group(scheme):
    role, made = QPalette.ColorRole, theme.palette(SCHEMES[scheme])
    pairs = (
        (role.WindowText, role.Window),
        (role.Text, role.Base),
        (role.Text, role.AlternateBase),
        (role.ButtonText, role.Button),
        (role.ToolTipText, role.ToolTipBase),
        (role.PlaceholderText, role.Base),
        (role.HighlightedText, role.Highlight),
        (role.BrightText, role.Accent),
        (role.Link, role.Base),
        (role.LinkVisited, role.Base),
    )
    for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive, QPalette.ColorGroup.Disabled):
        for text, ground in pairs:
            ratio = contrast(made.color(group, text), made.color(group, ground))
            assert ratio >= 4.5, (group, text, ground)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_fault_reads_also_where_the_theme_changes_under_it(qapp, qtbot, scheme):
    theme.apply_theme(qapp, next(other for other in SCHEMES if other != scheme))
    panel = QWidget()
    qtbot.addWidget(panel)
    fault = Fault(panel)
    fault.say("“x” is no number.")
    theme.apply_theme(qapp, scheme)
    (words,) = [label for label in fault.findChildren(QLabel) if label.text()]
    role, of = QPalette.ColorRole, SCHEMES[scheme]
    assert words.palette().color(role.WindowText) == of.error
    assert words.palette().color(role.Window) == of.window
    for ground in (of.window, of.base):
        assert contrast(words.palette().color(role.WindowText), ground) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_palette_leaves_nothing_to_the_platform(scheme):
    made = theme.palette(SCHEMES[scheme])
    for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive, QPalette.ColorGroup.Disabled):
        for role in QPalette.ColorRole:
            if role not in (QPalette.ColorRole.NoRole, QPalette.ColorRole.NColorRoles):
                assert made.isBrushSet(group, role), (group, role)


def test_the_accents_are_those_of_the_house():
    assert theme.LIGHT.accent.name() == "#0f766e"
    assert theme.DARK.accent.name() == "#2dd4bf"
    assert all(isinstance(getattr(theme.DARK, field.name), QColor | bool) for field in fields(theme.Colors))


def test_switching_changes_palette_and_says_so(qapp, qtbot):
    theme.apply_theme(qapp, "light")
    with qtbot.waitSignal(theme.notifier().changed):
        theme.apply_theme(qapp, "dark")
    assert theme.colors() is theme.DARK
    assert qapp.palette().window().color() == theme.DARK.window
    theme.apply_theme(qapp, "light")
    assert qapp.palette().window().color() == theme.LIGHT.window


def painted(icon: QIcon, mode: QIcon.Mode = QIcon.Mode.Normal) -> set[str]:
    """The opaque colors of an icon's strokes."""
    image = icon.pixmap(QSize(64, 64), 1.0, mode).toImage().convertToFormat(QImage.Format.Format_ARGB32)
    pixels = [image.pixelColor(x, y) for x in range(64) for y in range(64)]
    return {pixel.name() for pixel in pixels if pixel.alpha() == 255}


def test_icons_take_the_colors_of_the_moment(qapp):
    icon = theme.icon("folder-open")
    theme.apply_theme(qapp, "light")
    assert painted(icon) == {theme.LIGHT.text.name()}
    assert painted(icon, QIcon.Mode.Disabled) == {theme.LIGHT.disabled.name()}
    theme.apply_theme(qapp, "dark")
    assert painted(icon) == {theme.DARK.text.name()}
    assert painted(theme.icon("warning", "warning")) == {theme.DARK.warning.name()}


def icon_names() -> list[tuple[str, str]]:
    """(file, name) of every `icon("…")` call with a literal name in the window's code."""
    found = []
    for file in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if called == "icon":
                    found.append((file.name, node.args[0].value))
    return found


def test_every_icon_that_is_named_exists(qapp):
    known = theme._outlines().charmap["ph"]
    assert len(icon_names()) > 5
    assert [(file, name) for file, name in icon_names() if name not in known] == []


@pytest.mark.parametrize("size", [16, 256])
def test_our_own_icon_is_drawn_at_every_size(qapp, size):
    image = theme.app_icon().pixmap(size, size).toImage()
    assert image.width() == size
    seen = {image.pixelColor(x, y).name() for x in range(size) for y in range(size)}
    assert {"#0f766e", "#ffffff"} <= seen


def test_figures_have_one_width(qapp):
    from PySide6.QtGui import QFont

    assert theme.figures_font(qapp.font()).featureTags() == [QFont.Tag("tnum")]
    assert theme.names_font().pointSizeF() == qapp.font().pointSizeF()
