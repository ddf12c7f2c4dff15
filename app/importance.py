"""The importance matrix that is looked at, and what is done with matrices: used, merged, saved.

Without a widget; it speaks in notices.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.importance_reader import ImportanceReader
from app.inspection import Inspection
from app.job_record import JobRecord
from app.jobs import JobBoard
from app.notice import Action, Notice
from app.state import State
from engine.api.importance import ImportanceSummary
from engine.api.jobs import CalibrateResult

NOT_SAVED = "Save the merged matrix first: a recipe names one file."


class ImportanceDesk(QObject):
    """`files` are looked at, merged where there are several; none: nothing is.

    `summary` is what they say, None as long as it is not known. `problem`: why they cannot be read, or why
    they do not fit the open model; a sentence.
    """

    changed = Signal()
    """`files`, `summary` or `problem` is another one now."""

    show_view = Signal()
    """What was asked for wants to be seen."""

    notice = Signal(object)
    """A `Notice`."""

    said = Signal(str)
    """A passing sentence."""

    def __init__(
        self, state: State, inspection: Inspection, board: JobBoard, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.files: tuple[Path, ...] = ()
        self.summary: ImportanceSummary | None = None
        self.problem = ""
        self.reader = ImportanceReader(inspection)
        self._state = state
        self._followed: str | None = None  # the recipe's matrix, as it was seen last
        self._held: Path | None = None  # the model that `files` are held against
        self._wanted: dict[JobRecord, Path] = {}
        self._asked = 0
        state.document.changed.connect(self._follow_recipe)
        state.model_changed.connect(self._follow_model)
        inspection.importance_found.connect(self.take_found)
        board.finished.connect(self._take_finished)
        board.removed.connect(self._forget_jobs)

    # ---------------------------------------------------------------------------- what one asks for

    def use(self, path: Path | None) -> None:
        """Take a matrix into the recipe, or out of it: one undoable step."""
        version = self._state.document.version
        if version is None:
            return
        laid = self._state.set_importance(str(path) if path else None)
        how = "with" if path else "without"
        if laid:
            self.said.emit(f"{version.name} mixes its formats as {how} an importance matrix now.")
        elif laid is False:
            text = f"The recipe is edited, so its formats stay. Choose the preset {version.name} again to "
            self.notice.emit(Notice("info", f"{text}mix them as {how} an importance matrix."))
        elif path:
            self.said.emit(f"The recipe weighs errors by {path.name} now.")
        else:
            self.said.emit("The recipe uses no importance matrix now.")

    def use_refusal(self, path: Path | None) -> str:
        """Why a matrix cannot be used for the recipe now, a sentence; None: the one that is looked at."""
        if path is None and len(self.files) > 1:
            return NOT_SAVED
        path = path or (self.files[0] if self.files else None)
        if path is None:
            return "No importance matrix is open."
        recipe = self._state.document.recipe
        if recipe is None:
            return self._state.refusal or "Open the model that it is for first."
        if recipe.imatrix == str(path):
            return "The recipe uses it already."
        return self.problem if (path,) == self.files else ""

    def use_when_done(self, record: JobRecord) -> None:
        """Once the job has made its matrix, take it into the recipe of the model that is open now."""
        if self._state.path is not None:
            self._wanted[record] = self._state.path

    def take_found(self, path: Path) -> None:
        """A matrix that was dropped, or opened as if it were a model."""
        if self._state.document.recipe is None:
            self.view(path)
            self.said.emit(f"{path.name} is an importance matrix. Open the model it is for to use it.")
        else:
            self.use(path)

    def view(self, path: Path) -> None:
        """Look at a matrix."""
        self._show((path,))
        self.show_view.emit()

    def merge(self, paths: Sequence[Path]) -> None:
        """Look at what the matrix makes together with others; it is in no file before it is saved."""
        self._show((*self.files, *paths))
        self.show_view.emit()

    def save(self, output: Path) -> None:
        """Write what is looked at to a file, then look at that."""
        files = self.files

        def take(path: Path) -> None:
            self.said.emit(f"Saved {path.name}, read back and verified.")
            if files == self.files:
                self._show((path,))

        self.reader.save(files, output, take, lambda text: self.notice.emit(Notice("error", text)))

    def close(self) -> None:
        """Look at nothing."""
        self._show(())

    # ------------------------------------------------------------------------------------ following

    def _follow_recipe(self) -> None:
        recipe = self._state.document.recipe
        imatrix = recipe.imatrix if recipe else None
        before, self._followed = self._followed, imatrix
        if imatrix == before:
            return
        if imatrix is not None:
            self._show((Path(imatrix),))
        elif before is not None and self.files == (Path(before),):
            self.close()
        else:
            self.changed.emit()

    def _follow_model(self) -> None:
        """Another model needs other tensors."""
        if self.files and self._model() != self._held:
            self._show(self.files)
        else:
            self.changed.emit()

    def _model(self) -> Path | None:
        return self._state.path if self._state.phase == "ready" else None

    def _take_finished(self, record: JobRecord) -> None:
        if record.state != "done" or not isinstance(record.result, CalibrateResult):
            return
        model = self._wanted.pop(record, None)
        if model is None:
            return
        if self._state.path == model and self._state.document.recipe is not None:
            self.use(Path(record.result.output))
        else:
            text = f"{record.title}: done. Open {model.name} again to use it; its result offers that."
            self.notice.emit(Notice("info", text))

    def _forget_jobs(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            self._wanted.pop(record, None)

    # ------------------------------------------------------------------------------------- reading

    def _show(self, files: tuple[Path, ...]) -> None:
        self.files, self.summary, self.problem = files, None, ""
        self._held = self._model()
        self._asked += 1
        self.changed.emit()
        if files:
            self._read(self._held, "")

    def _read(self, model: Path | None, misfit: str) -> None:
        """Held against `model`; one that does not fit is looked at all the same."""
        asked = self._asked

        def take(summary: ImportanceSummary) -> None:
            if asked == self._asked:
                self.summary, self.problem = summary, misfit
                self.changed.emit()
                if misfit:
                    self._warn(misfit)

        def fail(sentence: str) -> None:
            if asked != self._asked:
                return
            if model is not None:
                self._read(None, sentence)
                return
            self.problem = misfit or sentence
            self.changed.emit()
            self._warn(self.problem)

        self.reader.summary(self.files, model, take, fail)

    def _warn(self, sentence: str) -> None:
        """The recipe's own matrix cannot be used: that would only be found out when it is run."""
        if self._followed is None or self.files != (Path(self._followed),):
            return
        out: Action = ("Take it out", partial(self.use, None))
        self.notice.emit(Notice("warning", sentence, actions=(out, ("View", self.show_view.emit))))
