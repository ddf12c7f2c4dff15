"""What a job may take of the machine, watched while it works, so that it gives way before it fails.

Memory is counted as `RssAnon`, the private pages in use: not `ru_maxrss`, which is inherited from the parent,
nor `VmHWM`, which counts mapped file pages. A thread samples it; work asks `MemoryGuard.check` between two
pieces, so the limit can be passed by what one piece takes, and no piece takes much.
"""

import _thread
import ctypes
import errno
import gc
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.api.errors import MemoryLimitError, OutputError
from engine.api.units import size

STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")

SAMPLING = 0.02
"""Seconds between two samples of `RssAnon`."""

SELDOMER = 10
"""Samples of `RssAnon` to one of what the machine has left."""

STACK = 1 << 20
"""Bytes of the sampling thread's stack: the usual 8 MB count where private memory is limited."""

PRESSURE = 0.85
"""Of the limit: from here on caches are dropped and pieces shrink."""

DROPPING = 1.0
SELDOM = 60.0
"""Seconds between two droppings of caches, which take half a second; at most, where they give nothing."""

WORTH = 0.02
"""Of the memory in use: what a dropping must give back to be tried again soon."""

RESERVE = 512 << 20
"""Bytes left to the rest of the machine, or a twentieth of its memory where that is less."""

SHORT_DISK = 256 << 20
"""Free bytes below which the reader is told."""

LEAST_DISK = 1 << 20
"""Free bytes below which a job cannot even note what it has finished."""

HELD_BACK = 16 << 20
"""Bytes for the last words of a job that the system refuses memory."""

_held_back: list[mmap.mmap] = []

NO_MEMORY = "The memory ran out before the work began; close other programs."
"""What there is to say where no job has been made yet."""

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator", "bad_alloc")
"""What RuntimeErrors of native libraries say when memory was refused."""


def private_memory() -> int:
    """Bytes of anonymous memory in use (`RssAnon`); 0 where the system does not tell."""
    return _lines(STATUS).get("RssAnon", 0)


def available_memory() -> int | None:
    """Bytes that new work could take: of the machine, and of the control group where that has less.

    None where the system does not tell. Free swap does not count: a model in it is no use.
    """
    machine = _lines(MEMORY).get("MemAvailable")
    rooms = [*([] if machine is None else [machine]), *(room for _, room in _group_memory())]
    return min(rooms, default=None)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what led to it, is memory that the system refused: Python's, torch's, Numba's.

    If so, what `MemoryGuard` holds back is given up: there is room again for noting what is finished.
    Libraries in Rust (pydantic is one) abort the process where there is none.
    """
    refused = _refused(error)
    if refused:
        _held_back.clear()
    return refused


def _refused(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        refused = isinstance(seen, OSError) and seen.errno == errno.ENOMEM
        said = isinstance(seen, RuntimeError) and any(words in str(seen) for words in OUT_OF_MEMORY)
        no_stack = isinstance(seen, RuntimeError) and "can't start new thread" in str(seen)
        if isinstance(seen, MemoryError) or refused or said or no_stack:
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


class MemoryGuard:
    """Samples `private_memory` while the `with` block runs, and holds the work to `limit` bytes of it.

    `limit` None: what the machine can give at the start, less a reserve. `peak` is the highest sample,
    `pressed` whether memory ever came close to its limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.peak = 0
        self.pressed = False
        self._asked = limit
        self._recent = 0  # the highest sample since the last check
        self._scarce = False  # the machine has nearly nothing left
        self._overruns = 0
        self._halvings = 0
        self._piece: tuple[int, int] | None = None  # what `share` was asked for since: wanted, least
        self._dropped = -SELDOM  # when
        self._pause = DROPPING
        self._droppers: list[Callable[[], object]] = []
        self._stop = threading.Event()
        self._stopped = threading.Event()

    def __enter__(self) -> "MemoryGuard":
        """Raises `MemoryLimitError` where there is no memory even for watching it."""
        _hold_back()
        if self._asked is None:
            self.limit = _machine_limit()
        self._note()
        stack = threading.stack_size(STACK)
        try:
            # `Thread.start` would wait forever for a thread that has no memory to begin with.
            _thread.start_new_thread(self._sample, ())
        except RuntimeError:
            raise MemoryLimitError("There is no memory left; close other programs.") from None
        finally:
            threading.stack_size(stack)
        return self

    def __exit__(self, *_: object) -> None:
        _held_back.clear()
        self._stop.set()
        self._stopped.wait(timeout=1.0)  # by then it sleeps, or never began
        self._note()

    def register(self, dropper: Callable[[], object]) -> None:
        """`dropper` is called under pressure: it gives back memory that can be made again."""
        self._droppers.append(dropper)

    def check(self) -> None:
        """Give way where memory gets short. Cheap; call it between two pieces of work.

        Raises `MemoryLimitError` where nothing more can be given back and it is still too much.
        """
        _hold_back()
        highest, self._recent = self._recent, 0
        scarce, self._scarce = self._scarce, False
        short = scarce or self._near(highest)
        smaller = short and self.shrink()
        self._piece = None  # what comes next may be work that cannot be cut
        if not short:
            return
        self.pressed = True
        if self._asked is None and self.limit is not None:
            room = (available_memory() or 0) - _reserve()  # other programs may have ended since
            self.limit = max(self.limit, private_memory() + room)
        over = self.limit is not None and highest > self.limit
        self._overruns += over
        self._drop(at_once=over)
        now = self._note()
        if self.limit is not None and (now > self.limit or (over and not smaller and self._overruns > 1)):
            raise MemoryLimitError(self._sentence(max(now, highest)))
        if scarce and _exhausted():
            raise MemoryLimitError(
                f"The machine has nearly no memory left ({size(now)} of it are in use here); "
                "close other programs."
            )

    def share(self, wanted: int, least: int) -> int:
        """Bytes for one piece of work that can be cut anywhere: `wanted`, less after each time of pressure.

        Never below `least`, and never growing again.
        """
        self._piece = wanted, least
        return max(least, wanted >> self._halvings)

    def shrink(self) -> bool:
        """Halve what `share` gives, as after a `MemoryError`. False where it gives the least already."""
        if self._piece is None:
            return False
        wanted, least = self._piece
        if wanted >> self._halvings <= least:
            return False
        self._halvings += 1
        return True

    def _near(self, memory: int) -> bool:
        return self.limit is not None and memory >= PRESSURE * self.limit

    def _drop(self, *, at_once: bool) -> None:
        if not at_once and time.monotonic() - self._dropped < self._pause:
            return
        before = private_memory()
        for dropper in self._droppers:
            dropper()
        gc.collect()
        _trim()
        useful = before - private_memory() >= WORTH * before
        self._pause = DROPPING if useful else min(2 * self._pause, SELDOM)
        self._dropped = time.monotonic()

    def _sentence(self, memory: int) -> str:
        assert self.limit is not None
        if self._asked is None:
            return (
                f"The work takes {size(memory)} of memory, and the machine can give {size(self.limit)}; "
                "close other programs."
            )
        return (
            f"The work takes {size(memory)} of memory, and its limit is {size(self.limit)}; "
            "raise the limit (--memory-limit)."
        )

    def _sample(self) -> None:
        """In a thread of its own, until `_stop`."""
        turn = 0
        while not self._stop.is_set():
            with suppress(MemoryError):  # this thread is needed the more
                self._note()
                if turn % SELDOMER == 0:
                    available = available_memory()
                    self._scarce |= available is not None and available < _reserve() // 2
            turn += 1
            time.sleep(SAMPLING)
        self._stopped.set()

    def _note(self) -> int:
        memory = private_memory()
        self.peak = max(self.peak, memory)
        self._recent = max(self._recent, memory)
        return memory


