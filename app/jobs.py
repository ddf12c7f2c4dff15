"""All jobs: those that run in engines of this window, one after the other, and those that disk remembers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from PySide6.QtCore import QObject, QTimer, Signal

from app.ending import Ending
from app.engine_client import PATIENCE, EngineProcess, Patience, is_final
from app.job_record import WRITING, JobRecord, State
from app.waiting import WaitingFile, WaitingJob
from engine.api.events import Done, Event, JobStarted, ProgressMade, ProgressSaved, StageStarted, Warned
from engine.api.jobs import (
    ActivationsRequest,
    ActivationsResult,
    CalibrateRequest,
    JobSummary,
    WritingRequest,
)
from engine.api.requests import (
    JobStart,
    NewJob,
    ResumeJob,
    StartActivations,
    StartCalibrate,
    StartQuantize,
)

REFRESH_MS = 100
"""How long progress waits for more of its kind before it is shown."""

KEEP_MS = 200
"""How long the jobs that wait may change before they are written to disk."""


class JobBoard(QObject):
    """Runs each job in an engine of its own, one at a time; the others wait in line.

    The record of a job is kept up to date; signals say so.
    """

    added = Signal(object)
    """A record that is new; it stands at its place in `records` already."""

    removed = Signal(object)
    """A list of records that were in `records`; they are not any more."""

    changed = Signal(object)
    finished = Signal(object)
    """A record whose engine has ended; its state is "done", "failed" or "interrupted"."""

    silent = Signal(object, bool)
    """A record, and whether nothing is heard of its engine."""

    all_ended = Signal()
    """Behind `close`: no engine runs any more."""

    not_kept = Signal(str)
    """Why the jobs that wait could not be written to disk."""

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
        self._line: list[JobRecord] = []
        self._count = 0
        self._moment = 0
        self._closing = False
        self._unshown: set[JobRecord] = set()
        self._refresh = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._refresh.timeout.connect(self._show_progress)
        self._file = WaitingFile()
        self._kept: list[WaitingJob] | None = None  # what the file says; None: not known
        self._keeping = QTimer(self, singleShot=True, interval=KEEP_MS)
        self._keeping.timeout.connect(self._keep)

    @property
    def active(self) -> list[JobRecord]:
        """The jobs whose engines run here: one at most, but for a moment."""
        return list(self._engines)

    @property
    def waiting(self) -> list[JobRecord]:
        """The jobs in line, the next one first."""
        return list(self._line)

    @property
    def moment(self) -> int:
        """Counts what the board did; see `take`."""
        return self._moment

    # ---------------------------------------------------------------------------- what one asks for

    def run(self, request: WritingRequest) -> JobRecord:
        """A new job, at the end of the line."""
        record = self._new_record()
        record.created = datetime.now(UTC).isoformat(timespec="microseconds")
        record.take_request(request)
        record.state = "waiting"
        self._add(record)
        self._line_up(record, _start_of(request))
        return record

    def resume(self, record: JobRecord, memory_limit: int | None = None) -> None:
        """Go on with a job that is `resumable`, or begin one that is "kept"."""
        if record.state == "kept":
            assert record.pending is not None, "it waited"
            self._line_up(record, record.pending)
            return
        assert record.resumable, f"{record.title} cannot be resumed"
        record.memory_limit = memory_limit or (record.request.memory_limit if record.request else None)
        self._line_up(record, ResumeJob(job=record.job, memory_limit=memory_limit))

    def restart(self, record: JobRecord) -> None:
        """Begin a job that is `restartable` anew."""
        assert record.restartable, f"{record.title} cannot be started again"
        if record.job:
            self._line_up(record, ResumeJob(job=record.job, restart=True))
        else:
            assert isinstance(record.request, WRITING), "nothing else is started here"
            self._line_up(record, _start_of(record.request))

    def cancel(self, record: JobRecord) -> None:
        """Stop a job of this window; what is finished is kept. One that waits leaves the line."""
        engine = self._engines.get(record)
        if engine is not None:
            record.state = "stopping"
            engine.cancel()
            self._show(record)
        elif record in self._line:
            self._line.remove(record)
            record.pending = None
            self._keep_soon()
            if record.job:
                record.state, record.message = "interrupted", "Stopped before its turn came."
                record.stopped = True
                self._touch(record)
                self._show(record)
            else:
                self.drop([record])

    def drop(self, records: Sequence[JobRecord]) -> None:
        """Take records off the list; what their folders hold is not touched."""
        if not records:
            return
        for record in records:
            assert record not in self._engines, "its engine runs"
            self.records.remove(record)
            self._unshown.discard(record)
            record.pending = None
        self._keep_soon()
        self.removed.emit(list(records))

    def close(self) -> None:
        """Stop everything. `all_ended` follows, at once where nothing runs."""
        if self._closing:
            return
        self._closing = True
        for record in self.active:
            self.cancel(record)
        if not self._engines:
            QTimer.singleShot(0, self, self._end_all)

    # ------------------------------------------------------------------------------------- from disk

    def bring_back(self) -> list[JobRecord]:
        """Put what waited when an earlier run of the program ended on the list; it does not start."""
        found = []
        for kept in self._file.take_over():
            record = self._new_record()
            record.take_request(kept.request)
            record.state, record.created = "kept", kept.created
            record.pending = _start_of(kept.request)
            self._add(record)
            found.append(record)
        self._keep()
        return found

    def take(self, summaries: list[JobSummary], since: int | None = None) -> None:
        """Make the list follow what disk said at the moment `since`; None: now.

        What was done here after that moment, or is under way, is known better here.
        """
        since = self._moment if since is None else since
        known = {record.job: record for record in self.records if record.job}
        for summary in summaries:
            record = known.pop(summary.id, None)
            if record is None:
                record = self._new_record()
                record.take_summary(summary)
                self._add(record)
            elif self._follows_disk(record, since) and record.take_summary(summary):
                self._show(record)
        self.drop([record for record in known.values() if self._follows_disk(record, since)])

    def _follows_disk(self, record: JobRecord, since: int) -> bool:
        return record not in self._engines and record not in self._line and record.touched <= since

    def set_removing(self, records: Sequence[JobRecord]) -> None:
        """Their folders are being removed: what disk says next counts, whatever it is."""
        for record in records:
            record.state, record.told = "removing", None
            self._touch(record)
            self._show(record)

    def set_back(self, states: Mapping[JobRecord, State]) -> None:
        """They could not be removed: they are what they were."""
        for record, state in states.items():
            if record.state == "removing":
                record.state = state
                self._show(record)

    # ----------------------------------------------------------------------------------- the engines

    def _new_record(self) -> JobRecord:
        self._count += 1
        return JobRecord(self._count)

    def _add(self, record: JobRecord) -> None:
        self.records.append(record)
        self.records.sort(key=lambda one: one.created)
        self.added.emit(record)

    def _touch(self, record: JobRecord) -> None:
        self._moment += 1
        record.touched = self._moment

    def _line_up(self, record: JobRecord, request: JobStart) -> None:
        record.begin()
        record.state, record.pending = "waiting", request
        self._touch(record)
        self._line.append(record)
        self._keep_soon()
        self._show(record)
        self._advance()

    def _advance(self) -> None:
        """Start the next one in line, unless one runs."""
        if self._line and not self._engines and not self._closing:
            self._start(self._line.pop(0))

    def _start(self, record: JobRecord) -> None:
        assert record.pending is not None, "it waited"
        engine = EngineProcess(self, command=self._command, patience=self._patience)
        engine.received.connect(lambda event: self._take_event(record, event))
        engine.silent.connect(lambda silent: self.silent.emit(record, silent))
        engine.ended.connect(lambda ending: self._end(record, ending))
        self._engines[record] = engine
        record.state = "starting"
        self._touch(record)
        engine.start()
        engine.send(record.pending)
        self._show(record)

    def _take_event(self, record: JobRecord, event: Event) -> None:
        if isinstance(event, ProgressMade):
            record.progress = event
            self._show_soon(record)
            return
        if isinstance(event, ProgressSaved):
            record.saved = event.saved
            self._show_soon(record)
            return
        if is_final(event):
            self._engines[record].close()  # it should end by itself now; this makes sure of it
        if isinstance(event, JobStarted):
            self._take_folder(record, event)
        elif isinstance(event, StageStarted):
            before = record.progress
            share, eta = (before.share, before.eta) if before else (None, None)
            record.progress = ProgressMade(
                stage=event.stage, done=0, total=0, unit="", item="", share=share, eta=eta
            )
        elif isinstance(event, Warned):
            record.warnings.append(event.message)
        elif isinstance(event, Done):
            record.result = event.result
            if isinstance(event.result, ActivationsResult):  # in the cache, maybe without a job
                record.output, record.pending = event.result.output, None
            record.warnings = list(dict.fromkeys([*record.warnings, *event.result.warnings]))
        else:
            return
        self._show(record)

    def _take_folder(self, record: JobRecord, event: JobStarted) -> None:
        """From here on disk remembers it. A listing may have found the folder before its engine said so."""
        self.drop([one for one in self.records if one.job == event.job and one is not record])
        if record.job != event.job:  # begun anew
            record.saved = None
        record.job, record.folder, record.log = event.job, event.folder, event.log
        record.output, record.least_memory = event.output, event.least_memory
        record.pending = None
        record.state = "running" if record.state == "starting" else record.state
        self._touch(record)
        self._keep_soon()

    def _end(self, record: JobRecord, ending: Ending) -> None:
        engine = self._engines.pop(record)
        for signal in (engine.received, engine.silent, engine.ended):
            signal.disconnect()  # else its deletion could be what lets go of the board, its parent
        engine.deleteLater()
        record.end(ending)
        if not self._closing or isinstance(record.pending, ResumeJob):
            record.pending = None  # else it had not begun when the window was closed, and is kept
        self._touch(record)
        self._keep_soon()
        self._show(record)
        self.finished.emit(record)
        self._advance()
        if self._closing and not self._engines:
            self._end_all()

    def _end_all(self) -> None:
        self._refresh.stop()
        self._keep()
        self._file.release()
        self.all_ended.emit()

    # ------------------------------------------------------------------------------- those that wait

    def _keep_soon(self) -> None:
        if not self._keeping.isActive():
            self._keeping.start()

    def _keep(self) -> None:
        """Write down the jobs that disk does not know of yet."""
        self._keeping.stop()
        jobs = [
            WaitingJob(created=record.created, request=record.request)
            for record in self.records
            if isinstance(record.pending, NewJob) and isinstance(record.request, WRITING)
        ]
        if jobs == self._kept:
            return
        try:
            self._file.keep(jobs)
            self._kept = jobs
        except OSError as error:
            self._kept = None
            self.not_kept.emit(f"The jobs that wait could not be written down: {error}.")

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


def _start_of(request: WritingRequest) -> NewJob:
    """What an engine is told to begin a job."""
    if isinstance(request, CalibrateRequest):
        return StartCalibrate(calibrate=request)
    if isinstance(request, ActivationsRequest):
        return StartActivations(activations=request)
    return StartQuantize(quantize=request)
