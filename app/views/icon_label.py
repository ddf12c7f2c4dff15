"""An icon that stands by itself, beside words."""

from PySide6.QtWidgets import QLabel

from app import theme


class IconLabel(QLabel):
    """Keeps to the theme: a picture taken from an icon would stay in the colors of its moment."""

    def __init__(self, icon: str, tint: theme.Tint, name: str, size: int = theme.ICON_SIZE) -> None:
        """`name` is what a screen reader says for it."""
        super().__init__()
        self._icon, self._size = theme.icon(icon, tint), size
        self.setAccessibleName(name)
        theme.notifier().changed.connect(self._paint)
        self._paint()

    def _paint(self) -> None:
        self.setPixmap(self._icon.pixmap(self._size, self._size))
