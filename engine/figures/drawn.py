"""What drawing gives: a figure, better each time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.api.figures import Figure, HeatMap

Wanted = Callable[[], bool]
"""Whether anybody still waits for the figure; asked between pieces of work."""

REFRESH_SECONDS = 0.3
"""How often a figure that takes long is shown as far as it is."""


@dataclass(frozen=True)
class Drawn:
    """`values`: the cells of a heat map, float32 [height, width]. `done` of `total` parts are in it."""

    figure: Figure | HeatMap
    values: np.ndarray | None
    done: int
    total: int
    last: bool


class Refresh:
    """Says when a figure is to be shown again."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since it last was."""
        now = time.monotonic()
        if now - self._shown < REFRESH_SECONDS:
            return False
        self._shown = now
        return True
