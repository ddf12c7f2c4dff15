"""A figure as a file: what paints it on the screen paints it here."""

from collections.abc import Callable

from PySide6.QtCore import QBuffer, QIODevice, QRect, QSize
from PySide6.QtGui import QImage, QPainter

from app import theme

IMAGE_SCALE = 3
"""A saved picture has this many pixels for each of the screen's."""

SCREEN_DPI = 96

Paint = Callable[[QPainter, float], None]
"""Paints with a painter, so many pixels for each of the screen's."""


def picture(paint: Paint, size: QSize) -> QImage:
    """On the window's ground, finer than on the screen."""
    image = QImage(size * IMAGE_SCALE, QImage.Format.Format_ARGB32_Premultiplied)
    image.setDevicePixelRatio(IMAGE_SCALE)
    image.fill(theme.colors().window)
    painter = QPainter(image)
    paint(painter, IMAGE_SCALE)
    painter.end()
    return image


def encoded(image: QImage) -> bytes:
    """As PNG; may be called in any thread."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return bytes(buffer.data().data())


def drawing(paint: Paint, size: QSize, title: str) -> bytes:
    """As SVG: lines and letters, pictures of cells embedded.

    These no finer than on the screen: whoever shows a finer one smaller leaves out single cells.
    """
    from PySide6.QtSvg import QSvgGenerator  # only who saves a drawing needs it

    buffer = QBuffer()
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    generator.setResolution(SCREEN_DPI)
    generator.setTitle(title)
    painter = QPainter(generator)
    painter.fillRect(QRect(0, 0, size.width(), size.height()), theme.colors().window)
    paint(painter, 1)
    painter.end()
    return bytes(buffer.data().data())
