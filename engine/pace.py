"""Progress as the window wants it: not too often, with a rate and the time that is left."""

import time
from collections import deque
from collections.abc import Callable

from engine.api.messages import ProgressMade, StageStarted
from engine.api.progress import Progress

INTERVAL = 0.1
"""Seconds between two messages of a stage."""

WINDOW = 15.0
"""Seconds that a rate is taken over: formats differ in speed, and the last tensors tell most of the next."""

SETTLED = 0.5
"""Seconds of a stage before which nothing is said of its rate."""


class Pace:
    """A `Listener` that passes on the first and the last event of each stage, and some of those between."""

    def __init__(
        self,
        send: Callable[[StageStarted | ProgressMade], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._clock = send, clock
        self._sent: Progress | None = None
        self._held: Progress | None = None
        self._seen: deque[tuple[float, int]] = deque()  # (time, done) of what was sent in this stage

    def __call__(self, event: Progress) -> None:
        now = self._clock()
        if self._sent is None or event.stage != self._sent.stage:
            self.flush()
            self._seen.clear()
            self._send(StageStarted(stage=event.stage))
            self._pass_on(event, now)
        elif now - self._seen[-1][0] >= INTERVAL or self._completes(event):
            self._pass_on(event, now)
        elif event != self._sent:
            self._held = event

    def flush(self) -> None:
        """Send what was held back last: its stage is over."""
        if self._held is not None:
            self._pass_on(self._held, self._clock())

    def _completes(self, event: Progress) -> bool:
        """Whether this is the first event that says that all is done."""
        return event.done >= event.total and (self._sent is None or self._sent.done < event.done)

    def _pass_on(self, event: Progress, now: float) -> None:
        self._sent, self._held = event, None
        self._seen.append((now, event.done))
        while now - self._seen[0][0] > WINDOW and len(self._seen) > 2:
            self._seen.popleft()
        began, before = self._seen[0]
        rate = (event.done - before) / (now - began) if now - began >= SETTLED else 0.0
        self._send(
            ProgressMade(
                stage=event.stage,
                done=event.done,
                total=event.total,
                unit=event.unit,
                item=event.item,
                rate=rate if rate > 0 else None,
                eta=(event.total - event.done) / rate if rate > 0 else None,
            )
        )
