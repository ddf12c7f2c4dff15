"""One engine process: started, spoken to, listened to and ended, and never waited for.

What it says arrives by signals, in small portions a turn of the event loop, so that a flood of messages
cannot freeze the window. However it ends, that is told once, in words (`app.ending`).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM
from time import perf_counter

from pydantic import ValidationError
from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

from app.ending import Ending as Ending
from app.ending import Evidence, How, explain
from app.machine import memory_total
from engine.api.events import (
    Done,
    Event,
    Failed,
    Heartbeat,
    Hello,
    JobStarted,
    ProgressMade,
    ProgressSaved,
    Stopped,
    read_event,
)
from engine.api.jobs import Saved
from engine.api.launch import module_command
from engine.api.messages import PROTOCOL, write
from engine.api.requests import Cancel, Request

COMMAND = tuple(module_command("engine", "serve"))

TURN_SECONDS = 0.003
"""How long the messages of one turn of the event loop may take."""

REST_MS = 1
"""Between two such turns the event loop waits, so that all else has its turn first."""

LINE_LIMIT = 16 << 20
"""Bytes after which a line without an end is no message."""

LOG_LIMIT = 64 << 10
"""Bytes of stderr that are kept."""

SIGKILL = 9
"""`signal` has no such name on Windows."""


@dataclass(frozen=True)
class Patience:
    """Seconds: of silence until `silent`; from cancel to SIGTERM; on to SIGKILL; from start to hello."""

    heartbeat: float = 30.0
    terminate: float = 10.0
    kill: float = 5.0
    hello: float = 60.0


PATIENCE = Patience()


class LineBuffer:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)

    @property
    def unfinished(self) -> int:
        """Bytes behind the last newline."""
        return len(self._data) - self._data.rfind(b"\n") - 1

    def add(self, data: bytes) -> None:
        self._data += data

    def next(self) -> bytes | None:
        """The next line without its newline; None until there is a whole one."""
        end = self._data.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return line

    def take_all(self) -> bytes:
        """What is left, lines or not."""
        left = bytes(self._data)
        self._data.clear()
        self._searched = 0
        return left


class EngineProcess(QObject):
    """One process. `start` it once, `send` requests, `close` or `cancel` it; `ended` comes in any case."""

    received = Signal(object)
    """An `Event`; `Hello` and `Heartbeat` too."""

    ended = Signal(object)
    """An `Ending`: exactly once, behind everything received."""

    silent = Signal(bool)
    """True: nothing was heard for `patience.heartbeat` seconds; False: heard again."""

    def __init__(
        self,
        parent: QObject | None = None,
        *,
        command: Sequence[str] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        super().__init__(parent)
        self._command = tuple(command or COMMAND)
        self._patience = patience
        self.running = False
        self.memory_peak = 0
        self.strays = 0
        """Lines on its stdout that were no messages; they are in `log_text`."""
        self._lines = LineBuffer()
        self._log = bytearray()
        self._queue: list[bytes] = []
        self._up = self._greeted = self._job = self._closing = self._quiet = False
        self._sent: set[int] = set()
        self._asked = False
        self._verdict: tuple[How, str] | None = None
        self._last_word: Done | Stopped | Failed | None = None
        self._progress: ProgressMade | None = None
        self._saved: Saved | None = None
        self._event: Event | None = None  # read, but not acted on yet
        self._exit: Evidence | None = None
        self._turn = QTimer(self, singleShot=True, interval=REST_MS)
        self._turn.timeout.connect(self._work)
        self._watch = QTimer(self, singleShot=True)
        self._watch.timeout.connect(self._lose_patience)
        self._ladder = QTimer(self, singleShot=True)
        self._ladder.timeout.connect(self._climb)
        self._process = self._prepare()

    def _prepare(self) -> QProcess:
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        paths = [str(Path(__file__).parents[1]), environment.value("PYTHONPATH")]
        environment.insert("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        process.setProcessEnvironment(environment)
        process.setProgram(self._command[0])
        process.setArguments(list(self._command[1:]))
        process.started.connect(self._take_start)
        process.readyReadStandardOutput.connect(self._read_output)
        process.readyReadStandardError.connect(self._read_errors)
        process.errorOccurred.connect(self._take_error)
        process.finished.connect(self._take_exit)
        return process

    # ---------------------------------------------------------------------------- what one asks for

    def start(self) -> None:
        self.running = True
        self._watch.start(_milliseconds(self._patience.hello))
        self._process.start()

    def send(self, request: Request) -> None:
        """Goes out as soon as the process is up; without effect on a closed or ended one."""
        if self._exit is None and not self._closing:
            self._queue.append(write(request))
            self._flush()

    def cancel(self) -> None:
        """Ask it to stop; end it by force, step by step, if it does not."""
        if self.running and not self._asked:
            self.send(Cancel())
            self._begin_ladder()

    def close(self) -> None:
        """Close its stdin, at which an engine ends by itself; end it by force if it does not."""
        if self.running and not self._closing:
            self._closing = True
            self._flush()
            self._begin_ladder()

    @property
    def log_text(self) -> str:
        """The end of what it wrote to stderr, and what it wrote to stdout that is no message."""
        return self._log.decode(errors="replace")

    # ------------------------------------------------------------------------------- to the process

    def _flush(self) -> None:
        if not (self.running and self._up):
            return
        for line in self._queue:
            self._process.write(line)
        self._queue.clear()
        if self._closing:
            self._process.closeWriteChannel()

    def _begin_ladder(self) -> None:
        if not self._asked:
            self._asked = True
            self._ladder.start(_milliseconds(self._patience.terminate))

    def _climb(self) -> None:
        if self._sent:
            self._kill()
        else:
            self._sent.add(SIGTERM)
            self._process.terminate()
            self._ladder.start(_milliseconds(self._patience.kill))

    def _kill(self) -> None:
        self._sent.add(SIGKILL)
        self._process.kill()

    def _give_up(self, how: How, sentence: str) -> None:
        """Nothing that comes from this process is of use any more."""
        self._verdict = (how, sentence)
        self._note(self._lines.take_all())
        self._kill()

    def _lose_patience(self) -> None:
        if self._greeted:
            self._quiet = True
            self.silent.emit(True)
        elif self._verdict is None:
            seconds = f"{self._patience.hello:g} seconds"
            self._give_up("not started", f"The engine did not start within {seconds} and was ended.")

    # ----------------------------------------------------------------------------- from the process

    def _take_start(self) -> None:
        self._up = True
        self._flush()

    def _read_output(self) -> None:
        data = bytes(self._process.readAllStandardOutput().data())
        if self._verdict is not None:
            return
        self._lines.add(data)
        if self._greeted:
            self._hear()
        if len(self._lines) > LINE_LIMIT and self._lines.unfinished > LINE_LIMIT:
            limit = LINE_LIMIT >> 20
            self._give_up("mismatch", f"The engine sent a line of more than {limit} MiB and was ended.")
        else:
            self._turn.start()

    def _hear(self) -> None:
        self._watch.start(_milliseconds(self._patience.heartbeat))
        if self._quiet:
            self._quiet = False
            self.silent.emit(False)

    def _read_errors(self) -> None:
        self._note(bytes(self._process.readAllStandardError().data()))

    def _note(self, data: bytes) -> None:
        self._log += data
        del self._log[: max(0, len(self._log) - LOG_LIMIT)]

    def _take_error(self, error: QProcess.ProcessError) -> None:
        """Only a failed start counts: a crash is told by `finished`, a closed pipe is not the end."""
        if error == QProcess.ProcessError.FailedToStart:
            self._exit = Evidence(refusal=f"{self._command[0]}: {self._process.errorString()}")
            self._turn.start()

    def _take_exit(self, code: int, status: QProcess.ExitStatus) -> None:
        self._exit = Evidence(code=code, signalled=status == QProcess.ExitStatus.CrashExit)
        self._up = False
        self._turn.start()

    # ----------------------------------------------------------------------------------- the messages

    def _work(self) -> None:
        """Take lines for one turn's share of time, then let the event loop go round.

        One that takes so long to read is acted on in the next turn.
        """
        deadline = perf_counter() + TURN_SECONDS
        while True:
            if self._event is not None:
                event, self._event = self._event, None
                self._take(event)
            elif (line := self._lines.next()) is not None:
                self._event = self._understand(line)
            else:
                break
            if perf_counter() > deadline:
                self._turn.start()
                return
        if self._exit is not None:
            self._finish(self._exit)

    def _understand(self, line: bytes) -> Event | None:
        """What a line says; None where it is no message."""
        try:
            return read_event(line)
        except ValidationError:
            other = None if self._greeted else _other_protocol(line)
            if other is not None:
                self._refuse_protocol(other)
                return None
            self.strays += 1
            self._note(line + b"\n")
            return None

    def _take(self, event: Event) -> None:
        if isinstance(event, Hello) and event.protocol != PROTOCOL:
            self._refuse_protocol(event.protocol)
            return
        self._remember(event)
        self.received.emit(event)

    def _refuse_protocol(self, theirs: object) -> None:
        self._give_up(
            "mismatch",
            f"The engine speaks protocol {theirs}, this window protocol {PROTOCOL}: "
            "two versions of Bitwright are mixed. Install it anew.",
        )

    def _remember(self, event: Event) -> None:
        """Keep what an ending is explained with."""
        if isinstance(event, Hello):
            self._greeted = True
            self._hear()
        elif isinstance(event, Heartbeat):
            self.memory_peak = max(self.memory_peak, event.peak)
        elif isinstance(event, JobStarted):
            self._job = True
        elif isinstance(event, ProgressMade):
            self._progress = event
        elif isinstance(event, ProgressSaved):
            self._saved = event.saved
        elif isinstance(event, Done | Stopped | Failed) and is_final(event):
            self._last_word = event

    def _finish(self, exit_: Evidence) -> None:
        for timer in (self._turn, self._watch, self._ladder):
            timer.stop()
        self._note(self._lines.take_all())
        self.running = False
        self._process.deleteLater()
        evidence = replace(
            exit_,
            verdict=self._verdict,
            greeted=self._greeted,
            asked=self._asked,
            sent=frozenset(self._sent),
            last_word=self._last_word,
            progress=self._progress,
            saved=self._saved,
            job=self._job,
            peak=self.memory_peak,
            memory=memory_total() or 0,
            errors=self.log_text,
        )
        self.ended.emit(explain(evidence))


def is_final(event: Event) -> bool:
    """Whether a job has said its last word: finished, stopped, or failed itself."""
    if isinstance(event, Failed):
        return event.id is None and event.code not in ("busy", "protocol")
    return isinstance(event, Done | Stopped)


def _other_protocol(line: bytes) -> object | None:
    """The protocol in the hello of another version, which may look otherwise than ours; else None."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("event") != "hello":
        return None
    theirs = message.get("protocol")
    return theirs if theirs != PROTOCOL else None


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
