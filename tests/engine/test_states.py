"""Hidden states in a file: whatever stops the writing, and whatever befalls the file, none is ever wrong."""

import errno
import os
import random
from pathlib import Path

import pytest
import torch

from engine import states
from engine.api.errors import ChangedError, OutputError
from engine.api.events import ProgressSaved
from engine.api.jobs import Saved
from engine.api.progress import silent
from engine.jobs.fingerprint import Unchanged
from engine.jobs.folder import Job
from engine.jobs.limits import DiskWatch, MemoryGuard
from engine.jobs.running import Running
from engine.states import HiddenStates, Saver

SHAPE = (5, 3)
SIZES = [4, 4, 4, 1]
BLOCKS = 6
SLOT = 4 * 4 * 5 * 3


class Crash(Exception):  # noqa: N818 - stands for a kill, which is no error
    """The process is gone."""


@pytest.fixture
def often(monkeypatch):
    """Every state is saved at once."""
    monkeypatch.setattr(states, "SAVING_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", float("inf"))


@pytest.fixture
def seldom(monkeypatch):
    """States are saved when there is no more room for them in memory, or by hand."""
    monkeypatch.setattr(states, "SAVING_SECONDS", 1e9)


def value(step: int, batch: int) -> torch.Tensor:
    """What the tests take for the state of a batch behind `step` blocks."""
    generator = torch.Generator().manual_seed(100 * step + batch)
    return torch.randn(SIZES[batch], *SHAPE, generator=generator)


def running(folder: Path, told: list | None = None) -> Running:
    tell = silent if told is None else told.append
    disk = DiskWatch([folder], lambda text: None)
    return Running(Job(folder), silent, tell, MemoryGuard(None), disk, Unchanged([]))


def opened(work: Running, wanted=(0, 1, 2, 3), kind: str = "measure abc/model") -> HiddenStates:
    def saved(blocks: int) -> Saved:
        return Saved(done=blocks, total=BLOCKS, unit="blocks measured")

    return HiddenStates(Saver(work, work.sources), kind, "hidden model", SHAPE, SIZES, wanted, BLOCKS, saved)


def advance(kept: HiddenStates, batches=(0, 1, 2, 3)) -> None:
    """Each of the batches a step further."""
    for batch in batches:
        step = kept.step(batch)
        if step >= 0:
            assert torch.equal(kept.get(batch), value(step, batch))
        kept.put(batch, step + 1, value(step + 1, batch))


def check(kept: HiddenStates, batches=(0, 1, 2, 3)) -> list[int]:
    """The steps of all batches, each of which holds what it should."""
    for batch in batches:
        if kept.step(batch) >= 0:
            assert torch.equal(kept.get(batch), value(kept.step(batch), batch))
    return [kept.step(batch) for batch in batches]


def test_what_was_saved_is_there_again(tmp_path, often):
    told: list = []
    with opened(running(tmp_path, told)) as kept:
        assert check(kept) == [-1, -1, -1, -1]
        advance(kept)
        advance(kept)
        advance(kept, [0, 2])
        assert check(kept) == [2, 1, 2, 1]
    with opened(running(tmp_path)) as kept:
        assert check(kept) == [2, 1, 2, 1]
        advance(kept, [1, 3])
    with opened(running(tmp_path)) as kept:
        assert check(kept) == [2, 2, 2, 2]
    done = [event.saved.done for event in told if isinstance(event, ProgressSaved)]
    assert done == [0, 1]
    saved = Job(tmp_path).journal.saved()
    assert str(saved) == "2 of 6 blocks measured"


def test_only_what_is_wanted_is_looked_for(tmp_path, often):
    with opened(running(tmp_path)) as kept:
        advance(kept)
    with opened(running(tmp_path), wanted=[1, 3]) as kept:
        assert check(kept, [1, 3]) == [0, 0]
        assert (kept.step(0), kept.step(2)) == (-1, -1)
        advance(kept, [1, 3])
        advance(kept, [1, 3])
    with opened(running(tmp_path)) as kept:
        assert check(kept)[1::2] == [2, 2]


def test_what_depends_on_something_else_is_not_taken(tmp_path, often):
    with opened(running(tmp_path)) as kept:
        advance(kept)
    with opened(running(tmp_path), kind="measure abd/model") as kept:
        assert check(kept) == [-1, -1, -1, -1]


