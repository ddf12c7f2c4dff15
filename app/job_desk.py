"""What is done with jobs when asked, and what is said of them: without a widget, in notices."""

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QObject, Signal

from app.ending import saved_sentence
from app.inspection import Inspection
from app.job_record import FINISHED, UNFINISHED, JobRecord
from app.jobs import JobBoard
from app.machine import memory_available
from app.models.job_offers import (
    less_memory,
    less_memory_refusal,
    occupied,
    remove_refusal,
    restart_refusal,
    resume_refusal,
)
from app.notice import Action, Notice
from app.settings import Settings
from engine.api.jobs import ActivationsRequest, ActivationsResult, JobSummary, WritingRequest
from engine.api.units import size


class JobDesk(QObject):
    """Stands between who asks (views, banners) and the board and disk."""

    notice = Signal(object)
    """A `Notice`."""

    show_result = Signal(object)
    show_log = Signal(object)
    """A `JobRecord` each."""

    said = Signal(str)
    """A passing sentence."""

    def __init__(
        self, board: JobBoard, inspection: Inspection, settings: Settings, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._board, self._inspection, self._settings = board, inspection, settings
        board.finished.connect(self._report)
        board.silent.connect(self._report_silence)
        board.not_kept.connect(lambda text: self.notice.emit(Notice("warning", text)))

    # ---------------------------------------------------------------------------- what one asks for

    def run(self, request: WritingRequest) -> JobRecord | None:
        """A new job, unless one that runs or waits here writes the same file: only disk is checked."""
        busy = [*self._board.active, *self._board.waiting]
        rival = next((job for job in busy if request.output and job.output == request.output), None)
        if rival is not None:
            does = "waits to write" if rival.state == "waiting" else "is writing"
            text = f"{rival.title} {does} {request.output} already. Choose another name."
            self.notice.emit(Notice("error", text))
            return None
        record = self._board.run(request)
        self._say_if_waiting(record)
        return record

    def resume(self, record: JobRecord) -> None:
        if self._refused(record, resume_refusal(record)):
            return
        self._board.resume(record)
        self._say_if_waiting(record)

    def resume_with_less(self, record: JobRecord) -> None:
        """Go on under a limit of memory."""
        available = memory_available()
        if self._refused(record, less_memory_refusal(record, available)):
            return
        limit = less_memory(record, available)
        self._board.resume(record, limit)
        self.said.emit(f"{record.title} goes on with at most {size(limit)} of memory.")

    def restart(self, record: JobRecord) -> None:
        """Begin a job anew; asks first where that gives up what is saved and could be gone on with."""
        if self._refused(record, restart_refusal(record)):
            return
        if record.resumable and record.saved is not None and record.saved.done:
            text = f"Start {record.title} again from nothing? What is saved of it ({record.saved}) is lost."
            again: Action = ("Start again", partial(self._restart, record))
            self.notice.emit(Notice("warning", text, actions=(again, _keep()), about=record))
        else:
            self._restart(record)

    def _restart(self, record: JobRecord) -> None:
        if not self._refused(record, restart_refusal(record)):
            self._board.restart(record)
            self._say_if_waiting(record)

    def remove(self, record: JobRecord) -> None:
        """Take a job off the list and off the disk; asks first where it is not finished."""
        if self._refused(record, remove_refusal(record)):
            return
        if not record.job:
            self._board.drop([record])
        elif record.state in UNFINISHED:
            written = occupied(record)
            what = f" and the {size(written)} it takes on the disk" if written else ""
            text = f"Remove {record.title}{what}? It cannot be resumed then."
            remove: Action = ("Remove", partial(self._remove, [record]))
            self.notice.emit(Notice("warning", text, actions=(remove, _keep()), about=record))
        else:
            self._remove([record])

    def remove_finished(self) -> None:
        """The same for all that is over; asks, for their results and logs go with them."""
        over = [record for record in self._board.records if record.state in FINISHED]
        count = "the 1 finished job" if len(over) == 1 else f"all {len(over):,} finished jobs"
        text = f"Remove {count} from the list, results and logs too? The files they have written stay."
        remove: Action = ("Remove", partial(self._remove, over))
        self.notice.emit(Notice("warning", text, actions=(remove, _keep())))

    def _remove(self, records: Sequence[JobRecord]) -> None:
        """What has begun to run since the question was asked stays."""
        there = [record for record in records if record in self._board.records and record.removable]
        before = {record: record.state for record in there}
        self._board.set_removing(there)
        since = self._board.moment

        def take(left: list[JobSummary]) -> None:
            self._board.take(left, since)
            stayed = [record.title for record in there if record in self._board.records]
            if stayed:
                self.notice.emit(Notice("warning", f"Not removed, for it runs elsewhere: {stayed[0]}."))

        def fail(sentence: str) -> None:
            self._board.set_back(before)
            self.notice.emit(Notice("error", f"What was to be removed may still be there. {sentence}"))

        self._inspection.remove([record.job for record in there], take, fail)

    def _refused(self, record: JobRecord, refusal: str) -> bool:
        """Banners outlive the jobs that they are about."""
        if record not in self._board.records:
            refusal = "it is not in the list any more"
        if refusal:
            self.said.emit(f"{record.title}: not now, {refusal}.")
        return bool(refusal)

    def _say_if_waiting(self, record: JobRecord) -> None:
        if record.state == "waiting":
            self.said.emit(f"{record.title} waits for the job that runs.")

    # ------------------------------------------------------------------------ what earlier runs left

    def offer_kept(self, records: Sequence[JobRecord]) -> None:
        """Jobs that had not begun when the program ended: they start only if asked for."""
        if not records:
            return
        first, more = records[0].title, len(records) - 1
        names = first if not more else f"{first} and {more} more"
        text = f"Not begun when Bitwright ended: {names}."
        start: Action = ("Start", partial(self._start_kept, records))
        remove: Action = ("Remove", partial(self._drop_kept, records))
        self.notice.emit(Notice("info", text, actions=(start, remove)))

    def _start_kept(self, records: Sequence[JobRecord]) -> None:
        for record in self._still_kept(records):
            self._board.resume(record)

    def _drop_kept(self, records: Sequence[JobRecord]) -> None:
        self._board.drop(self._still_kept(records))

    def _still_kept(self, records: Sequence[JobRecord]) -> list[JobRecord]:
        return [record for record in records if record.state == "kept" and record in self._board.records]

    def offer_interrupted(self, summaries: list[JobSummary]) -> None:
        """The newest job that was broken off with something saved: once, the list shows it from then on."""
        left = [job for job in summaries if job.state == "interrupted" and job.saved and job.saved.done]
        if not left or left[-1].id == self._settings.offered_job:
            return
        job = left[-1]
        record = next((record for record in self._board.records if record.job == job.id), None)
        if record is None or not record.resumable or job.saved is None:
            return
        self._settings.offered_job = job.id
        text = f"An earlier run was interrupted: {record.title}. {saved_sentence(job.saved)}"
        if len(left) > 1:
            text += f" {len(left) - 1} more are in the list of jobs."
        resume: Action = ("Resume", partial(self.resume, record))
        self.notice.emit(Notice("info", text, actions=(resume,), about=record))

    # --------------------------------------------------------------------------------- what is said

    def _report(self, record: JobRecord) -> None:
        if record.state == "done":
            self._report_done(record)
        elif isinstance(record.request, ActivationsRequest):  # the view that asked says why
            self.said.emit(f"{record.title}: {record.message}")
        elif not record.stopped:  # else the list of jobs shows it
            text = f"{record.title}: {record.message}"
            self.notice.emit(Notice("error", text, record.trace, tuple(self._ways_on(record)), record))

    def _report_done(self, record: JobRecord) -> None:
        """Its result comes by itself after the last one; between jobs it would interrupt other work."""
        if isinstance(record.result, ActivationsResult):  # views take it as it comes
            self.said.emit(f"{record.title}: done.")
        elif self._board.waiting:
            show: Action = ("Show result", partial(self.show_result.emit, record))
            self.notice.emit(Notice("info", f"{record.title}: done. The next job begins.", actions=(show,)))
        else:
            self.show_result.emit(record)

    def _ways_on(self, record: JobRecord) -> list[Action]:
        """What helps a job that failed."""
        ways: list[Action] = []
        if record.resumable:
            ways.append(("Resume", partial(self.resume, record)))
        if record.remedy == "less memory" and not less_memory_refusal(record, memory_available()):
            ways.append(("Resume with less memory", partial(self.resume_with_less, record)))
        if record.remedy == "start again" or not record.job:
            ways.append(("Start again", partial(self.restart, record)))
        if record.log:
            ways.append(("Log", partial(self.show_log.emit, record)))
        return ways

    def _report_silence(self, record: JobRecord, silent: bool) -> None:
        if silent:
            stop: Action = ("Stop it", partial(self._board.cancel, record))
            text = f"{record.title}: its engine has not been heard of for a while. It may be busy, or hang."
            self.notice.emit(Notice("warning", text, actions=(stop,), about=record))


def _keep() -> Action:
    """The button that does nothing."""
    return "Keep", lambda: None
