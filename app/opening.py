"""A model being opened: its pages collected, and each list handed to the state when it is complete."""

from dataclasses import dataclass, field
from pathlib import Path

from app.state import State
from engine.api.events import ExportPlanned, ModelOpened, Page, TensorsPage
from engine.api.model import ModelSummary, TensorSummary
from engine.api.plan import ExportSummary, ExportTensor


@dataclass
class Opening:
    """What the answers to the request `id` brought so far. `shown`: the state is about the model already."""

    id: int
    path: Path
    state: State
    shown: bool
    over: bool = False
    """All that was wanted is there, or nothing is wanted any more."""
    _summary: ModelSummary | None = None
    _tensors: list[TensorSummary] = field(default_factory=list)
    _export: ExportSummary | None = None
    _places: list[ExportTensor] = field(default_factory=list)

    @property
    def _wanted(self) -> bool:
        """Whether the window still waits for it: what was shown of it may have been closed."""
        there = self.state.path == self.path and self.state.phase in ("opening", "headers")
        return there or not self.shown

    def take(self, event: Page) -> None:
        """Hands a list over when its last page is there."""
        if not self._wanted:
            self.over = True
        elif isinstance(event, ModelOpened):
            self._summary = event.summary
        elif isinstance(event, TensorsPage):
            self._tensors += event.tensors
            if event.last and self._summary is not None:
                self._show(self._summary.model_copy(update={"tensors": self._tensors}))
        elif isinstance(event, ExportPlanned):
            self._export = event.export
        else:
            self._places += event.tensors
            if event.last and self._export is not None:
                self.over = True
                self.state.take_export(self._export.model_copy(update={"tensors": self._places}))

    def _show(self, summary: ModelSummary) -> None:
        if not self.shown:
            self.state.opening(self.path)
            self.shown = True
        self.state.take_summary(summary)

    def give_up(self) -> bool:
        """It is no model. False: nobody waits for it any more."""
        wanted = self._wanted
        self.over = True
        if wanted and self.shown:
            self.state.close()
        return wanted

    def fail(self, sentence: str) -> bool:
        """Whether it is to be said that the model cannot be opened.

        One whose table stands stays open; there is only no output of it.
        """
        if self.shown and self._wanted and self.state.phase == "headers":
            self.over = True
            self.state.refuse_export(sentence)
            return False
        return self.give_up()
