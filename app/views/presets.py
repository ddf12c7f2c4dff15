"""Choosing a preset: a list by size under the toolbar's button, and commands of the palette."""

from collections.abc import Callable

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QWidget

from app.models.offers import Offer, OfferModel
from app.plain import as_tip
from app.preset_sizes import PresetSizes
from app.state import State
from app.theme import icon
from app.views.offers import OfferPopup
from engine.api.presets import (
    COPY,
    COPY_SUMMARY,
    IMPORTANCE_WANTED,
    PRESETS,
    preset_groups,
    preset_refusal,
)
from engine.api.units import size

WAITING = "…"
NOTE = "The size of the file with each preset: predicted, to the byte."


class PresetChooser(QObject):
    """`apply` is called with the name of what is chosen."""

    def __init__(self, state: State, apply: Callable[[str], None], parent: QWidget) -> None:
        super().__init__(parent)
        self._state, self._apply, self._window = state, apply, parent
        self._sizes = PresetSizes(state, self)
        self._sizes.changed.connect(self._show_size)
        self._shown: OfferPopup | None = None
        self.actions = {name: self._action(name) for names in preset_groups().values() for name in names}
        self._said: tuple[str, ...] = ()

    def open_below(self, button: QWidget) -> None:
        """The list, the present preset in sight."""
        groups = {
            heading: [self._offer(name) for name in names] for heading, names in preset_groups().items()
        }
        popup = OfferPopup("Presets", OfferModel(groups, marked=True), self._window, "888 MB", NOTE)
        popup.chosen.connect(self._apply)
        popup.destroyed.connect(lambda: self._forget(popup))
        self._shown = popup
        version = self._state.document.version
        present = version.name if version and version.name in self.actions else ""
        popup.open_at(button.mapToGlobal(button.rect().bottomLeft()), present)

    def refresh(self, reason: str) -> None:
        """Enable the commands that can be used; `reason` says why none can, or is empty."""
        export = self._state.export
        refusals = {
            name: reason or (preset_refusal(name, export.facts) if export else None) or ""
            for name in self.actions
        }
        if self._said == tuple(refusals.values()):
            return
        self._said = tuple(refusals.values())
        for name, action in self.actions.items():
            action.setEnabled(not refusals[name])
            action.setStatusTip(refusals[name] or f"{_summary(name)}.")
            action.setToolTip(as_tip(refusals[name] or _summary(name)))

    def _action(self, name: str) -> QAction:
        action = QAction(name, self)
        action.setProperty("submenu", "Preset")
        action.setProperty("beside", _summary(name))
        action.setIcon(icon("sliders-horizontal"))
        action.triggered.connect(lambda: self._apply(name))
        return action

    def _offer(self, name: str) -> Offer:
        export, version = self._state.export, self._state.document.version
        assert export is not None, "the button needs a plan"
        assert version is not None, "the button needs a plan"
        known = self._sizes.ask().get(name)
        refusal = preset_refusal(name, export.facts) or (known if isinstance(known, str) else "")
        figure, tip = WAITING, ""
        if isinstance(known, int):
            figure, tip = size(known, column=True), f"{known:,} bytes: predicted, exact"
        wants = name in IMPORTANCE_WANTED and version.recipe.imatrix is None
        return Offer(
            name=name,
            text=name,
            figure="" if refusal else figure,
            summary=_summary(name),
            possible=not refusal,
            present=version.name == name,
            reason=refusal,
            caution="wants an importance matrix" if wants else "",
            tip=tip,
        )

    def _show_size(self, name: str) -> None:
        if self._shown is not None and self._state.export is not None:
            self._shown.model.replace(self._offer(name))

    def _forget(self, popup: OfferPopup) -> None:
        """A closed list goes when the next one may be there already."""
        if self._shown is popup:
            self._shown = None


def _summary(name: str) -> str:
    return COPY_SUMMARY if name == COPY else PRESETS[name].summary
