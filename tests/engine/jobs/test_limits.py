"""What happens when memory or the disk gets short: pieces shrink, caches go, one sentence at the end."""

import errno
import mmap
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from engine.api.errors import MemoryLimitError, OutputError
from engine.jobs import limits
from engine.jobs.limits import DiskWatch, MemoryGuard, out_of_memory, private_memory

LIMIT = 1_000_000_000

needs_samples = pytest.mark.skipif(
    private_memory() == 0, reason="the system does not tell how much memory is used"
)


@pytest.fixture
def memory(monkeypatch) -> dict[str, int]:
    """What the system says, to be set: bytes `used` by this process and `available` on the machine."""
    said = {"used": 0, "available": 20 * LIMIT}
    monkeypatch.setattr(limits, "private_memory", lambda: said["used"])
    monkeypatch.setattr(limits, "available_memory", lambda: said["available"])
    monkeypatch.setattr(limits, "_reserve", lambda: 500_000_000)
    monkeypatch.setattr(MemoryGuard, "_sample", lambda guard: guard._stopped.set())  # samples are the test's
    return said


def use(guard: MemoryGuard, memory: dict[str, int], used: int, now: int | None = None) -> None:
    """`used` bytes are seen, then `now` (None: the same)."""
    memory["used"] = used
    guard._note()
    memory["used"] = used if now is None else now


@needs_samples
def test_the_peak_is_what_was_really_used():
    count = 50_000_000
    before = private_memory()
    with MemoryGuard(None) as guard:
        # Pages of its own: an array could lie in memory that the C library had kept.
        with mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            np.frombuffer(pages, np.uint8).fill(1)
            time.sleep(0.1)
        guard.check()
    assert before + count <= guard.peak < before + count + 20_000_000
    assert not guard.pressed


def test_all_is_well_below_the_limit(memory):
    with MemoryGuard(LIMIT) as guard:
        use(guard, memory, 840_000_000)
        guard.check()
        assert not guard.pressed
        assert guard.share(1 << 22, 1 << 18) == 1 << 22


def test_pressure_halves_pieces_down_to_the_least_and_for_good(memory):
    with MemoryGuard(LIMIT) as guard:
        shares = []
        for used in (100_000_000, *[900_000_000] * 6, 100_000_000, 100_000_000):
            shares.append(guard.share(1 << 22, 1 << 18))
            use(guard, memory, used)
            guard.check()
        assert guard.pressed
        assert shares == [1 << power for power in (22, 22, 21, 20, 19, 18, 18, 18, 18)]
        assert guard.peak == 900_000_000


def test_caches_are_dropped_under_pressure_but_not_all_the_time(memory, monkeypatch):
    """Where a dropping gives nothing, the next one waits twice as long; where it does, a second."""
    clock, dropped = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with MemoryGuard(LIMIT) as guard:
        guard.register(lambda: dropped.append(clock[0]))
        guard.check()
        assert dropped == []
        for second in range(12):
            clock[0] = second
            use(guard, memory, 900_000_000)
            guard.check()
        assert dropped == [0, 2, 6]
        guard.register(lambda: memory.update(used=500_000_000))
        for second in range(12, 17):
            clock[0] = second
            use(guard, memory, 900_000_000)
            guard.check()
        assert dropped == [0, 2, 6, 14, 15, 16]


def test_what_dropping_gives_back_saves_the_work(memory):
    with MemoryGuard(LIMIT) as guard:
        guard.register(lambda: memory.update(used=500_000_000))
        use(guard, memory, LIMIT + 1)
        guard.check()
        assert guard.pressed


def test_memory_above_the_limit_ends_in_numbers_and_a_way_out(memory):
    with MemoryGuard(LIMIT) as guard:
        use(guard, memory, 1_234_000_000)
        with pytest.raises(MemoryLimitError, match=r"1\.23 GB .* 1 GB; raise the limit \(--memory-limit\)"):
            guard.check()


def test_peaks_above_the_limit_within_pieces_end_the_work_once_pieces_are_smallest(memory):
    with MemoryGuard(LIMIT) as guard:
        for _ in range(4):  # three halvings; the fourth peak cannot be mended
            guard.share(1 << 21, 1 << 18)
            use(guard, memory, LIMIT + 1, now=500_000_000)
            if guard.share(1 << 21, 1 << 18) > 1 << 18:
                guard.check()
        with pytest.raises(MemoryLimitError):
            guard.check()


def test_without_a_limit_the_machine_sets_it(memory):
    memory.update(used=300_000_000, available=2_000_000_000)
    with MemoryGuard(None) as guard:
        assert guard.limit == 1_800_000_000
        memory["available"] = 700_000_000
        use(guard, memory, 1_900_000_000)
        guard.check()  # it can: other programs have ended
        assert guard.limit == 2_100_000_000
        memory["available"] = 0
        use(guard, memory, 2_200_000_000)
        with pytest.raises(MemoryLimitError, match="close other programs"):
            guard.check()


def test_a_machine_without_memory_is_pressure_whatever_the_limit(monkeypatch):
    left = {"MemAvailable": 10**10, "MemTotal": 10**10, "SwapFree": 0}
    monkeypatch.setattr(limits, "_lines", lambda path: left)
    monkeypatch.setattr(limits, "_group_memory", lambda: iter(()))
    monkeypatch.setattr(limits, "SAMPLING", 0.001)
    with MemoryGuard(LIMIT) as guard:
        guard.check()
        assert not guard.pressed
        left["MemAvailable"] = 200_000_000  # a twentieth is kept for others
        time.sleep(0.2)
        guard.check()
        assert guard.pressed
        left["MemAvailable"] = 10_000_000
        time.sleep(0.2)
        with pytest.raises(MemoryLimitError, match="nearly no memory left"):
            guard.check()
        left["SwapFree"] = 10**9
        time.sleep(0.2)
        guard.check()