def _hold_back() -> None:
    """Have the system reserve pages that are given up when it refuses others. Untouched, they take none."""
    if not _held_back:
        with suppress(OSError):
            _held_back.append(mmap.mmap(-1, HELD_BACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class DiskWatch:
    """Looks at the room on the disks of `folders`, of which the first is the job's own.

    The output's room was reserved when it was begun: what a full disk endangers is the noting of what is
    finished, and other programs.
    """

    def __init__(self, folders: list[Path], tell: Callable[[str], None]) -> None:
        self._folders, self._tell = folders, tell
        self._told: set[int] = set()
        self._looked = -1.0

    def check(self) -> None:
        """Tell once of each disk that gets full. Looks at most once a second.

        Raises `OutputError` where the job's folder has no room for what is finished.
        """
        now = time.monotonic()
        if now - self._looked < 1.0:
            return
        self._looked = now
        for folder in self._folders:
            room = _room(folder)
            if room is None:
                continue
            disk, free = room
            if free < LEAST_DISK and folder == self._folders[0]:
                raise OutputError(
                    f"{folder}: the disk is full ({free:,} bytes free), so nothing more can be saved; "
                    "free some space, then resume the job."
                )
            if free < SHORT_DISK and disk not in self._told:
                self._told.add(disk)
                self._tell(f"{folder}: only {size(free)} are free on its disk; free some space.")


def _room(folder: Path) -> tuple[int, int] | None:
    """The disk's number and its free bytes; None where it does not say."""
    try:
        found = os.statvfs(folder)
        return folder.stat().st_dev, found.f_bavail * found.f_frsize
    except OSError:
        return None


def _machine_limit() -> int | None:
    """What this process may use so that the machine keeps a reserve; None where the system does not tell."""
    available = available_memory()
    if available is None:
        return None
    return private_memory() + max(0, available - _reserve())


def _reserve() -> int:
    """Bytes left to others, of what there is for this process's control group."""
    totals = [_lines(MEMORY).get("MemTotal", 0), *(limit for limit, _ in _group_memory())]
    return min(RESERVE, min(totals) // 20)


def _exhausted() -> bool:
    """Whether the next large piece could bring the system's out-of-memory killer."""
    available = available_memory()
    machine = _lines(MEMORY)
    confined = any(limit < machine.get("MemTotal", 0) for limit, _ in _group_memory())
    swap = 0 if confined else machine.get("SwapFree", 0)
    return available is not None and available + swap < _reserve() // 8


def _group_memory() -> Iterator[tuple[int, int]]:
    """Of each control group above this process that has a limit of memory: it, and what is left of it."""
    for folder, maximum, used in _groups():
        try:
            limit = int((folder / maximum).read_text())  # "max" where there is none
            fields = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield limit, max(0, limit - int(dict(fields)[used]))
        except (OSError, ValueError, KeyError):
            continue


def _groups() -> Iterator[tuple[Path, str, str]]:
    """Folders of this process's control groups for memory, the limit's file in each, the field of its use."""
    try:
        lines = GROUPS_OF_PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, maximum, used = GROUPS, "memory.max", "anon"
        elif "memory" in controllers.split(","):
            top, maximum, used = GROUPS / "memory", "memory.limit_in_bytes", "total_rss"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield folder, maximum, used


def _lines(path: Path) -> dict[str, int]:
    """The lines "Name: 123 kB" of a file of /proc, in bytes; nothing where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0].rstrip(":"): 1024 * int(pair[1]) for pair in pairs if len(pair) == 3 and pair[2] == "kB"}


def _trim() -> None:
    """Have the C library give back what it keeps for later; nothing where it is not glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
