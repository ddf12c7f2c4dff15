"""The journal: one JSON line for each finished unit of work, durable before the unit counts as finished."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from engine.api.jobs import Saved


class Unit(BaseModel):
    """A finished unit: where its bytes lie, and their CRC-32.

    `file` is a name in the job's folder, "" the job's output. `saved`: how much of the job is done with it.
    """

    unit: str
    file: str = ""
    offset: int = Field(ge=0)
    bytes: int = Field(ge=0)
    crc32: int
    saved: Saved | None = None


class Journal:
    """Appends to and reads `path`. A line cut off by a crash is ignored: its unit was not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, units: Sequence[Unit]) -> None:
        """Note that `units` are done; returns when their lines are on disk."""
        lines = b"".join(unit.model_dump_json(exclude_none=True).encode() + b"\n" for unit in units)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _write(descriptor, self._separator(descriptor) + lines)
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
        found: dict[str, Unit] = {}
        for line in self._lines():
            try:
                unit = Unit.model_validate_json(line)
            except ValidationError:
                continue
            found[unit.unit] = unit
        return found

    def saved(self) -> Saved | None:
        """How much of the job is done, as the newest whole line says that tells it."""
        for line in reversed(self._lines()):
            with suppress(ValidationError):
                saved = Unit.model_validate_json(line).saved
                if saved is not None:
                    return saved
        return None

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().split(b"\n")
        except OSError:  # none yet, or not readable: then nothing counts as finished
            return []

    def clear(self) -> None:
        """Forget all units: their bytes are gone. Where that fails it does no harm: bytes are checked."""
        with suppress(OSError):
            os.truncate(self.path, 0)


def _write(descriptor: int, data: bytes) -> None:
    """All of `data`: a disk that is nearly full takes the beginning, and refuses the rest only then."""
    while data:
        data = data[os.write(descriptor, data) :]