def test_a_system_that_tells_nothing_sets_no_limit(memory):
    memory.update(used=0, available=None)
    with MemoryGuard(None) as guard:
        guard.check()
        assert guard.limit is None
        assert not guard.pressed


def test_what_earlier_work_could_cut_excuses_nothing(memory):
    """Writing could shrink; measuring, which comes after it, cannot."""
    with MemoryGuard(LIMIT) as guard:
        guard.share(1 << 22, 1 << 18)
        guard.check()
        use(guard, memory, LIMIT + 1, now=500_000_000)
        guard.check()
        use(guard, memory, LIMIT + 1, now=500_000_000)
        with pytest.raises(MemoryLimitError):
            guard.check()


def test_shrinking_after_a_refusal():
    guard = MemoryGuard(None)
    assert not guard.shrink()  # nothing was shared out yet
    assert guard.share(1000, 400) == 1000
    assert guard.shrink()
    assert guard.share(1000, 400) == 500
    assert guard.shrink()
    assert guard.share(1000, 400) == 400
    assert not guard.shrink()


@pytest.mark.parametrize(
    ("version", "files"),
    [
        ("0::/jobs/one\n", {"memory.max": "3000", "memory.stat": "anon 1000\nfile 9999\n"}),
        (
            "3:cpu:/x\n2:memory:/jobs/one\n",
            {"memory.limit_in_bytes": "3000", "memory.stat": "cache 9999\ntotal_rss 1000\n"},
        ),
    ],
    ids=["v2", "v1"],
)
def test_control_groups_are_asked_up_to_the_top(tmp_path, monkeypatch, version, files):
    top = tmp_path / "memory" if "limit_in_bytes" in str(files) else tmp_path
    (top / "jobs" / "one").mkdir(parents=True)
    for name, content in files.items():
        (top / "jobs" / name).write_text(content)
        (top / "jobs" / "one" / name).write_text(content.replace("3000", "max"))
    (tmp_path / "cgroup").write_text(version)
    monkeypatch.setattr(limits, "GROUPS_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "GROUPS", tmp_path)
    assert [room for _, room in limits._group_memory()] == [2000]
    assert limits.available_memory() == 2000


@needs_samples
@pytest.mark.parametrize("library", ["numpy", "torch", "thread"])
def test_refusals_of_the_system_are_known(library):
    """In a child whose private memory is limited: what the libraries raise then counts as such."""
    allocate = {
        "numpy": "import numpy\nwork = lambda: numpy.ones(10**9)",
        "torch": "import torch\nwork = lambda: torch.ones(10**9)",
        "thread": "import threading\nthreading.stack_size(512 << 20)\n"
        "work = lambda: threading.Thread(target=int).start()",
    }
    script = (
        "import resource\nfrom engine.jobs.limits import out_of_memory, private_memory\n"
        f"{allocate[library]}\n"
        "now = private_memory() + (500 << 20)\nresource.setrlimit(resource.RLIMIT_DATA, (now, now))\n"
        "try:\n    work()\nexcept BaseException as error:\n    print(out_of_memory(error), repr(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    if library == "thread" and done.stdout == "":
        pytest.skip("stacks do not count as private memory here")
    assert done.stdout.startswith("True"), done.stdout + done.stderr


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    wrapped = ValueError("no model can be made")
    wrapped.__cause__ = MemoryError()
    assert out_of_memory(wrapped)


@pytest.fixture
def disk(monkeypatch) -> dict[Path, int]:
    """Free bytes by folder, to be set."""
    free: dict[Path, int] = {}
    room, place = namedtuple("room", "f_bavail f_frsize"), namedtuple("place", "st_dev")
    monkeypatch.setattr(os, "statvfs", lambda folder: room(free[folder], 1))
    monkeypatch.setattr(
        Path, "stat", lambda folder, **_: place(0 if folder.name.startswith("same") else str(folder))
    )
    return free


def test_a_disk_that_fills_is_told_once(disk, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    job, output = Path("/job"), Path("/output")
    disk.update({job: 10**12, output: 84_000_000})
    said: list[str] = []
    watch = DiskWatch([job, output], said.append)
    watch.check()
    assert said == ["/output: only 84 MB are free on its disk; free some space."]
    disk[job] = 200_000_000
    watch.check()  # not looked at: the last time was just now
    assert len(said) == 1
    clock[0] += 1.0
    watch.check()
    clock[0] += 1.0
    watch.check()
    assert len(said) == 2
    assert "/job: only 200 MB" in said[1]


def test_one_disk_that_holds_both_folders_is_told_of_once(disk):
    folders = [Path("/same1"), Path("/same2")]
    disk.update(dict.fromkeys(folders, 84_000_000))
    said: list[str] = []
    DiskWatch(folders, said.append).check()
    assert len(said) == 1


def test_a_full_disk_ends_the_work_only_where_the_job_notes_what_it_has(disk, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    job, output = Path("/job"), Path("/output")
    disk.update({job: 10**12, output: 0})
    watch = DiskWatch([job, output], lambda sentence: None)
    watch.check()
    disk[job] = 4096
    clock[0] += 1.0
    with pytest.raises(OutputError, match=r"/job: the disk is full \(4,096 bytes free\).*resume the job"):
        watch.check()


def test_a_folder_that_is_gone_is_left_to_those_who_write(tmp_path):
    DiskWatch([tmp_path / "gone"], lambda sentence: None).check()
