"""What the process uses: its peak of private memory, sampled."""

import threading
from pathlib import Path

STATUS = Path("/proc/self/status")


def private_memory() -> int:
    """Bytes of anonymous memory in use (`RssAnon`); 0 where the system does not tell.

    Not `ru_maxrss`, which is inherited from the parent, nor `VmHWM`, which counts mapped file pages.
    """
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class PeakMemory:
    """Samples `private_memory` every 20 ms while the `with` block runs; `peak` is the highest, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, private_memory())

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, private_memory())
