"""What can be done with a job, and why not: for buttons, menus and banners alike."""

import os
import sys
from pathlib import Path

from app.job_record import ACTIVE, ELSEWHERE, FINISHED, JobRecord
from engine.api.jobs import LEAST_MEMORY
from engine.api.outputs import partials_of
from engine.api.units import size

NONE_SELECTED = "no job of the list is selected"
MEMORY_SHARE = 0.8
"""Of the memory that is available, how much a run with less of it may take at most."""


def stop_refusal(record: JobRecord | None, here: bool) -> str:
    """`here`: it runs in an engine of this window, or waits for one."""
    if record is None:
        return NONE_SELECTED
    if record.state == "stopping":
        return "it is stopping already"
    if here:
        return ""
    return f"it is {ELSEWHERE}" if record.state == "running" else "it does not run"


def resume_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    if record.resumable or record.state == "kept":
        return ""
    if record.remedy == "start again":
        return "what it stands on has changed; it can only be started again"
    if record.state == "replaced":
        return "another job started over on its output"
    return f"it is {standing(record)}" if record.job or record.state != "failed" else "it had not begun"


def less_memory_refusal(record: JobRecord | None, available: int | None) -> str:
    """`available`: see `less_memory`."""
    if record is None or record.state == "kept":
        return "it has not run yet" if record else NONE_SELECTED
    refusal = resume_refusal(record)
    if refusal:
        return refusal
    last = min(
        taken for taken in (record.memory_limit, record.peak or None, sys.maxsize) if taken is not None
    )
    if less_memory(record, available) < last:
        return ""
    known = record.least_memory
    return f"it takes {size(known)} at least" if known else "it takes the least already"


def restart_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    if record.restartable:
        return ""
    return "it has not begun; start it" if record.state == "kept" else f"it is {standing(record)}"


def result_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    return f"it is {standing(record)}" if record.state in (*ACTIVE, "waiting", "kept", "removing") else ""


def folder_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    return "" if record.output or record.folder else "it has no folder yet"


def log_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    return "" if record.log else "it has no log yet"


def remove_refusal(record: JobRecord | None) -> str:
    if record is None:
        return NONE_SELECTED
    if record.removable:
        return ""
    if record.state == "running" and record.message == ELSEWHERE:
        return f"it is {ELSEWHERE}"
    return f"it is {standing(record)}; stop it first" if record.state != "removing" else "it is being removed"


def remove_finished_refusal(records: list[JobRecord]) -> str:
    return "" if any(record.state in FINISHED for record in records) else "no job of the list is finished"


def standing(record: JobRecord) -> str:
    """The state in a word for the reader."""
    return "waiting" if record.state == "kept" else record.state


def less_memory(record: JobRecord, available: int | None) -> int:
    """The limit, in bytes, for going on with less memory: three quarters of what the last run took.

    `available`: bytes that the machine has now, None where unknown. Less than what it has is left to it, more
    than the job takes in any case: measuring cannot be cut into smaller pieces.
    """
    taken = record.peak or record.memory_limit
    wanted = taken * 3 // 4 if taken else LEAST_MEMORY
    if available is not None:
        most = int(MEMORY_SHARE * available)
        wanted = min(wanted, most) if taken else most // 2
    return max(LEAST_MEMORY, record.least_memory, wanted)


def occupied(record: JobRecord) -> int:
    """Bytes on disk that go when an unfinished job is removed: its part of the output, and its folder."""
    found = partials_of(Path(record.output)) if record.output else []
    if record.folder:
        found += [Path(base, name) for base, _, names in os.walk(record.folder) for name in names]
    return sum(_bytes(path) for path in found)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
