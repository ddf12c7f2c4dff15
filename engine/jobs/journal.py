"""The journal: one JSON line for each finished unit of work, durable before the next unit begins."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError


class Unit(BaseModel):
    """A finished unit: where its bytes lie in the output, and their CRC-32."""

    unit: str
    offset: int
    bytes: int
    crc32: int


class Journal:
    """Appends to and reads `path`. A line cut off by a crash is ignored: its unit was not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, unit: Unit) -> None:
        """Note that `unit` is done; returns when the line is on disk."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, self._separator(descriptor) + unit.model_dump_json().encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _separator(descriptor: int) -> bytes:
        """A newline where the last line was cut off, so that ours stands alone."""
        size = os.fstat(descriptor).st_size
        return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""

    def units(self) -> dict[str, Unit]:
        """The finished units in their order, the last line of a unit counting."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError:  # none yet, or not readable: then nothing counts as finished
            return {}
        found: dict[str, Unit] = {}
        for line in lines:
            try:
                entry = Unit.model_validate_json(line)
            except ValidationError:
                continue
            found[entry.unit] = entry
        return found

    def clear(self) -> None:
        """Forget all units: their bytes are gone."""
        self.path.unlink(missing_ok=True)
