"""What is gathered of every block, on the disk, so that a job goes on where it was broken off.

One block is at work at a time. Its tally, with how many batches it holds (the first n, always in this order),
goes in turns into one of two files, so that a new one is never written over the newest. Once it holds all
batches, what is to be told of it goes into a file of the block, which is much smaller. Either is durable
before the hidden states of those batches are (engine/states.py). So after a kill they hold at least what the
states have passed; a batch that must pass again is not added twice. Where one is damaged, the batches that it
lacks begin again from their tokens: each sum is added up in the same order, to the same bits.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from engine.calibration.array_files import Array, ArrayFile, packed
from engine.calibration.flows import BlockTally
from engine.jobs.units import UnitFile
from engine.states import Saver

log = logging.getLogger(__name__)

TURNS = 2


class Standing(BaseModel):
    """What the file of a tally says of it: the block, its batches, and how often one was written before."""

    part: int
    batches: int
    turn: int


Finished = tuple[str, dict[str, Array]]
"""What is to be told of a block, and its arrays."""


class StoredTallies:
    """The tallies of `parts` blocks over `batches` batches of windows.

    `kind` begins the names of units: it holds everything that the bits depend on. `fresh(part)` gives an
    empty tally, `finish(part, tally)` what is to be told of one that is full.
    """

    def __init__(
        self,
        saver: Saver,
        kind: str,
        parts: int,
        batches: int,
        fresh: Callable[[int], BlockTally],
        finish: Callable[[int, BlockTally], Finished],
    ) -> None:
        self._saver, self._kind, self._parts, self._all = saver, kind, parts, batches
        self._fresh, self._finish = fresh, finish
        self._told = {part for part in range(parts) if self._is_whole(f"part-{part}")}
        self._new: dict[int, Finished] = {}
        self._at: Standing | None = None
        self._tally: BlockTally | None = None
        self._changed = False
        self._find()

    def batches(self, part: int) -> int:
        """How many batches of the part are held."""
        if part in self._told or part in self._new:
            return self._all
        return self._at.batches if self._at is not None and self._at.part == part else 0

    def passed(self, batch: int) -> int:
        """How many parts, from the first one on, hold the batch."""
        return next((part for part in range(self._parts) if self.batches(part) <= batch), self._parts)

    def tally(self, part: int) -> BlockTally:
        """That of the part at work, to add what it lacks."""
        if self._at is None or self._at.part != part or self._tally is None:
            turn = 0 if self._at is None else self._at.turn
            self._at, self._tally = Standing(part=part, batches=0, turn=turn), self._fresh(part)
        return self._tally

    def add(self, part: int, batch: int, tally: BlockTally) -> None:
        """A batch has gone into the tally, unless it is held already."""
        if batch < self.batches(part):
            return
        assert self._at is not None, "who adds has asked for the tally"
        assert batch == self._at.batches, "batches come in their order"
        self._at.batches += 1
        self._changed = True
        if self._at.batches == self._all:
            self._new[part] = self._finish(part, tally)
            self._tally, self._changed = None, False

    def commit(self) -> None:
        """Make what is new durable."""
        for part, (about, arrays) in self._new.items():
            self._write(f"part-{part}", about, arrays)
            self._told.add(part)
        self._new.clear()
        if self._changed and self._at is not None and self._tally is not None:
            self._at.turn += 1
            self._write(f"tally-{self._at.turn % TURNS}", self._at.model_dump_json(), self._tally.arrays())
            self._changed = False

    def finished(self, part: int) -> ArrayFile:
        """What is to be told of a part; all is committed."""
        return ArrayFile(self._path(f"part-{part}"))

    def _path(self, name: str) -> Path:
        return self._saver.work.work_folder / name

    def _open(self, name: str, size: int, *, fresh: bool = False) -> UnitFile:
        path = self._path(name)
        return UnitFile(path, size, self._saver.work.job.journal, f"{path.parent.name}/{name}", fresh=fresh)

    def _write(self, name: str, about: str, arrays: dict[str, Array]) -> None:
        size, pieces = packed(about, arrays)
        file = self._open(name, size, fresh=True)
        try:
            file.write(f"{self._kind}/{name}", 0, pieces)
            file.commit()
        finally:
            file.close()

    def _is_whole(self, name: str) -> bool:
        unit = self._saver.work.job.journal.units().get(f"{self._kind}/{name}")
        path = self._path(name)
        if unit is None or not path.is_file() or path.stat().st_size != unit.bytes:
            return False
        file = self._open(name, unit.bytes)
        try:
            return bool(file.finished({unit.unit: (0, unit.bytes)}, self._saver.work.listener))
        finally:
            file.close()

    def _find(self) -> None:
        """Go on with the newest tally that is whole, unless its block is told."""
        newest: tuple[Standing, str] | None = None
        for turn in range(TURNS):
            name = f"tally-{turn}"
            if not self._is_whole(name):
                continue
            with ArrayFile(self._path(name)) as file:
                standing = Standing.model_validate_json(file.about)
            if newest is None or standing.turn > newest[0].turn:
                newest = standing, name
        if newest is None:
            return
        self._at, name = newest
        log.info("%d batches of block %d are gathered", self._at.batches, self._at.part + 1)
        if self._at.part in self._told:
            return
        self._tally = self._fresh(self._at.part)
        with ArrayFile(self._path(name)) as file:
            self._tally.restore(list(file.arrays), lambda array: file.arrays[array].read())