def test_not_more_is_held_in_memory_than_is_allowed(tmp_path, seldom, monkeypatch):
    monkeypatch.setattr(states, "HELD_BYTES", 2 * SLOT)
    work = running(tmp_path)
    with opened(work) as kept:
        assert (tmp_path / "work" / "hidden model").stat().st_size == (4 + 2) * SLOT
        assert HiddenStates.disk(SHAPE, SIZES) == (4 + 2) * SLOT
        for expected in (0, 0, 2, 2):
            kept.put(expected_batch := len(kept._held) + len(kept._at), 0, value(0, expected_batch))
            assert len(work.job.journal.units()) == expected
        advance(kept, [2, 3, 2, 3])  # held already
        assert len(work.job.journal.units()) == 2
        assert check(kept) == [0, 0, 2, 2]
        kept.commit()
    with opened(running(tmp_path)) as kept:
        assert check(kept) == [0, 0, 2, 2]


def test_a_single_batch_may_be_larger_than_what_is_held(tmp_path, seldom, monkeypatch):
    monkeypatch.setattr(states, "HELD_BYTES", 1)
    with opened(running(tmp_path)) as kept:
        for _ in range(4):
            advance(kept)
    with opened(running(tmp_path)) as kept:
        assert check(kept) == [3, 3, 3, 2]


def test_what_is_held_is_saved_where_memory_is_short(tmp_path, seldom):
    work = running(tmp_path)
    with opened(work) as kept:
        advance(kept)
        assert work.job.journal.units() == {}
        for dropper in work.guard._droppers:
            dropper()
        assert len(work.job.journal.units()) == 4
        assert check(kept) == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_call_loses_nothing_that_was_saved(tmp_path, often, monkeypatch, seed):
    """Every write and fsync may be the last, a write in the middle."""
    monkeypatch.setattr(states, "HELD_BYTES", 2 * SLOT)
    chance = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(states, "SAVING_SECONDS", 1e9)
    before = [-1, -1, -1, -1]
    for _ in range(40):
        with monkeypatch.context() as patch, opened(running(tmp_path)) as kept:
            now = check(kept)
            assert all(new >= old for new, old in zip(now, before, strict=True)), "saved, but gone"
            if min(now) == BLOCKS:
                return
            crash_after(patch, chance.randrange(30), chance)
            try:
                while min(kept.step(batch) for batch in range(4)) < BLOCKS:
                    advance(kept, [batch for batch in range(4) if kept.step(batch) < BLOCKS])
                kept.commit()
            except Crash:
                pass
            before = [kept._at.get(batch, (-1, 0))[0] for batch in range(4)]
    pytest.fail("no end was reached")


def crash_after(patch, calls: int, chance: random.Random) -> None:
    """Raise `Crash` in a call of the system behind `calls` others."""
    left = calls

    def counted(name: str):
        real = getattr(os, name)

        def call(descriptor: int, *arguments):
            nonlocal left
            left -= 1
            if left >= 0:
                return real(descriptor, *arguments)
            if left == -1 and arguments:
                data, *offset = arguments
                real(descriptor, data[: chance.randrange(len(data) + 1)], *offset)
            raise Crash

        return call

    for name in ("pwrite", "write", "fsync"):
        patch.setattr(os, name, counted(name))


@pytest.mark.parametrize("seed", range(10))
def test_a_power_loss_loses_nothing_that_was_saved(tmp_path, often, monkeypatch, seed):
    """Of what was written after a file's last fsync, any part may be on the disk."""
    monkeypatch.setattr(states, "HELD_BYTES", 2 * SLOT)
    chance = random.Random(seed)
    disk = Disk(tmp_path, monkeypatch)
    with opened(running(tmp_path)) as kept:
        advance(kept, [chance.randrange(4) for _ in range(chance.randrange(20))])
        saved = check(kept)
        with monkeypatch.context() as patch:
            crash_after(patch, chance.randrange(4), chance)
            with pytest.raises(Crash):
                advance(kept, [chance.randrange(4) for _ in range(20)])
    disk.lose(chance)
    with opened(running(tmp_path)) as kept:
        assert all(new >= old for new, old in zip(check(kept), saved, strict=True))


