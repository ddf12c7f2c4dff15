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
    they do not fit the open model; a sentence. `lost`: there was no answer, so reading them again may help.
    """

    changed = Signal()
    """`files`, `summary`, `problem` or `lost` is another one now."""

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
        self.lost = False
        self.reader = ImportanceReader(inspection)
        self._state = state
        self._followed: str | None = None  # the recipe's matrix, as it was seen last
        self._held: Path | None = None  # the model that `files` are held against
        self._wanted: dict[JobRecord, Path] = {}
        self._asked = self._uses = 0
        state.document.changed.connect(self._follow_recipe)
        state.model_changed.connect(self._follow_model)
        inspection.importance_found.connect(self.take_found)
        board.finished.connect(self._take_finished)
        board.removed.connect(self._forget_jobs)

    # ---------------------------------------------------------------------------- what one asks for

    def use(self, path: Path | None) -> None:
        """Take a matrix into the recipe once it is found to fit the model; None: out of it.

        One undoable step. One that does not fit leaves the recipe as it is.
        """
        model = self._model()
        self._uses += 1
        self._state.await_importance(None)
        if path is None:
            self._put(None)
        elif model is None:
            return
        elif (path,) == self.files and self.summary and not self.problem and self._held == model:
            self._put(path)
        else:
            self._use_fitting(path, model, self._uses)

    def _use_fitting(self, path: Path, model: Path, use: int) -> None:
        """Of several that are asked for while one is read, the last counts."""

        def wanted() -> bool:
            return use == self._uses and self._model() == model

        def take(summary: ImportanceSummary) -> None:
            if wanted():
                self._state.await_importance(None)
                self.files, self.summary, self.problem, self._held = (path,), summary, "", model
                self.lost = False
                self._asked += 1
                self._put(path)
                self._state.take_importance(summary.facts(str(path)))  # the recipe may have named it before
                self.changed.emit()

        def leave(offer: Action, sentence: str) -> None:
            if wanted():
                self._state.await_importance(None)
                recipe = self._state.document.recipe
                kept = (
                    f"keeps {Path(recipe.imatrix).name}" if recipe and recipe.imatrix else "stays without one"
                )
                text = f"{sentence} It is not used: the recipe {kept}."
                self.notice.emit(Notice("warning", text, actions=(offer,)))

        self._state.await_importance(path)
        self.said.emit(f"Reading {path.name} …")
        again, look = ("Try again", partial(self.use, path)), ("View", partial(self.view, path))
        self.reader.summary((path,), model, take, partial(leave, again), partial(leave, look))

    def _put(self, path: Path | None) -> None:
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
        return self.problem if (path,) == self.files and not self.lost else ""

    def use_when_done(self, record: JobRecord) -> None:
        """Once the job has made its matrix, take it into the recipe of the model that it is made for."""
        assert record.request is not None, "it was asked for here"
        self._wanted[record] = Path(record.request.model)

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
        """Look at what the matrix makes together with others; it is in no file before it is saved.

        Where they do not go together, it is looked at as before.
        """
        before, files = self.files, (*self.files, *paths)

        def take(_: ImportanceSummary) -> None:
            if before == self.files:
                self._show(files)
                self.show_view.emit()

        self.said.emit(f"Reading {', '.join(path.name for path in paths)} …")
        self.reader.summary(files, None, take, self._complain)

    def save(self, output: Path) -> None:
        """Write what is looked at to a file, then look at that."""
        files = self.files

        def take(warnings: list[str]) -> None:
            self.said.emit(f"Saved {output.name}, read back and verified.")
            for warning in warnings:
                self.notice.emit(Notice("warning", f"{warning}."))
            if files == self.files:
                self._show((output,))

        self.said.emit(f"Saving {output.name} …")
        self.reader.save(files, output, self._state.path, take, self._complain)

    def read_again(self) -> None:
        """Where there was no answer."""
        self._show(self.files)

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
        if imatrix is not None and self.files == (Path(imatrix),) and self.summary and not self.problem:
            self._state.take_importance(self.summary.facts(imatrix))
            self.changed.emit()
        elif imatrix is not None:
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
        self._read_anew(Path(record.result.output))
        model = self._wanted.pop(record, None)
        if model is None:
            return
        if self._state.path == model and self._state.document.recipe is not None:
            self.use(Path(record.result.output))
        else:
            text = f"{record.title}: done. Open {model.name} again to use it; its result offers that."
            self.notice.emit(Notice("info", text))

    def _read_anew(self, made: Path) -> None:
        """The matrix in this file is another one now; the recipe may use it while others are looked at."""
        if made in self.files:
            self._show(self.files)
        elif self._followed is not None and made == Path(self._followed):
            followed = self._followed

            def take(summary: ImportanceSummary) -> None:
                if followed == self._followed:
                    self._state.take_importance(summary.facts(followed))

            self.reader.summary((made,), self._model(), take, self._complain)

    def _forget_jobs(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            self._wanted.pop(record, None)

    # ------------------------------------------------------------------------------------- reading

    def _show(self, files: tuple[Path, ...]) -> None:
        self.files, self.summary, self.problem, self.lost = files, None, "", False
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
                if self._is_recipe_s():
                    self._state.take_importance(summary.facts(str(self._followed)))
                self.changed.emit()
                if misfit:
                    self._warn(misfit)

        def refuse(sentence: str) -> None:
            if asked != self._asked:
                return
            if model is not None:
                self._read(None, sentence)
                return
            self.problem = misfit or sentence
            self.changed.emit()
            self._warn(self.problem)

        def fail(sentence: str) -> None:
            if asked == self._asked:
                self.problem, self.lost = sentence, True
                self.changed.emit()
                self._warn(sentence)

        self.reader.summary(self.files, model, take, fail, refuse)

    def _is_recipe_s(self) -> bool:
        """Whether what is looked at is the recipe's own matrix."""
        return self._followed is not None and self.files == (Path(self._followed),)

    def _complain(self, sentence: str) -> None:
        self.notice.emit(Notice("error", sentence))

    def _warn(self, sentence: str) -> None:
        """The recipe's own matrix cannot be used: that would only be found out when it is run."""
        if not self._is_recipe_s():
            return
        out: Action = ("Take it out", partial(self.use, None))
        look: Action = ("Try again", self.read_again) if self.lost else ("View", self.show_view.emit)
        self.notice.emit(Notice("warning", sentence, actions=(out, look)))
