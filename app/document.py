"""The recipe being worked on: its undo stack, its file, and the copy that survives a crash."""

import hashlib
import os
from pathlib import Path

from platformdirs import user_state_path
from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QUndoStack

from app.commands.recipe import ChangeRecipe, Version
from engine.api.errors import OutputError, RecipeError
from engine.api.recipe import Recipe, load_recipe

AUTOSAVE_DELAY_MS = 400


class RecipeDocument(QObject):
    """`version` is None while no model is open. Each `change` and `replace` is one step of `undo_stack`."""

    changed = Signal()
    """The recipe is another one now, by an edit, undo, redo or another document."""

    saved = Signal()
    autosave_failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.undo_stack = QUndoStack(self)
        self.version: Version | None = None
        self.path: Path | None = None
        self._model: Path | None = None
        self._timer = QTimer(self, singleShot=True, interval=AUTOSAVE_DELAY_MS)
        self._timer.timeout.connect(self._autosave)
        self.undo_stack.indexChanged.connect(self._autosave_soon)

    @property
    def recipe(self) -> Recipe | None:
        return self.version.recipe if self.version else None

    @property
    def dirty(self) -> bool:
        """Whether there are changes that no file of the user's holds."""
        return self.recipe is not None and not self.undo_stack.isClean()

    def begin(self, model: Path, name: str, recipe: Recipe) -> None:
        """Start on `recipe` for `model`, with nothing to undo. `name` says where it comes from."""
        self.close()
        self._model = model
        self._apply(Version(recipe, name, recipe))

    def close(self) -> None:
        """Let go of the recipe; what is not saved stays in the autosaved copy."""
        if self._timer.isActive():
            self._autosave()
        self.version, self.path, self._model = None, None, None
        self.undo_stack.clear()
        self.changed.emit()

    def change(self, text: str, recipe: Recipe) -> None:
        """One undoable step; nothing happens where the recipe stays the same. `text` names the step."""
        if self.version is not None:
            self._push(text, Version(recipe, self.version.name, self.version.base))

    def replace(self, text: str, name: str, recipe: Recipe) -> None:
        """One undoable step to a recipe that comes from elsewhere: the preset or file `name`."""
        self._push(text, Version(recipe, name, recipe))

    def _push(self, text: str, after: Version) -> None:
        if self.version is not None and after != self.version:
            self.undo_stack.push(ChangeRecipe(text, self.version, after, self._apply))

    def _apply(self, version: Version) -> None:
        self.version = version
        self.changed.emit()

    def load(self, path: Path) -> None:
        """Take the recipe of a file, as an undoable step. Raises `RecipeError`."""
        self.replace(f"Open {path.name}", path.name, load_recipe(path))
        self.path = path
        self.undo_stack.setClean()
        self.discard_autosaved()
        self.saved.emit()

    def save(self, path: Path) -> None:
        """Write the recipe to `path`, whole or not at all. Raises `OutputError`."""
        assert self.recipe is not None, "nothing to save"
        _replace(path, self.recipe.to_json())
        self.path = path
        self.undo_stack.setClean()
        self.discard_autosaved()
        self.saved.emit()

    # ------------------------------------------------------------------ the copy that survives

    def autosaved(self) -> Recipe | None:
        """The unsaved recipe that an earlier run left for this model, if it differs from the present one."""
        path = self._autosave_path()
        if path is None or not path.exists():
            return None
        try:
            left = load_recipe(path)
        except RecipeError:
            return None
        return left if left != self.recipe else None

    def discard_autosaved(self) -> None:
        self._timer.stop()
        path = self._autosave_path()
        if path is not None:
            path.unlink(missing_ok=True)

    def _autosave_soon(self) -> None:
        if self.version is not None:
            self._timer.start()

    def _autosave(self) -> None:
        self._timer.stop()
        path = self._autosave_path()
        if path is None or self.recipe is None:
            return
        if not self.dirty:
            path.unlink(missing_ok=True)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, self.recipe.to_json())
        except (OSError, OutputError) as error:
            self.autosave_failed.emit(f"The unsaved recipe could not be kept safe: {error}")

    def _autosave_path(self) -> Path | None:
        if self._model is None:
            return None
        name = hashlib.sha256(os.fsencode(self._model.absolute())).hexdigest()[:24]
        return user_state_path("bitwright") / "recipes" / f"{name}.json"


def _replace(path: Path, content: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: the recipe cannot be written: {error.strerror}.") from None
