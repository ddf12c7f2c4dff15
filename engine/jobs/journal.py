"""The journal: one JSON line for each finished unit of work, durable before the next unit begins."""

import json
import os
from pathlib import Path


class Journal:
    """Appends to and reads `path`. A line cut off by a crash is ignored: its unit was not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, unit: str, **facts: int | str) -> None:
        """Note that `unit` is done; returns when the line is on disk."""
        line = json.dumps({"unit": unit, **facts}) + "\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, self._separator(descriptor) + line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _separator(descriptor: int) -> bytes:
        """A newline where the last line was cut off, so that ours stands alone."""
        size = os.fstat(descriptor).st_size
        return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""

    def units(self) -> dict[str, dict]:
        """The finished units in their order, the last line of a unit counting."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        found: dict[str, dict] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                found[entry["unit"]] = entry
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