class Disk:
    """Knows what the files of `folder` held at their last fsync."""

    def __init__(self, folder: Path, patch) -> None:
        self.folder, self.safe = folder, {}
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_file():
                self.safe[path] = path.read_bytes()

        patch.setattr(os, "fsync", fsync)

    def lose(self, chance: random.Random) -> None:
        """The power goes. Any part of what was written since may be there, in pieces of 16 bytes."""
        for path in self.folder.rglob("*"):
            if path.is_dir():
                continue
            if path not in self.safe:
                path.unlink()
                continue
            old, new = self.safe[path], path.read_bytes()
            if len(new) > len(old):  # the journal, which only grows
                path.write_bytes(new[: chance.randint(len(old), len(new))])
            else:
                pieces = (chance.choice((old, new))[i : i + 16] for i in range(0, len(new), 16))
                path.write_bytes(b"".join(pieces))


@pytest.mark.parametrize("seed", range(10))
def test_damage_to_the_file_or_the_journal_costs_work_and_nothing_else(tmp_path, often, seed):
    chance = random.Random(seed)
    with opened(running(tmp_path)) as kept:
        for _ in range(4):
            advance(kept)
    for path in (tmp_path / "work" / "hidden model", tmp_path / "journal.jsonl"):
        content = bytearray(path.read_bytes())
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
    with opened(running(tmp_path)) as kept:
        steps = check(kept)
        assert min(steps) < 3
        while min(kept.step(batch) for batch in range(4)) < 3:
            advance(kept, [batch for batch in range(4) if kept.step(batch) < 3])
    with opened(running(tmp_path)) as kept:
        assert check(kept) == [3, 3, 3, 3]


def test_only_the_damaged_batch_goes_back(tmp_path, often, caplog):
    with opened(running(tmp_path)) as kept:
        for _ in range(4):
            advance(kept)
        _, slot = kept._at[1]
    path = tmp_path / "work" / "hidden model"
    content = bytearray(path.read_bytes())
    content[slot * SLOT + 17] ^= 1
    path.write_bytes(content)
    with opened(running(tmp_path)) as kept:
        steps = check(kept)
    assert (steps[0], *steps[2:]) == (3, 3, 3)
    assert steps[1] < 3
    assert "are damaged or were written over" in caplog.text


def test_batches_that_are_alike_do_not_share_a_slot(tmp_path, often):
    """A text that repeats itself: an old line of one batch then fits what another one has in the slot."""
    work = running(tmp_path)
    with opened(work) as kept:
        kept.put(0, 0, value(0, 0))
        old = work.job.journal.units()["measure abc/model/0/0"]
        kept.put(0, 1, value(1, 0))
        kept.put(1, 0, value(0, 0))  # takes the slot that has become free
        assert kept._at[1][1] * SLOT == old.offset
        newest = kept._at[0][1]
    path = tmp_path / "work" / "hidden model"
    content = bytearray(path.read_bytes())
    content[newest * SLOT] ^= 1
    path.write_bytes(content)
    with opened(running(tmp_path)) as kept:
        assert sorted([kept.step(0), kept.step(1)]) == [-1, 0]
        holder = 0 if kept.step(0) == 0 else 1
        kept.put(1 - holder, 0, value(0, 0))
        for step in (1, 2, 3):
            kept.put(holder, step, value(step, 0))
            assert torch.equal(kept.get(1 - holder), value(0, 0))


def test_a_full_disk_is_met_at_once(tmp_path, monkeypatch):
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="hidden model: the disk is full; free some space"):
        opened(running(tmp_path))


def test_a_source_that_changes_in_the_meantime_ends_it(tmp_path, often):
    source = tmp_path / "weights"
    source.write_text("a")
    work = running(tmp_path)
    work.sources = Unchanged([source])
    with opened(work) as kept:
        kept.put(0, 0, value(0, 0))
        source.write_text("another")
        with pytest.raises(ChangedError, match="was changed or removed"):
            kept.put(0, 1, value(1, 0))
    with opened(running(tmp_path)) as kept:
        assert kept.step(0) == 0


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(states.time, "monotonic", lambda: now)
    saver = Saver(running(tmp_path), Unchanged([]))
    told = Saved(done=1, total=2, unit="blocks measured")
    assert not saver.due
    now += 1.0
    assert saver.due
    for cost, pause in ((0.01, 1.0), (0.5, 10.0), (60.0, 30.0)):
        with saver.saving(told):
            now += cost
        now += pause - 0.01
        assert not saver.due
        now += 0.02
        assert saver.due
