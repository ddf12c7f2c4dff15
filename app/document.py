"""The recipe being worked on: its undo stack, its file, and the copy that survives a crash."""

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from platformdirs import user_state_path
from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QUndoStack

from app.commands.recipe import ChangeRecipe, Version
from engine.api.errors import OutputError, RecipeError
from engine.api.recipe import Recipe, load_recipe

AUTOSAVE_DELAY_MS = 400


class RecipeDocument(QObject):
    """`version` is None while no model is open. A `change` or `start_from` is one step of `undo_stack`."""

    changed = Signal()
    """The recipe is another one now, by an edit, undo, redo or another document."""

    saved = Signal()
    autosave_failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.undo_stack = QUndoStack(self)
        self.version: Version | None = None
        self._model: Path | None = None
        self._timer = QTimer(self, singleShot=True, interval=AUTOSAVE_DELAY_MS)
        self._timer.timeout.connect(self._autosave)
        self.undo_stack.indexChanged.connect(self._autosave_soon)

    @property
    def recipe(self) -> Recipe | None:
        return self.version.recipe if self.version else None

    @property
    def path(self) -> Path | None:
        """The file that saving writes to."""
        return self.version.path if self.version else None

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
        self.version, self._model = None, None
        self.undo_stack.clear()
        self.changed.emit()

    def change(self, text: str, recipe: Recipe) -> None:
        """One undoable step; nothing happens where the recipe stays the same. `text` names the step."""
        if self.version is not None:
            self._push(text, replace(self.version, recipe=recipe))

    def start_from(self, text: str, name: str, recipe: Recipe, path: Path | None = None) -> None:
        """One undoable step to a recipe that comes from elsewhere: the preset or file `name`."""
        self._push(text, Version(recipe, name, recipe, path))

    def _push(self, text: str, after: Version) -> None:
        if self.version is not None and after != self.version:
            self.undo_stack.push(ChangeRecipe(text, self.version, after, self._apply))

    def _apply(self, version: Version) -> None:
        self.version = version
        self.changed.emit()

    def load(self, path: Path) -> None:
        """Take the recipe of a file, as an undoable step. Raises `RecipeError`."""
        self.start_from(f"Open {path.name}", path.name, load_recipe(path), path)
        self.undo_stack.setClean()
        self.discard_autosaved()
        self.saved.emit()

    def save(self, path: Path) -> None:
        """Write the recipe to `path`, whole or not at all. Raises `OutputError`."""
        assert self.version is not None, "nothing to save"
        replace_file(path, self.version.recipe.to_json())
        self.version = replace(self.version, path=path)
        self.undo_stack.setClean()
        self.discard_autosaved()
        self.saved.emit()

    # ------------------------------------------------------------------ the copy that survives

    def autosaved(self) -> Recipe | None:
        """The unsaved recipe that an earlier run left for this model, if it differs from the present one."""
        path = self._autosave_path()
        for copy in () if path is None else (path, _offered(path)):
            if copy.is_file():
                with suppress(RecipeError):
                    left = load_recipe(copy)
                    return left if left != self.recipe else None
        return None

    def set_autosaved_aside(self) -> None:
        """Before the user is asked about the copy: what he does meanwhile must not write over it."""
        path = self._autosave_path()
        if path is not None and path.is_file():
            path.replace(_offered(path))

    def discard_autosaved(self) -> None:
        self._timer.stop()
        path = self._autosave_path()
        if path is not None:
            path.unlink(missing_ok=True)
            _offered(path).unlink(missing_ok=True)

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
            replace_file(path, self.recipe.to_json())
        except (OSError, OutputError) as error:
            self.autosave_failed.emit(f"The unsaved recipe could not be kept safe: {error}")

    def _autosave_path(self) -> Path | None:
        if self._model is None:
            return None
        name = hashlib.sha256(os.fsencode(self._model.absolute())).hexdigest()[:24]
        return user_state_path("bitwright") / "recipes" / f"{name}.json"


def _offered(path: Path) -> Path:
    """Where a copy lies about which the user has been asked."""
    return path.with_suffix(".offered.json")


def replace_file(path: Path, content: str) -> None:
    """Write a recipe to `path`, whole or not at all. Raises `OutputError`."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: the recipe cannot be written: {error.strerror}.") from None
