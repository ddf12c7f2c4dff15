"""What the machine has to give: room on the disk and memory. A network disk can take long to answer."""

import shutil
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Room:
    """Bytes `free` on the disk of `folder`; memory `total` and `available`. None: not known."""

    folder: str
    free: int | None
    total: int | None
    available: int | None


def read_room(folder: str) -> Room:
    """What there is now. A folder that does not exist yet stands for the one that will hold it."""
    memory = _memory()
    return Room(folder, _free(Path(folder)), memory.get("MemTotal"), memory.get("MemAvailable"))


def memory_total() -> int | None:
    """Bytes of memory in this machine; None where the system does not say."""
    return _memory().get("MemTotal")


def memory_available() -> int | None:
    """Bytes that programs can take now; None where the system does not say."""
    return _memory().get("MemAvailable")


def _free(folder: Path) -> int | None:
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _memory() -> dict[str, int]:
    """The lines of /proc/meminfo in bytes; nothing on other systems."""
    try:
        lines = MEMORY.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0].rstrip(":"): 1024 * int(pair[1]) for pair in pairs if len(pair) == 3}
