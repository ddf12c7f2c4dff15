"""What the program does when asked, without a widget: open, save, restore. It speaks in notices.

What is done with jobs stands in `app.job_desk`.
"""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.activations import ActivationsDesk
from app.ending import Ending
from app.figure_reader import FigureReader
from app.importance import ImportanceDesk
from app.inspection import Inspection
from app.job_desk import JobDesk
from app.jobs import JobBoard
from app.notice import Notice as Notice
from app.settings import Settings
from app.state import State
from app.upkeep import Upkeep
from engine.api.errors import UserError
from engine.api.events import Hello
from resources import SAMPLE_MODEL

RECIPE_SUFFIX = ".json"


class Session(QObject):
    """State, engines and settings of one window, and what happens between them."""

    notice = Signal(object)
    """A `Notice`."""

    opened = Signal()
    """Another model's table stands; what was said about the one before is past."""

    said = Signal(str)
    """A passing sentence."""

    ended = Signal()
    """Behind `close`."""

    def __init__(
        self, settings: Settings, parent: QObject | None = None, *, command: Sequence[str] | None = None
    ) -> None:
        super().__init__(parent)
        self.settings = settings
        self.state = State(self)
        self.inspection = Inspection(self, command=command)
        self.board = JobBoard(self, command=command)
        self.desk = JobDesk(self.board, self.inspection, settings, self)
        self.upkeep = Upkeep(self.state, self.inspection, self.board, settings, self)
        self.importance = ImportanceDesk(self.state, self.inspection, self.board, self)
        self.figures = FigureReader(self.state, self.inspection, self)
        self.activations = ActivationsDesk(self.state, self.board, self.desk, self)
        self.hello: Hello | None = None
        self._unsaved = ""
        self.desk.notice.connect(self.notice)
        self.desk.said.connect(self.said)
        self.importance.notice.connect(self.notice)
        self.importance.said.connect(self.said)
        self.inspection.ready.connect(self._greet)
        self.inspection.failed.connect(self._report_inspection)
        self.inspection.open_failed.connect(self._report_opening)
        self.state.model_changed.connect(self._after_opening)
        self.state.ready.connect(self._offer_autosaved)
        # What stands now stays for long: a full collection that walks over all of it takes longer than a
        # frame. Plans and rows hold no cycles, so nothing of a model leaks by this.
        self.state.ready.connect(gc.freeze)
        self.state.recipe_refused.connect(
            lambda text: self.notice.emit(Notice("error", f"{text} The step was taken back."))
        )
        self.state.document.autosave_failed.connect(lambda text: self.notice.emit(Notice("warning", text)))

    def start(self) -> None:
        """Start the inspecting engine and look for jobs that earlier runs have left."""
        self.inspection.start()
        self.desk.offer_kept(self.board.bring_back())
        self.upkeep.ask_jobs(self.desk.offer_interrupted)

    # --------------------------------------------------------------------------------- opening

    def open(self, path: Path) -> None:
        """Open a model (a folder or a file), or a recipe where a model is open."""
        path = path.absolute()
        if path.name == "config.json" or path.name.endswith(".index.json"):  # parts of a model's folder
            path = path.parent
        if path.suffix == RECIPE_SUFFIX:
            self.open_recipe(path)
            return
        self.said.emit(f"Opening {path.name} …")
        self._unsaved = self._model_name() if self.state.document.dirty else ""
        self.inspection.open(path, self.state)

    def open_sample(self) -> None:
        self.open(SAMPLE_MODEL)

    def open_recipe(self, path: Path) -> None:
        if self.state.document.recipe is None:
            self.notice.emit(
                Notice(
                    "warning", f"{path.name} is a recipe. Open the model it is for first, then the recipe."
                )
            )
            return
        self._try(lambda: self.state.document.load(path))

    def save_recipe(self, path: Path) -> None:
        self._try(lambda: self.state.document.save(path))

    def apply_preset(self, name: str) -> None:
        self._try(lambda: self.state.apply_preset(name))

    def _after_opening(self) -> None:
        phase, path = self.state.phase, self.state.path
        if phase == "headers" and path is not None:
            self.opened.emit()
            if path != SAMPLE_MODEL:
                self.settings.add_recent(str(path))
            if self._unsaved:
                self._say(
                    f"The unsaved recipe of {self._unsaved} is kept; it is offered when you open it again."
                )
                self._unsaved = ""
        if phase == "inspect only":
            self.notice.emit(Notice("warning", self.state.refusal))

    def _offer_autosaved(self) -> None:
        """The recipe that was not saved when this model was open last."""
        document = self.state.document
        left = document.autosaved()
        if left is None:
            return
        document.set_autosaved_aside()
        restore = ("Restore", lambda: document.change("Restore the unsaved recipe", left))
        discard = ("Discard", document.discard_autosaved)
        text = f"A recipe for {self._model_name()} was not saved when it was open last."
        self.notice.emit(Notice("info", text, actions=(restore, discard)))

    def _model_name(self) -> str:
        return self.state.path.name if self.state.path else "the model"

    def _report_opening(self, path: Path, message: str) -> None:
        actions = [("Try again", lambda: self.open(path))]
        if str(path) in self.settings.recent:
            actions.append(("Forget it", lambda: self.settings.remove_recent(str(path))))
        self.notice.emit(Notice("error", message, actions=tuple(actions)))

    # --------------------------------------------------------------------------------- engines

    def _greet(self, hello: Hello) -> None:
        self.hello = hello

    def _report_inspection(self, ending: Ending) -> None:
        text = f"{ending.sentence} What is open stays; the engine is started again when it is needed."
        self.notice.emit(Notice("warning", text, ending.trace))

    def _say(self, text: str) -> None:
        self.notice.emit(Notice("info", text))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except UserError as error:
            self.notice.emit(Notice("error", str(error)))

    def close(self) -> None:
        """Let everything end; `ended` follows when no engine runs any more."""
        self.state.finish()
        self.upkeep.close()
        left = {self.inspection, self.board}

        def gone(part: QObject) -> None:
            left.discard(part)
            if not left:
                self.ended.emit()

        self.inspection.closed.connect(lambda: gone(self.inspection))
        self.board.all_ended.connect(lambda: gone(self.board))
        self.inspection.close()
        self.board.close()
