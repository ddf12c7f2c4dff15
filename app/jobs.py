"""All jobs: those that run in engines of this window, and those that disk remembers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, QTimer, Signal

from app.ending import Ending
from app.engine_client import PATIENCE, EngineProcess, Patience, is_final
from engine.api.jobs import JobSummary, QuantizeRequest, QuantizeResult
from engine.api.messages import (
    Done,
    Event,
    JobStarted,
    ProgressMade,
    ResumeJob,
    StageStarted,
    StartQuantize,
    Warned,
)

State = Literal["starting", "running", "stopping", "done", "failed", "interrupted", "replaced", "unreadable"]

REFRESH_MS = 100
"""How long progress waits for more of its kind before it is shown."""


@dataclass(eq=False)
class JobRecord:
    """One job. `number` is its own in this session; `job`, its id on disk, is "" before it has a folder.

    `model`, `output`, `folder` and `log` are paths, "" where not known (yet). `message`: why it ended, one
    sentence; `trace`: what to report of it. `created`: ISO 8601, UTC. `stopped`: the user has stopped it.
    """

    number: int
    job: str = ""
    title: str = ""
    model: str = ""
    output: str = ""
    folder: str = ""
    log: str = ""
    state: State = "starting"
    progress: ProgressMade | None = None
    message: str = ""
    trace: str = ""
    warnings: list[str] = field(default_factory=list)
    result: QuantizeResult | None = None
    request: QuantizeRequest | None = None
    created: str = ""
    stopped: bool = False

    @property
    def resumable(self) -> bool:
        return bool(self.job) and self.state in ("failed", "interrupted")


class JobBoard(QObject):
    """Runs each job in an engine of its own. The record of a job is kept up to date; signals say so."""

    added = Signal(object)
    """A record that is new; it stands at its place in `records` already."""

    changed = Signal(object)
    finished = Signal(object)
    """A record whose engine has ended; its state is "done", "failed" or "interrupted"."""

    silent = Signal(object, bool)
    """A record, and whether nothing is heard of its engine."""

    all_ended = Signal()
    """Behind `close`: no engine runs any more."""

    def __init__(
        self,
        parent: QObject | None = None,
        *,
        command: Sequence[str] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        super().__init__(parent)
        self._command, self._patience = command, patience
        self.records: list[JobRecord] = []
        self._engines: dict[JobRecord, EngineProcess] = {}
        self._count = 0
        self._closing = False
        self._unshown: set[JobRecord] = set()
        self._refresh = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._refresh.timeout.connect(self._show_progress)

    @property
    def active(self) -> list[JobRecord]:
        """The jobs whose engines run here, oldest first."""
        return [record for record in self.records if record in self._engines]

    # ---------------------------------------------------------------------------- what one asks for

    def run(self, request: QuantizeRequest) -> JobRecord:
        """Start a new job."""
        record = self._new_record()
        record.created = datetime.now(UTC).isoformat(timespec="microseconds")
        _take_request(record, request)
        self._add(record)
        self._start(record, StartQuantize(quantize=request))
        return record

    def resume(self, record: JobRecord) -> None:
        """Go on with a job that is `resumable`."""
        assert record.resumable, f"{record.title} cannot be resumed"
        record.state = "starting"
        record.message = record.trace = ""
        record.warnings, record.result, record.stopped = [], None, False
        self._start(record, ResumeJob(job=record.job))
        self.changed.emit(record)

    def cancel(self, record: JobRecord) -> None:
        """Stop a job of this window; what is finished is kept."""
        engine = self._engines.get(record)
        if engine is not None:
            record.state = "stopping"
            engine.cancel()
            self._show(record)

    def close(self) -> None:
        """Stop everything. `all_ended` follows, at once where nothing runs."""
        if self._closing:
            return
        self._closing = True
        for record in self.active:
            self.cancel(record)
        if not self._engines:
            QTimer.singleShot(0, self, self.all_ended.emit)

    def take(self, summaries: list[JobSummary]) -> None:
        """Merge what disk says. Of a job that runs here, its engine knows better."""
        known = {record.job: record for record in self.records if record.job}
        for summary in summaries:
            record = known.get(summary.id)
            if record is None:
                record = self._new_record()
                _take_summary(record, summary)
                self._add(record)
            elif record not in self._engines:
                _take_summary(record, summary)
                self._show(record)

    # ----------------------------------------------------------------------------------- the engines

    def _new_record(self) -> JobRecord:
        self._count += 1
        return JobRecord(self._count)

    def _add(self, record: JobRecord) -> None:
        self.records.append(record)
        self.records.sort(key=lambda one: one.created)
        self.added.emit(record)

    def _start(self, record: JobRecord, request: StartQuantize | ResumeJob) -> None:
        engine = EngineProcess(self, command=self._command, patience=self._patience)
        engine.received.connect(lambda event: self._take_event(record, event))
        engine.silent.connect(lambda silent: self.silent.emit(record, silent))
        engine.ended.connect(lambda ending: self._end(record, ending))
        self._engines[record] = engine
        engine.start()
        engine.send(request)

    def _take_event(self, record: JobRecord, event: Event) -> None:
        if isinstance(event, ProgressMade):
            record.progress = event
            self._show_soon(record)
            return
        if is_final(event):
            self._engines[record].close()  # it should end by itself now; this makes sure of it
        if isinstance(event, JobStarted):
            record.job, record.folder, record.log = event.job, event.folder, event.log
            record.output = event.output
            record.state = "running" if record.state == "starting" else record.state
        elif isinstance(event, StageStarted):
            record.progress = ProgressMade(stage=event.stage, done=0, total=0, unit="", item="")
        elif isinstance(event, Warned):
            record.warnings.append(event.message)
        elif isinstance(event, Done):
            record.result = event.result
            record.warnings = list(dict.fromkeys([*record.warnings, *event.result.warnings]))
        else:
            return
        self._show(record)

    def _end(self, record: JobRecord, ending: Ending) -> None:
        self._engines.pop(record).deleteLater()
        record.state = _final_state(record, ending)
        record.stopped = ending.how == "stopped"
        if ending.how == "done":
            record.message = record.trace = ""
        else:
            record.message, record.trace = ending.sentence, ending.trace
        self._show(record)
        self.finished.emit(record)
        if self._closing and not self._engines:
            self.all_ended.emit()

    # --------------------------------------------------------------------------------------- signals

    def _show(self, record: JobRecord) -> None:
        self._unshown.discard(record)
        self.changed.emit(record)

    def _show_soon(self, record: JobRecord) -> None:
        self._unshown.add(record)
        if not self._refresh.isActive():
            self._refresh.start()

    def _show_progress(self) -> None:
        for record in tuple(self._unshown):
            self._show(record)


def _final_state(record: JobRecord, ending: Ending) -> State:
    """ "interrupted": the work was broken off; resuming goes on from there. "failed": it ran into a fault."""
    if ending.how == "done":
        return "done"
    return "interrupted" if record.job and ending.how != "failed" else "failed"


def _take_request(record: JobRecord, request: QuantizeRequest) -> None:
    record.request = request
    record.model, record.output = request.model, request.output
    record.title = f"quantize {_name(request.model)} → {_name(request.output)}"


def _take_summary(record: JobRecord, summary: JobSummary) -> None:
    """What disk says of a job without an engine here. A known state keeps its sentence, which says more."""
    if record.state != summary.state:
        elsewhere = summary.state == "running"
        record.message = "running in another process" if elsewhere else summary.message
        record.trace = ""
    record.job, record.state, record.created = summary.id, summary.state, summary.created
    record.output, record.folder = summary.output, summary.folder
    record.log = str(Path(summary.folder) / "engine.log") if summary.folder else ""
    if summary.request is not None:
        _take_request(record, summary.request)
    elif not record.title:
        record.title = f"{summary.kind} → {_name(summary.output)}" if summary.output else summary.id
    if summary.result is not None:
        record.result, record.warnings = summary.result, list(summary.result.warnings)
    if record.progress is None and summary.total:
        record.progress = ProgressMade(
            stage="saved", done=summary.done, total=summary.total, unit="parts", item=""
        )


def _name(path: str) -> str:
    return Path(path).absolute().name
