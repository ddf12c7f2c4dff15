"""What is open: the model, its recipe and plan, the selection. The one source of truth; views observe it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, Signal

from app.document import RecipeDocument
from app.planner import BackgroundPlanner, Forecast, Outlook
from engine.api.importance import ImportanceFacts
from engine.api.metadata import MetadataEntry
from engine.api.model import ModelSummary, Role, TensorSummary
from engine.api.plan import ExportSummary, Plan, Planner, TensorPlan
from engine.api.preset_sizes import preset_over
from engine.api.presets import PRESETS
from engine.api.recipe import Recipe

Phase = Literal["empty", "opening", "headers", "ready", "inspect only"]
"""`headers`: the table stands, the plan of the output is still being made. `inspect only`: there is none."""

DEFAULT_PRESET = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a tensor of the output, or a source tensor that has no place in it.

    `key` identifies it (canonical name, or the source's where there is none); `name` is the source's (the
    canonical one where several sources make one tensor). `index` is its place in the plan, None without one;
    `bytes` what its sources take now; `dtype` their storage type.
    """

    key: str
    name: str
    role: Role
    block: int | None
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sources: tuple[str, ...]
    index: int | None


class State(QObject):
    """See the module. Everything is read from attributes; what changes them says so by a signal.

    `importance`: the matrix that a recipe named last, as soon as it is read. `awaited`: one that is being
    read, and comes into the recipe if it fits.
    """

    model_changed = Signal()
    """`phase`, `path`, `summary`, `export` or `rows` changed."""

    ready = Signal()
    """A model that can be quantized is open, and its recipe has begun."""

    plan_changed = Signal()
    """`outlook`, and `plan` with it, follows the recipe now (or is None)."""

    awaited_changed = Signal()

    recipe_refused = Signal(str)
    """Why the last step was taken back."""

    selection_changed = Signal()

    channel_changed = Signal()
    """Another input channel is marked, or none."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.phase: Phase = "empty"
        self.path: Path | None = None
        self.summary: ModelSummary | None = None
        self.export: ExportSummary | None = None
        self.refusal = ""
        self.rows: list[Row] = []
        self.outlook: Outlook | None = None
        self.selection: tuple[str, ...] = ()
        self.channel: int | None = None
        self.document = RecipeDocument(self)
        self.planner: Planner | None = None
        self.importance: ImportanceFacts | None = None
        self.awaited: Path | None = None
        self._forecast: Forecast | None = None
        self._background = BackgroundPlanner(self)
        self._background.planned.connect(self._take_outlook)
        self._background.refused.connect(self._take_back)
        self.document.changed.connect(self._ask_plan)

    # ------------------------------------------------------------------------------- the model

    def opening(self, path: Path) -> None:
        self._clear()
        self.phase, self.path = "opening", path
        self.model_changed.emit()

    def close(self) -> None:
        self._clear()
        self.model_changed.emit()

    def take_summary(self, summary: ModelSummary) -> None:
        """The headers are read: the table can stand."""
        self.phase, self.summary = "headers", summary
        self.rows = [_source_row(tensor) for tensor in summary.tensors]
        self.model_changed.emit()

    def take_export(self, export: ExportSummary) -> None:
        """The output is known: the recipe begins with the default preset."""
        assert self.summary is not None, "the summary comes first"
        assert self.path is not None, "a model is open"
        self.phase, self.export = "ready", export
        self.rows = _rows(self.summary, export)
        self.planner = Planner(export.tensors, self.importance)
        self._forecast = Forecast(export, self.planner)
        self.model_changed.emit()
        places = {source: row.key for row in self.rows for source in row.sources}
        self.select(tuple(dict.fromkeys(places[key] for key in self.selection if key in places)))
        recipe = self.planner.recipe_of(DEFAULT_PRESET, export.facts)
        self.document.begin(self.path, DEFAULT_PRESET, recipe)
        self.ready.emit()

    def refuse_export(self, reason: str) -> None:
        """There is no output for this model; it can be looked at all the same."""
        self.phase, self.refusal = "inspect only", reason
        self.model_changed.emit()

    def _clear(self) -> None:
        self._background.drop()
        self.phase, self.path, self.summary, self.export, self.refusal = "empty", None, None, None, ""
        self.rows, self.planner, self._forecast, self.outlook = [], None, None, None
        self.document.close()
        self.await_importance(None)
        self.select(())
        self.mark_channel(None)
        self.plan_changed.emit()

    # ------------------------------------------------------------------------------ the recipe

    @property
    def plan(self) -> Plan | None:
        """What the recipe does with the tensors of the output."""
        return self.outlook.plan if self.outlook else None

    @property
    def metadata(self) -> list[MetadataEntry]:
        """All keys that the file will have, before they are edited."""
        recipe = self.document.recipe
        if self.export is None or recipe is None:
            return []
        return self.export.entries(self.plan, recipe.output.options)

    @property
    def file_bytes(self) -> int | None:
        """What the file will take, to the byte."""
        return self.outlook.file_bytes if self.outlook else None

    def planned(self, row: Row) -> TensorPlan | None:
        """What the recipe does with a row."""
        plan = self.plan
        return plan.tensors[row.index] if plan and row.index is not None else None

    def change_recipe(self, text: str, recipe: Recipe) -> None:
        """One undoable edit, named `text`."""
        self.document.change(text, recipe)

    def apply_preset(self, name: str) -> None:
        """Lay a preset under what is pinned, as one undoable step. All else stays. Raises `RecipeError`."""
        old = self.document.recipe
        assert old is not None, "a model is open"
        assert self.export is not None, "a model is open"
        assert self.planner is not None, "a model is open"
        recipe = preset_over(old, name, self.export.facts, self.planner)
        self.document.start_from(f"Preset {name}", name, recipe)

    def await_importance(self, path: Path | None) -> None:
        """A matrix is being read for the recipe; None: none is any more."""
        if path != self.awaited:
            self.awaited = path
            self.awaited_changed.emit()

    def take_importance(self, facts: ImportanceFacts) -> None:
        """What the recipe's matrix says is known now: the file tells of it, so its size follows."""
        self.importance = facts
        if self.planner is not None and self.planner.importance != facts:
            self.planner.importance = facts
            self._ask_plan()

    def set_importance(self, imatrix: str | None) -> bool | None:
        """Take an importance matrix into the recipe, or out of it, as one undoable step.

        A preset that mixes other formats with one than without is laid anew where nothing was edited in it:
        True. False: it would be, but it was edited. None: it mixes the same.
        """
        version = self.document.version
        assert version is not None, "a model is open"
        assert self.export is not None, "a model is open"
        assert self.planner is not None, "a model is open"
        old, facts = version.recipe, self.export.facts
        new = old.model_copy(update={"imatrix": imatrix})
        text = f"Importance matrix {Path(imatrix).name}" if imatrix else "No importance matrix"
        if version.name not in PRESETS or (old.imatrix is None) == (imatrix is None):
            self.document.change(text, new)
            return None
        before, after = (preset_over(recipe, version.name, facts, self.planner) for recipe in (old, new))
        same = (before.default, before.rules) == (after.default, after.rules)
        if before != old:
            self.document.change(text, new)
            return None if same else False
        self.document.start_from(text, version.name, after, version.path)
        return None if same else True

    def finish(self) -> None:
        """Before the program ends."""
        self.document.close()
        self._background.finish()

    def _ask_plan(self) -> None:
        version = self.document.version
        if version is not None and self._forecast is not None:
            self._background.ask(self._forecast, version)

    def _take_outlook(self, outlook: Outlook) -> None:
        self.outlook = outlook
        self.plan_changed.emit()

    def _take_back(self, reason: str) -> None:
        """The recipe cannot be planned, so what led to it is undone."""
        self.document.undo_stack.undo()
        self.recipe_refused.emit(reason)

    # --------------------------------------------------------------------------- the selection

    def select(self, keys: tuple[str, ...]) -> None:
        """The rows that every view shows, by `Row.key`; the last one is the current."""
        if keys != self.selection:
            self.selection = keys
            self.selection_changed.emit()

    @property
    def current(self) -> Row | None:
        """The row that was selected last."""
        key = self.selection[-1] if self.selection else None
        return next((row for row in self.rows if row.key == key), None)

    def mark_channel(self, channel: int | None) -> None:
        """An input channel that views of a matrix point out, whatever matrix is selected; None: none."""
        if channel != self.channel:
            self.channel = channel
            self.channel_changed.emit()


def _source_row(tensor: TensorSummary) -> Row:
    return Row(
        key=tensor.name,
        name=tensor.name,
        role=tensor.role,
        block=tensor.block,
        shape=tensor.shape,
        dtype=tensor.dtype,
        bytes=tensor.bytes,
        sources=(tensor.name,),
        index=None,
    )


def _rows(summary: ModelSummary, export: ExportSummary) -> list[Row]:
    """A row for each tensor of the output, then one for each source tensor that has no place in it."""
    left = {tensor.name: tensor for tensor in summary.tensors}
    rows = []
    for index, tensor in enumerate(export.tensors):
        sources = [left.pop(name) for name in tensor.sources if name in left]
        types = {source.dtype for source in sources}
        rows.append(
            Row(
                key=tensor.name,
                name=tensor.sources[0] if len(tensor.sources) == 1 else tensor.name,
                role=tensor.role,
                block=tensor.block,
                shape=tensor.shape,
                dtype=" ".join(sorted(types)) or "computed",
                bytes=sum(source.bytes for source in sources),
                sources=tensor.sources,
                index=index,
            )
        )
    return rows + [_source_row(tensor) for tensor in left.values()]
