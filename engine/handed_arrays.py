"""Arrays for the window, as .npy files that a message names; their reader deletes them."""

import itertools
import tempfile
import threading
from pathlib import Path

import numpy as np


class HandedArrays:
    """Writes them to a folder that is there until `close`."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def write(self, array: np.ndarray) -> str:
        """The path of a new file, complete as soon as it has its name."""
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="bitwright-")
        path = Path(self._folder.name) / f"{next(self._numbers)}.npy"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(path)
        return str(path)

    def close(self) -> None:
        """Remove them all."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None
