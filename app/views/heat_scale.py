"""The colors of a heat map: cividis for magnitudes, for signed values a map with zero in its middle.

Both read without seeing red from green, and in grey. The signed one goes from blue to orange; its middle is
close to the window's ground, so that what is small steps back in light and dark.
"""

from functools import cache
from math import log10

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QColor

from app.views.ticks import even_ticks, powers

STEPS = 512
SIGNED = ("#08335F", "#3F8FC8", "#F3F3F2", "#DD8A36", "#6E2D00")
SIGNED_DARK = ("#C4E6FF", "#3D93D1", "#22262A", "#D5832E", "#FFE3BD")
DECADES = 6
"""A logarithmic scale shows no more than these below the highest value."""


class Scale:
    """From values to colors. A logarithmic one is for magnitudes only."""

    def __init__(
        self, limits: tuple[float, float, float], *, signed: bool, logarithmic: bool, dark: bool
    ) -> None:
        """`limits`: lowest, highest, least above zero."""
        lowest, highest, least = limits
        self.signed, self.logarithmic = signed, logarithmic and highest > 0
        if signed:
            high = max(abs(lowest), abs(highest)) or 1.0
            self.low, self.high = -high, high
        else:
            self.high = highest if highest > min(lowest, 0.0) else min(lowest, 0.0) + 1.0
            self.low = max(least, highest / 10**DECADES) if self.logarithmic else min(lowest, 0.0)
            if self.logarithmic and self.low >= self.high:
                self.low = self.high / 10
        self._table = _table(signed, dark)

    def places(self, values: np.ndarray) -> np.ndarray:
        """Where values lie between the ends, 0 to 1, float32."""
        if self.logarithmic:
            low, high = log10(self.low), log10(self.high)
            values = np.log10(np.maximum(values, self.low))
        else:
            low, high = self.low, self.high
        return np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)

    def colors(self, values: np.ndarray) -> np.ndarray:
        """uint32 pixels 0xAARRGGBB of the same shape: nothing where a value is NaN."""
        places = self.places(values)
        absent = np.isnan(places)
        places[absent] = 0
        pixels = self._table.take((places * (STEPS - 1) + 0.5).astype(np.uint16))
        pixels[absent] = 0
        return pixels

    def bright(self, values: np.ndarray) -> np.ndarray:
        """Whether dark text reads on the color of each value, bool of the same shape."""
        pixels = self.colors(values)
        red, green, blue = pixels >> 16 & 255, pixels >> 8 & 255, pixels & 255
        return 0.299 * red + 0.587 * green + 0.114 * blue > 120

    def ramp(self, pixels: int) -> np.ndarray:
        """The bar from its upper end to its lower, uint32 [pixels]."""
        return self._table[np.linspace(STEPS - 1, 0, pixels).astype(np.int64)]

    def ticks(self, most: int) -> list[tuple[float, float]]:
        """(value, place between 0 and 1) of the bar."""
        values = powers(self.low, self.high) if self.logarithmic else even_ticks(self.low, self.high, most)
        places = self.places(np.array(values, np.float32))
        return list(zip(values, places.tolist(), strict=True))


@cache
def _table(signed: bool, dark: bool) -> np.ndarray:
    """uint32 [STEPS]"""
    if signed:
        ends = [QColor(name).getRgb() for name in (SIGNED_DARK if dark else SIGNED)]
        colors = pg.ColorMap(np.linspace(0, 1, len(ends)), ends)
    else:
        colors = pg.colormap.get("cividis")
    red, green, blue = colors.getLookupTable(nPts=STEPS, alpha=False).astype(np.uint32).T[:3]
    return 0xFF000000 | red << 16 | green << 8 | blue
