"""Sums of every block in a file, so that a calibration goes on where it was broken off.

Beside each block's sums stands how many batches they hold: the first n, always in this order. They are made
durable before the hidden states of those batches are (engine/states.py), which go on to the next block. So
after a kill the sums hold at least what the states have passed; a batch that must pass again is not added
twice. Where sums are damaged, the batches that they lack begin again from their tokens. Either way each sum
is added up in the same order, to the same bits.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from engine.jobs.units import UnitFile
from engine.states import HiddenStates, Saver

log = logging.getLogger(__name__)

NAME = "sums"


class StoredSums:
    """For each part of a model (its blocks, its head) a float64 array of `lengths[part]` values.

    Slots of equal room in one file, one more than parts: new sums never go over the newest ones of the part.
    """

    def __init__(self, saver: Saver, kind: str, lengths: Sequence[int]) -> None:
        """`kind` begins the names of units: it holds everything that the bits depend on."""
        work = saver.work
        self._kind, self._lengths = kind, lengths
        self._slot = 8 * max(lengths)
        self._slots = len(lengths) + 1
        path = work.work_folder / NAME
        self._file = UnitFile(path, self.disk(lengths), work.job.journal, f"{path.parent.name}/{NAME}")
        try:
            self._at = self._find()
        except BaseException:
            self._file.close()
            raise
        self._free = sorted(set(range(self._slots)) - {slot for _, slot in self._at.values()})
        self._held: dict[int, tuple[int, np.ndarray]] = {}
        self._new: set[int] = set()

    def __enter__(self) -> "StoredSums":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @staticmethod
    def disk(lengths: Sequence[int]) -> int:
        """Bytes that the file takes."""
        return 8 * max(lengths) * (len(lengths) + 1)

    def batches(self, part: int) -> int:
        """How many batches the sums of the part hold."""
        count, _ = self._held.get(part) or self._at.get(part) or (0, None)
        return count

    def passed(self, batch: int) -> int:
        """How many parts, from the first one on, hold the batch."""
        return next(
            (part for part in range(len(self._lengths)) if self.batches(part) <= batch), len(self._lengths)
        )

    def get(self, part: int) -> np.ndarray:
        if part in self._held:
            return self._held[part][1]
        values = np.zeros(self._lengths[part])
        if part in self._at:
            self._file.read(self._at[part][1] * self._slot, values.data.cast("B"))
        return values

    def add(self, part: int, batch: int, values: np.ndarray) -> None:
        """Add what a batch gave, unless the sums hold it already."""
        count = self.batches(part)
        if batch < count:
            return
        assert batch == count, "batches come in their order"
        self._held[part] = count + 1, self.get(part) + values
        self._new.add(part)

    def commit(self) -> None:
        """Make what is new durable; of what is, only the newest part stays in memory."""
        placed: dict[int, int] = {}
        for part in sorted(self._new):
            count, values = self._held[part]
            placed[part] = self._free.pop()
            unit = self._unit(part, count)
            self._file.write(unit, placed[part] * self._slot, [values.data.cast("B")])
            self._file.commit()
            if part in self._at:
                self._free.append(self._at[part][1])
            self._at[part] = count, placed[part]
        self._new.clear()
        newest = max(self._held, default=None)
        self._held = {part: held for part, held in self._held.items() if part == newest}

    def _unit(self, part: int, batches: int) -> str:
        return f"{self._kind}/{NAME}/{part}/{batches}"

    def _find(self) -> dict[int, tuple[int, int]]:
        """Batches and slot of each part's newest whole sums."""
        noted = self._noted()
        found: dict[int, tuple[int, int]] = {}
        for part, counts in noted.items():
            for count in sorted(counts, reverse=True):
                offset = counts[count]
                whole = self._file.finished({self._unit(part, count): (offset, 8 * self._lengths[part])})
                slot = offset // self._slot
                if whole and slot not in {taken for _, taken in found.values()}:
                    found[part] = count, slot
                    break
            else:
                log.warning("the sums of part %d are damaged", part)
        return found

    def _noted(self) -> dict[int, dict[int, int]]:
        """For each part that the journal knows, its counts of batches and where their sums lie."""
        noted: dict[int, dict[int, int]] = {}
        for name, unit in self._file.journal.units().items():
            head, _, count = name.rpartition("/")
            prefix, _, part = head.rpartition("/")
            if prefix != f"{self._kind}/{NAME}" or not (part.isdecimal() and count.isdecimal()):
                continue
            slot, rest = divmod(unit.offset, self._slot)
            if int(part) < len(self._lengths) and rest == 0 and slot < self._slots:
                noted.setdefault(int(part), {})[int(count)] = unit.offset
        return noted


class Counted(Protocol):
    """What is gathered of each part of a model, batch by batch, and made durable by `commit`."""

    def passed(self, batch: int) -> int:
        """How many parts, from the first one on, hold the batch."""
        ...

    def add(self, part: int, batch: int, values: Any) -> None: ...

    def commit(self) -> None: ...


class CountedStates(HiddenStates):
    """Hidden states that go to the disk behind the sums of what they have passed.

    When a batch is put behind a block, `seen(block, batch)` gives the sums of this pass.
    """

    def __init__(self, sums: Counted, seen: Callable[[int, int], Any], *arguments: Any, **named: Any) -> None:
        """`arguments`: as for `HiddenStates`."""
        self._sums, self._seen = sums, seen
        super().__init__(*arguments, **named)
        for batch in [batch for batch in self._wanted if self.step(batch) > sums.passed(batch)]:
            self.forget(batch)

    def put(self, batch: int, step: int, states: torch.Tensor) -> None:
        if step:
            self._sums.add(step - 1, batch, self._seen(step - 1, batch))
        super().put(batch, step, states)

    def commit(self) -> None:
        self._sums.commit()
        super().commit()
