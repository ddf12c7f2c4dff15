"""`python -m engine serve`: requests on stdin, events on stdout, one JSON line each (engine/api/messages.py).

Four threads. The main one works: it answers requests in their order, or runs the one job. A reader takes
requests, and interrupts the main thread to cancel. A writer sends events, so that an interrupt cannot cut a
line in two. A fourth says every two seconds that the engine is alive.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pydantic import ValidationError

from engine import __version__
from engine.api import events
from engine.api.errors import UserError
from engine.api.jobs import JobResult, Stopped
from engine.api.messages import HEARTBEAT_SECONDS, PROTOCOL, write
from engine.api.progress import Progress, StagesForeseen
from engine.api.requests import (
    Cancel,
    CheckCalibrate,
    Inspection,
    JobStart,
    OpenModel,
    ReadImportanceColumns,
    Request,
    ResumeJob,
    StartActivations,
    StartCalibrate,
    read_request,
)
from engine.failures import failure
from engine.jobs.limits import private_memory
from engine.pace import Pace
from engine.process import ignore_stopping, keep_libraries_quiet, stop_in_order

if TYPE_CHECKING:
    from engine.inspecting import Inspector
    from engine.jobs.running import Told

NICENESS = 10
"""Below everything interactive: the machine stays usable while the engine works."""

IDLE_SECONDS = 0.5
"""After so long without a request the engine inspects, and loads what that needs."""

LAST_SECONDS = 5.0
"""How long the engine lives on, at most, after the window has gone."""

MEMORY_SAMPLES = 8
"""Of the memory in use, to a heartbeat."""

REPLACED = (ReadImportanceColumns, CheckCalibrate)
"""Kinds of which nobody waits for any but the newest."""


class Inbox:
    """Requests that wait. A newer `open`, or one of a kind in `REPLACED`, replaces one that is not begun."""

    def __init__(self) -> None:
        self._waiting: deque[JobStart | Inspection] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, request: JobStart | Inspection) -> None:
        with self._changed:
            if isinstance(request, OpenModel):
                self._drop(OpenModel)
            elif isinstance(request, REPLACED):
                self._drop(type(request))
            self._waiting.append(request)
            self._changed.notify()

    def get(self, timeout: float | None) -> JobStart | Inspection | None:
        """The next request; None where there will be none. Raises `TimeoutError` after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._closed, timeout):
                raise TimeoutError
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """There will be no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _drop(self, kind: type) -> None:
        self._waiting = deque(request for request in self._waiting if not isinstance(request, kind))


class Server:
    """Serves one window. `requests` and `events` are descriptors."""

    def __init__(self, requests: int, events: int) -> None:
        self._requests, self._events = requests, events
        self._inbox = Inbox()
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._given_job = False  # by the reader, as soon as a job is asked for
        self._leaving = False
        self._cancelled = threading.Event()
        self._job = ""
        self._pace = Pace(self._send)

    def run(self) -> int:
        """Serve until the window or the job ends; the exit code."""
        self._writer.start()
        devices = [f"cpu: {len(os.sched_getaffinity(0))} threads"]
        self._send(events.Hello(protocol=PROTOCOL, version=__version__, devices=devices, pid=os.getpid()))
        try:
            for work in (self._read, self._beat):
                threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
            code = self._serve()
            ignore_stopping()
            if self._cancelled.is_set() and not (self._given_job or self._leaving):
                self._send(events.Stopped())
        except KeyboardInterrupt:
            self._send(events.Stopped(job=self._job))
            code = 0
        self._lines.put(None)
        self._writer.join()
        return code

    # ---------------------------------------------------------------------------- the main thread

    def _serve(self) -> int:
        """Answer requests until a job comes, or the end."""
        inspector: Inspector | None = None
        try:
            try:
                request = self._inbox.get(IDLE_SECONDS)
            except TimeoutError:  # a job would be here by now
                inspector = self._make_inspector()
                inspector.warm_up()
                request = self._inbox.get(None)
            while isinstance(request, Inspection):
                inspector = inspector or self._make_inspector()
                self._answer(inspector, request)
                request = self._inbox.get(None)
        finally:
            if inspector:
                inspector.close()
        return 0 if request is None else self._work(request)

    def _make_inspector(self) -> "Inspector":
        from engine.inspecting import Inspector

        return Inspector(self._send)

    def _answer(self, inspector: "Inspector", request: Inspection) -> None:
        try:
            inspector.answer(request)
        except Exception as error:
            self._fail(error, request.id)

    def _work(self, request: JobStart) -> int:
        """Run the job; the exit code."""
        pace = self._pace
        self._send(events.StageStarted(stage="prepare"))
        try:
            result = self._run_job(request, pace)
            ignore_stopping()
        except Stopped as stopped:
            self._send(events.Stopped(job=stopped.job))
            return 0
        except Exception as error:
            ignore_stopping()
            self._fail(error, None)
            return 2 if isinstance(error, UserError) else 1
        pace.flush()
        self._send(events.Done(result=result))
        return 0

    def _run_job(self, request: JobStart, pace: Pace) -> JobResult:
        from engine.quantize import quantize
        from engine.resume import resume

        def listen(event: Progress) -> None:
            # The interrupt is lost where it strikes a callback from native code, which cannot raise.
            if self._cancelled.is_set():
                raise KeyboardInterrupt
            pace(event)

        if isinstance(request, ResumeJob):
            limit = request.memory_limit
            return resume(request.job, listen, self._tell, restart=request.restart, memory_limit=limit)
        if isinstance(request, StartCalibrate):
            from engine.calibrate import calibrate

            return calibrate(request.calibrate, listen, self._tell)
        if isinstance(request, StartActivations):
            from engine.capture import capture

            return capture(request.activations, listen, self._tell)
        return quantize(request.quantize, listen, self._tell)

    def _tell(self, event: "Told") -> None:
        if isinstance(event, events.JobStarted):
            self._job = event.job
        if isinstance(event, StagesForeseen):
            self._pace.foresee(event.seconds)
            return
        self._send(event)

    def _fail(self, error: Exception, request: int | None) -> None:
        self._send(failure(error, request))

    # ------------------------------------------------------------------------------- the others

    def _send(self, event: events.Event) -> None:
        self._lines.put(write(event))

    def _write(self) -> None:
        """Write what `_send` was given, until None."""
        while (line := self._lines.get()) is not None:
            left = memoryview(line)
            try:
                while left:
                    left = left[os.write(self._events, left) :]
            except OSError:  # nobody reads any more
                self._leave()
                return

    def _beat(self) -> None:
        memory = peak = 0
        while True:
            for _ in range(MEMORY_SAMPLES):
                time.sleep(HEARTBEAT_SECONDS / MEMORY_SAMPLES)
                with suppress(MemoryError):  # the window must hear of it the more
                    memory = private_memory()
                    peak = max(peak, memory)
            self._send(events.Heartbeat(memory=memory, peak=peak))

    def _read(self) -> None:
        """Take requests until stdin closes."""
        with os.fdopen(self._requests, "rb") as lines:
            for line in lines:
                try:
                    request = read_request(line)
                except ValidationError:
                    said = f"This line is no request: {line[:80].decode(errors='replace').strip()!r}."
                    self._send(events.Failed(code="protocol", message=said))
                    continue
                self._take(request)
        self._leave()

    def _take(self, request: Request) -> None:
        if isinstance(request, Cancel):
            self._cancelled.set()
            self._inbox.close()  # an interrupt is lost where it strikes a finalizer
            _interrupt_main()
        elif self._given_job:
            said = "This engine works on a job; start another one."
            waiting = None if isinstance(request, JobStart) else request.id
            self._send(events.Failed(code="busy", message=said, id=waiting))
        else:
            self._given_job = isinstance(request, JobStart)
            self._inbox.put(request)

    def _leave(self) -> None:
        """The window has gone: end once the work in hand can be left, in `LAST_SECONDS` at the latest."""
        if self._leaving:
            return
        self._leaving = True
        self._inbox.close()
        self._cancelled.set()
        if self._given_job:
            _interrupt_main()
        threading.Timer(LAST_SECONDS, os._exit, [1]).start()


def _interrupt_main() -> None:
    """Raise `KeyboardInterrupt` in the main thread, unless it is being stopped already."""
    main = threading.main_thread().ident
    assert main is not None, "it runs"
    signal.pthread_kill(main, signal.SIGINT)


def serve() -> None:
    """Serve the window on stdin and stdout, then end the process."""
    requests, events = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # libraries print, also from C
    sys.stdout = sys.stderr
    with suppress(OSError):
        os.nice(NICENESS)
    faulthandler.enable()
    keep_libraries_quiet()
    stop_in_order()
    code = Server(requests, events).run()
    sys.stderr.flush()
    os._exit(code)  # no thread of a library is waited for
