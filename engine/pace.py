"""Progress as the window wants it: seldom enough, of the whole job, with a rate and the time that is left."""

import time
from collections import deque
from collections.abc import Callable, Mapping

from engine.api.events import ProgressMade, StageStarted
from engine.api.progress import Progress

INTERVAL = 0.1
"""Seconds between two messages of a stage."""

WINDOW = 15.0
"""Seconds that a rate is taken over: formats differ in speed, and the last tensors tell most of the next."""

SETTLED = 0.5
"""Seconds of a stage before which nothing is said of its rate."""


MOST_SHARE = 0.99
"""Of a job that has not said that it is done."""


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
        self._foreseen: dict[str, float] = {}
        self._share: float | None = None

    def foresee(self, seconds: Mapping[str, float]) -> None:
        """The stages that are still to come, in their order, and how long each is expected to take."""
        self._foreseen, self._share = dict(seconds), self._share or 0.0

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
        stage_left = (event.total - event.done) / rate if rate > 0 else None
        self._send(
            ProgressMade(
                stage=event.stage,
                done=event.done,
                total=event.total,
                unit=event.unit,
                item=event.item,
                rate=rate if rate > 0 else None,
                eta=self._left(event, stage_left),
                share=self._done(event),
            )
        )

    def _done(self, event: Progress) -> float | None:
        """Of the whole job; a stage that was not foreseen does not count."""
        if event.stage in self._foreseen and self._share is not None:
            seconds = list(self._foreseen.values())
            place = list(self._foreseen).index(event.stage)
            done = sum(seconds[:place]) + seconds[place] * _part(event)
            self._share = max(self._share, min(done / (sum(seconds) or 1.0), MOST_SHARE))
        return self._share

    def _left(self, event: Progress, stage_left: float | None) -> float | None:
        """Seconds of this stage as measured, and of later ones as foreseen."""
        if event.stage not in self._foreseen:
            return stage_left if self._share is None else None
        seconds = list(self._foreseen.values())
        place = list(self._foreseen).index(event.stage)
        if stage_left is None:
            stage_left = seconds[place] * (1 - _part(event))
        return stage_left + sum(seconds[place + 1 :])


def _part(event: Progress) -> float:
    return event.done / event.total if event.total else 0.0
