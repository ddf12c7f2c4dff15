"""Which activations are looked at: gathered on a text, or on a prompt that one types. Without a widget."""

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from app.job_desk import JobDesk
from app.job_record import ACTIVE, JobRecord
from app.jobs import JobBoard
from app.state import State
from engine.api.jobs import ActivationsRequest, ActivationsResult

NONE_YET = (
    "No activations are gathered yet: run the model on a text to see what its matrices are multiplied with."
)


STALE = "The activations that are there were gathered from another state of this model: gather them anew."
CHANGED = "The model was changed after it was opened here: open it again."


class ActivationsDesk(QObject):
    """`file` holds the activations of the open model, None where there are none; `of` says of what they are.

    `caution`: what to keep in mind of them, a sentence.

    `record` is the job that gathers others now. `problem`: why the last one brought none, a sentence.
    """

    changed = Signal()
    """`file`, `of`, `record`, its progress, or `problem` is another one now."""

    def __init__(self, state: State, board: JobBoard, desk: JobDesk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state, self._board, self._desk = state, board, desk
        self._model: tuple[Path | None, str] = (None, "")
        self._asked = False
        self.record: JobRecord | None = None
        self.file: Path | None = None
        self.of = self.problem = ""
        self.caution = ""
        state.model_changed.connect(self._follow_model)
        board.added.connect(self._meet)
        board.changed.connect(self._follow_job)
        board.finished.connect(self._take_finished)
        board.removed.connect(self._forget)

    @property
    def ready(self) -> bool:
        """Whether there are activations to look at, and nobody wants others."""
        return self.file is not None and not self._asked and self.record is None

    @property
    def sentence(self) -> str:
        """Why there is nothing to look at."""
        if self.record is not None:
            return "The model is run to gather its activations…"
        return self.problem or (NONE_YET if self.file is None else f"Activations are there: {self.of}")

    # ---------------------------------------------------------------------------- what one asks for

    def gather(self, texts: list[str], **settings: int) -> None:
        """Run the open model on files and folders; none: the sample text. `settings`: of the request."""
        self._run(texts=texts, **settings)

    def look(self, prompt: str) -> None:
        """Run it on one prompt."""
        if prompt.strip():
            self._run(prompt=prompt)

    def ask(self, wanted: bool) -> None:
        """Others are wanted, or not after all."""
        self._asked = wanted
        self.changed.emit()

    def stop(self) -> None:
        if self.record is not None:
            self._board.cancel(self.record)

    def _run(self, **asked: Any) -> None:
        assert self._state.path is not None, "a model is open"
        if self.record is not None:
            return
        self.problem = ""
        self.record = self._desk.run(ActivationsRequest(model=str(self._state.path), **asked))
        self.changed.emit()

    # ------------------------------------------------------------------------------------ following

    def _follow_model(self) -> None:
        """A model that was changed and is opened again is another one."""
        summary = self._state.summary
        model = self._state.path, summary.state if summary is not None else ""
        if model == self._model:
            return
        self._model = model
        self.record, self.file, self.of, self.problem, self._asked = None, None, "", "", False
        for record in reversed(self._board.records):
            if self._is_ours(record) and record.state in (*ACTIVE, "waiting"):
                self.record = record
            elif self._is_ours(record) and self.file is None:
                self._take(record)
        self.changed.emit()

    def _meet(self, record: JobRecord) -> None:
        """Disk remembers what was gathered before."""
        if self.file is None and self._is_ours(record) and record.state == "done":
            self._take(record)
            self.changed.emit()

    def _is_ours(self, record: JobRecord) -> bool:
        return isinstance(record.request, ActivationsRequest) and Path(record.request.model) == self._model[0]

    def _follow_job(self, record: JobRecord) -> None:
        if record is self.record:
            self.changed.emit()

    def _take_finished(self, record: JobRecord) -> None:
        if not self._is_ours(record):
            return
        self.record = None if record is self.record else self.record
        if record.state == "done":
            self._asked, self.problem = False, ""
            self._take(record, CHANGED)
        elif not record.stopped:
            self.problem = record.message
        self.changed.emit()

    def _take(self, record: JobRecord, stale: str = STALE) -> None:
        """`stale`: what to say where they are of another state of the model."""
        result = record.result
        if not isinstance(result, ActivationsResult) or not Path(result.output).is_file():
            return
        ran = result.ran
        if self._state.summary is not None and ran.state != self._state.summary.state:
            self.problem = stale if self.file is None else ""
        else:
            self.problem = ""
            self.file = Path(result.output)
            self.caution = ran.caution
            self.of = f"“{ran.prompt}”, {ran.tokens:,} tokens" if ran.prompt else str(ran)

    def _forget(self, records: list[JobRecord]) -> None:
        """What waited was taken out of the line; the file of a removed job may be gone with its folder."""
        if self.record in records:
            self.record = None
        if self.file is not None and not self.file.is_file():
            self.file, self.of = None, ""
        self.changed.emit()
