"""What each action does: the table of actions connected to the session and the window's views."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QDockWidget

from app import theme
from app.action_specs import Need
from app.dialogs import ask_file, ask_folder, ask_new_file
from app.job_record import JobRecord
from app.models.calibrate_request import in_other_format
from app.models.command import command_of, recipe_file
from app.views.about import AboutPanel
from app.views.calibrate_sheet import CalibrateSheet
from app.views.importance import ImportanceView
from app.views.jobs import Offer, open_output_folder
from app.views.layers import LayersView
from app.views.metadata_sheet import MetadataSheet
from app.views.palette import CommandPalette
from app.views.run_sheet import RunSheet

if TYPE_CHECKING:
    from app.main_window import MainWindow

MODEL_FILES = ["Models (*.gguf *.safetensors *.bin)", "All files (*)"]
RECIPE_FILES = ["Recipes (*.json)"]
IMPORTANCE_FILES = ["Importance matrices (*.gguf *.dat)"]

IN_THE_TABLE = ("choose_format", "pin", "apply_to_role", *(f"bits_{bits}" for bits in range(2, 9)))
"""Actions whose keys count only while the table has the focus."""


NEEDS_OF_JOBS: dict[Need, Offer] = {
    "active job": "stop",
    "resumable job": "resume",
    "memory job": "less memory",
    "restartable job": "restart",
    "job folder": "folder",
    "removable job": "remove",
    "finished jobs": "remove finished",
}
"""What actions on jobs need, and which button of the list of jobs does the same."""


class Wiring(QObject):
    """Connects the actions of `window`, and knows why some cannot be used now."""

    def __init__(self, window: "MainWindow") -> None:
        super().__init__(window)
        self._window = window
        self._session, self._state = window.session, window.state
        self._actions = window.actions_table
        self._connect()

    def _connect(self) -> None:
        window, session, actions = self._window, self._session, self._actions
        stack = self._state.document.undo_stack
        for key, slot in {
            "open_folder": self.ask_folder,
            "open_file": self.ask_file,
            "open_sample": session.open_sample,
            "close_model": self._state.close,
            "preset": lambda: window.presets.open_below(window.toolbar.preset_button),
            "metadata": self._open_metadata,
            "open_recipe": self._ask_recipe,
            "save_recipe": self._save_recipe,
            "save_recipe_as": self._ask_save_recipe,
            "calibrate": self._open_calibration,
            "importance": self._ask_importance,
            "use_importance": lambda: session.importance.use(session.importance.files[0]),
            "no_importance": lambda: session.importance.use(None),
            "look_importance": self._ask_look,
            "view_importance": session.importance.show_view.emit,
            "merge_importance": self._ask_merge,
            "save_importance": self._ask_save_importance,
            "quit": window.close,
            "undo": stack.undo,
            "redo": stack.redo,
            "select_all": lambda: self._table_in_front().select_all(),
            "filter": lambda: self._table_in_front().focus_filter(),
            "choose_format": window.layers.choose_format,
            "pin": window.layers.toggle_pin,
            "apply_to_role": window.layers.apply_to_role,
            "expand_all": window.layers.expand_all,
            "collapse_all": window.layers.collapse_all,
            "run": self._open_sheet,
            "stop_job": lambda: self._with_job(session.board.cancel),
            "resume_job": lambda: self._with_job(session.desk.resume),
            "resume_job_less": lambda: self._with_job(session.desk.resume_with_less),
            "restart_job": lambda: self._with_job(session.desk.restart),
            "remove_job": lambda: self._with_job(session.desk.remove),
            "remove_finished_jobs": session.desk.remove_finished,
            "open_output_folder": lambda: self._with_job(open_output_folder),
            "copy_command": lambda: self._with_job(self._copy_command),
            "show_layers": lambda: window.tabs.setCurrentIndex(0),
            "show_histograms": lambda: window.tabs.setCurrentWidget(window.views.histograms),
            "show_outliers": lambda: window.tabs.setCurrentWidget(window.views.outliers),
            "show_weights": lambda: window.tabs.setCurrentWidget(window.views.picture),
            "show_error": lambda: window.tabs.setCurrentWidget(window.views.errors),
            "reset_layout": window.reset_layout,
            "command_palette": lambda: self._open_palette(),
            "help": lambda: window.show_help("window"),
            "shortcuts_help": lambda: window.show_help("window", "keys"),
            "about": self._show_about,
        }.items():
            actions.connect(key, slot)
        for bits in range(2, 9):
            actions.connect(f"bits_{bits}", partial(window.layers.set_bits, bits))
        for mode in get_args(theme.Mode):
            actions.connect(f"theme_{mode}", partial(self._set_theme, mode))
        actions[f"theme_{window.settings.theme}"].setChecked(True)
        self._connect_dock("toggle_jobs", window.jobs_dock)
        self._connect_dock("toggle_log", window.log_dock)
        actions["toggle_inspector"].toggled.connect(window.want_inspector)
        actions["toggle_log"].triggered.connect(lambda _: self._with_job(window.log.show_record))
        for key in IN_THE_TABLE:
            window.layers.table.addAction(actions[key])
        window.jobs.view.addAction(actions["remove_job"])
        for key, word, changed in (
            ("undo", "&Undo", stack.undoTextChanged),
            ("redo", "&Redo", stack.redoTextChanged),
        ):
            changed.connect(partial(self._name_step, key, word))

    def _connect_dock(self, key: str, dock: QDockWidget) -> None:
        action = self._actions[key]

        def show() -> None:
            wanted = action.isChecked()  # showing changes it: a tab behind another one counts as hidden
            dock.setVisible(wanted)
            if wanted:
                dock.raise_()
                dock.widget().setFocus()

        self._actions.connect(key, show)
        dock.visibilityChanged.connect(action.setChecked)

    def _name_step(self, key: str, word: str, step: str) -> None:
        """The menu names what would be undone; a name in it may hold what marks a mnemonic."""
        self._actions[key].setText(f"{word} {step.replace('&', '&&')}".strip())

    def unmet_needs(self) -> dict[str, str]:
        """Why actions cannot be used now, by what they need."""
        state, stack, record = self._state, self._state.document.undo_stack, self._window.jobs.current
        needs: dict[str, str] = {}
        if state.phase in ("empty", "opening"):
            needs["model"] = "Open a model first."
        if state.phase == "inspect only":
            needs["plan"] = state.refusal
        elif state.phase == "empty":
            needs["plan"] = "Open a model first."
        elif state.plan is None:
            needs["plan"] = "The plan of the output is still being made."
        if not state.selection or "plan" in needs:
            needs["selection"] = needs.get("plan", "Select tensors in the table first.")
        recipe = state.document.recipe
        if recipe is None or recipe.imatrix is None:
            needs["importance"] = "The recipe uses no importance matrix."
        if not self._session.importance.files:
            needs["open importance"] = "No importance matrix is open: load one, or compute it."
        refusal = self._session.importance.use_refusal(None)
        if refusal:
            needs["usable importance"] = refusal
        if not stack.canUndo():
            needs["undo"] = "Nothing to undo."
        if not stack.canRedo():
            needs["redo"] = "Nothing to redo."
        if record is None or not command_of(record):
            needs["command"] = "Select a job that has begun in the list of jobs first."
        refusals = self._window.jobs.refusals()
        for need, offer in NEEDS_OF_JOBS.items():
            if refusals[offer]:
                needs[need] = f"{refusals[offer][0].upper()}{refusals[offer][1:]}."
        return needs

    # ----------------------------------------------------------------------------------- asking

    def _start_folder(self) -> str:
        recent = self._window.settings.recent
        return str(Path(recent[0]).parent if recent else Path.home())

    def ask_folder(self) -> None:
        ask_folder(self._window, "Open a model folder", self._start_folder(), self._session.open)

    def ask_file(self) -> None:
        ask_file(self._window, "Open a model file", self._start_folder(), MODEL_FILES, self._session.open)

    def _ask_recipe(self) -> None:
        start, then = self._start_folder(), self._session.open_recipe
        ask_file(self._window, "Open a recipe", start, RECIPE_FILES, then)

    def _save_recipe(self) -> None:
        path = self._state.document.path
        if path is None:
            self._ask_save_recipe()
        else:
            self._session.save_recipe(path)

    def _ask_save_recipe(self) -> None:
        assert self._state.path is not None, "the action needs a model"
        beside = self._state.path.parent / f"{self._state.path.stem}-recipe.json"
        proposed = self._state.document.path or beside
        ask_new_file(self._window, "Save the recipe", proposed, RECIPE_FILES, self._session.save_recipe)

    def _ask_importance(self) -> None:
        start, then = self._start_folder(), self._session.importance.use
        ask_file(self._window, "Use an importance matrix", start, IMPORTANCE_FILES, then)

    def _ask_look(self) -> None:
        start, then = self._start_folder(), self._session.importance.view
        ask_file(self._window, "Look at an importance matrix", start, IMPORTANCE_FILES, then)

    def _ask_merge(self) -> None:
        desk = self._session.importance
        start = str(desk.files[0].parent)
        ask_file(self._window, "Merge with", start, IMPORTANCE_FILES, lambda path: desk.merge([path]))

    def _ask_save_importance(self) -> None:
        desk = self._session.importance
        first = desk.files[0]
        merged = len(desk.files) > 1
        proposed = first.with_name(f"merged-{first.name}") if merged else in_other_format(first)
        ask_new_file(self._window, "Save the importance matrix", proposed, IMPORTANCE_FILES, desk.save)

    def _open_calibration(self) -> None:
        window, session = self._window, self._session
        sheet = CalibrateSheet(self._state, window.settings, session.importance.reader, window)
        sheet.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        sheet.accepted.connect(lambda: self._calibrate(sheet))
        sheet.open()

    def _calibrate(self, sheet: CalibrateSheet) -> None:
        record = self._session.desk.run(sheet.request)
        if record is not None and sheet.used:
            self._session.importance.use_when_done(record)

    def _open_sheet(self) -> None:
        window = self._window
        sheet = RunSheet(self._state, window.settings, self._session.inspection, window)
        sheet.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        sheet.accepted.connect(lambda: self._session.desk.run(sheet.request))
        sheet.accepted.connect(lambda: window.strip.set_folder(Path(sheet.request.output).parent))
        sheet.open()

    def _open_metadata(self) -> None:
        """One sheet is enough; a second call brings it forward."""
        window = self._window
        sheet = window.findChild(MetadataSheet) or MetadataSheet(self._state, window)
        sheet.show()
        sheet.raise_()
        sheet.activateWindow()

    def _open_palette(self) -> None:
        window = self._window
        CommandPalette(window).open([*self._actions.all(), *window.presets.actions.values()])

    # ------------------------------------------------------------------------------------ doing

    def _table_in_front(self) -> LayersView | ImportanceView:
        """The view that keys of tables mean."""
        window = self._window
        shown = window.tabs.currentWidget() is window.importance
        return window.importance if shown else window.layers

    def _show_about(self) -> None:
        for shown in self._window.findChildren(AboutPanel):
            shown.close()
        panel = AboutPanel(self._window)
        panel.setWindowFlag(Qt.WindowType.Dialog)
        panel.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if self._session.hello is not None:
            panel.set_engine(self._session.hello)
        panel.show()

    def _set_theme(self, mode: theme.Mode) -> None:
        self._window.settings.theme = mode
        theme.apply_theme(cast(QApplication, QApplication.instance()), mode)

    def _copy_command(self, record: JobRecord) -> None:
        QGuiApplication.clipboard().setText(command_of(record))
        needed = recipe_file(record)
        needs = f" It needs {needed.name}: press Save recipe on the job's result." if needed else ""
        self._window.say(f"Copied: the command of {record.title}.{needs}")

    def _with_job(self, act: Callable[[JobRecord], None]) -> None:
        record = self._window.jobs.current
        if record is not None:
            act(record)
