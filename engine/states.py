"""The hidden states of a model's windows in a file, so that a measurement goes on where it was broken off.

Layout. A file of equal slots, each with room for one batch of windows, float32 [windows, length, width], and
a few more slots than batches. A batch's state is written, and noted in the journal, when about a second of
work has come together; until then it is held in memory, `HELD_BYTES` of all batches at most.

Why neither a kill nor a power loss can mix two states:
1. A new state goes into a free slot, never over the newest one that the journal names of its batch.
2. That one's slot becomes free only when the line of the new state is on disk: bytes, fsync, line, fsync.
3. So at any moment the newest line of each batch names bytes that nobody is writing over.
4. A line from before may name a slot that is in use again. Its checksum tells, and it counts for nothing.
5. What is damaged goes back by itself, to an older state or to its tokens: no batch looks at another, and the
   same blocks give the same bits again.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch

from engine.api.jobs import Saved
from engine.jobs.journal import Unit
from engine.jobs.units import UnitFile

if TYPE_CHECKING:
    from engine.jobs.fingerprint import Unchanged
    from engine.jobs.running import Running

HELD_BYTES = 64 << 20
"""Of hidden states of one model that are in memory and not yet on disk."""

SAVING_SECONDS = 1.0
"""Work of so long is lost at most, or of one batch; or more where the disk is slow."""

SAVING_SHARE = 0.05
SLOWEST_SECONDS = 30.0
"""Of the time at most this share goes into saving, as long as no more seconds than these lie between."""

log = logging.getLogger(__name__)


class Saver:
    """Says when results are to be made durable, and watches that `sources` stay as they are."""

    def __init__(self, work: "Running", sources: "Unchanged") -> None:
        self.work, self._sources = work, sources
        self._next = time.monotonic() + SAVING_SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    @contextmanager
    def saving(self, saved: Saved) -> Iterator[None]:
        """Around the writing of results and the commit with `saved`."""
        self._sources.check()
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._next = now + max(SAVING_SECONDS, min(SLOWEST_SECONDS, (now - began) / SAVING_SHARE))
        self.work.note(saved)


class HiddenStates:
    """The states of the batches `wanted` of one model, where the journal says that they stand: `States`.

    `batches`: the sizes of all batches, in windows; `shape`: [length, width] of a window. `kind` begins the
    names of units: it holds everything that the bits depend on. `saved` gives, for a number of blocks that
    all batches have gone through, what is to be told.
    """

    def __init__(
        self,
        saver: Saver,
        kind: str,
        name: str,
        shape: tuple[int, int],
        batches: Sequence[int],
        wanted: Sequence[int],
        blocks: int,
        saved: Callable[[int], Saved],
    ) -> None:
        """`name` is the file's in the job's folder of results. Raises `OutputError`."""
        self._saver, self._kind, self._shape, self._batches = saver, kind, shape, batches
        self._saved = saved
        work = saver.work
        self._slot = 4 * shape[0] * shape[1] * max(batches)
        self._most_held = max(1, min(len(batches), HELD_BYTES // self._slot))
        self._slots = len(batches) + self._most_held
        path = work.work_folder / name
        journal = work.job.journal
        self._file = UnitFile(path, self._slots * self._slot, journal, f"{path.parent.name}/{name}")
        try:
            self._at = self._find(wanted, blocks)
        except BaseException:
            self._file.close()
            raise
        self._free = sorted(set(range(self._slots)) - {slot for _, slot in self._at.values()})
        self._held: dict[int, tuple[int, torch.Tensor]] = {}
        self._wanted = wanted
        work.guard.register(self.commit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        self._file.close()

    @staticmethod
    def disk(shape: tuple[int, int], batches: Sequence[int]) -> int:
        """Bytes that the file takes."""
        slot = 4 * shape[0] * shape[1] * max(batches)
        return slot * (len(batches) + max(1, min(len(batches), HELD_BYTES // slot)))

    def step(self, batch: int) -> int:
        """How far the batch has come: 0 embedded, n behind n blocks, -1 nowhere yet."""
        step, _ = self._held.get(batch) or self._at.get(batch) or (-1, None)
        return step

    def get(self, batch: int) -> torch.Tensor:
        if batch in self._held:
            return self._held[batch][1]
        _, slot = self._at[batch]
        states = torch.empty(self._batches[batch], *self._shape)
        self._file.read(slot * self._slot, _bytes(states))
        return states

    def put(self, batch: int, step: int, states: torch.Tensor) -> None:
        """Keep what the batch has become. Raises `UserError`s where memory or disk run short."""
        if batch not in self._held and len(self._held) == self._most_held:
            self.commit()
        self._held[batch] = (step, states.contiguous())
        self._saver.work.check()
        if self._saver.due:
            self.commit()

    def forget(self, batch: int) -> None:
        """Let the batch begin again from its tokens."""
        self._free.append(self._at.pop(batch)[1])

    def commit(self) -> None:
        """Make what is held durable, and hold it no longer."""
        if not self._held:
            return
        saved = self._saved(max(0, min(self.step(batch) for batch in self._wanted)))
        with self._saver.saving(saved):
            placed = {}
            for batch, (step, states) in self._held.items():
                placed[batch] = (step, self._free.pop())
                self._file.write(self._unit(step, batch), placed[batch][1] * self._slot, [_bytes(states)])
            self._file.commit(saved)
            self._free += [self._at[batch][1] for batch in placed if batch in self._at]
            self._at |= placed
            self._held.clear()

    def _unit(self, step: int, batch: int) -> str:
        return f"{self._kind}/{step}/{batch}"

    def _find(self, wanted: Sequence[int], blocks: int) -> dict[int, tuple[int, int]]:
        """Step and slot of each batch's newest whole state."""
        noted = self._noted(wanted, blocks)
        found: dict[int, tuple[int, int]] = {}
        damaged = 0
        while noted:
            newest = {batch: units.pop(0) for batch, units in noted.items()}
            places = {unit.unit: (unit.offset, unit.bytes) for _, unit in newest.values()}
            whole = self._file.finished(places, self._saver.work.listener)
            taken = {slot for _, slot in found.values()}
            for batch, (step, unit) in newest.items():
                slot = unit.offset // self._slot
                if unit.unit in whole and slot not in taken:
                    found[batch] = (step, slot)
                    taken.add(slot)
                else:
                    damaged += 1
            noted = {batch: units for batch, units in noted.items() if units and batch not in found}
        if found:
            steps = [step for step, _ in found.values()]
            log.info(
                "%s: %d of %d batches go on behind %d to %d of %d blocks",
                self._file.name, len(found), len(wanted), min(steps), max(steps), blocks,
            )  # fmt: skip
        if damaged:
            log.warning("%s: %d states are damaged or were written over", self._file.name, damaged)
        return found

    def _noted(self, wanted: Sequence[int], blocks: int) -> dict[int, list[tuple[int, Unit]]]:
        """For each batch that the journal knows in this file, its steps and units, newest first."""
        units = self._file.journal.units()
        noted: dict[int, list[tuple[int, Unit]]] = {}
        for batch in wanted:
            for step in range(blocks, -1, -1):
                unit = units.get(self._unit(step, batch))
                if unit is not None and self._fits(unit, batch):
                    noted.setdefault(batch, []).append((step, unit))
        return noted

    def _fits(self, unit: Unit, batch: int) -> bool:
        """Whether the unit is a slot of this file, filled by that batch."""
        slot, rest = divmod(unit.offset, self._slot)
        size = 4 * self._batches[batch] * self._shape[0] * self._shape[1]
        return unit.file == self._file.name and rest == 0 and slot < self._slots and unit.bytes == size


def _bytes(states: torch.Tensor) -> memoryview:
    return states.numpy().data.cast("B")
