"""What the window asks the engine about importance matrices."""

from collections.abc import Callable, Sequence
from pathlib import Path

from app.inspection import Inspection
from engine.api.events import Checked, ColumnsRead, Event, ImportanceRead, ImportanceSaved
from engine.api.importance import ImportanceColumns, ImportanceSummary
from engine.api.jobs import CalibrateRequest, Check
from engine.api.requests import CheckCalibrate, ReadImportance, ReadImportanceColumns, SaveImportance

Fail = Callable[[str], None]
"""Takes a sentence: why there is no answer."""


class ImportanceReader:
    """Asks an `Inspection`; answers come later."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    def check(self, request: CalibrateRequest, then: Callable[[list[Check]], None], failed: Fail) -> None:
        """Check what can be checked before a calibration. Older questions are dropped."""

        def take(event: Event) -> None:
            assert isinstance(event, Checked)
            then(event.checks)

        self._inspection.ask(
            lambda number: CheckCalibrate(id=number, calibrate=request), take, failed, newest=True
        )

    def summary(
        self,
        files: Sequence[Path],
        model: Path | None,
        then: Callable[[ImportanceSummary], None],
        failed: Fail,
        refused: Fail | None = None,
    ) -> None:
        """What the matrices of all `files` say, merged; held against `model` if there is one.

        `refused`: takes why they cannot be read or do not fit, where that differs from a failure to answer.
        """

        def take(event: Event) -> None:
            assert isinstance(event, ImportanceRead)
            then(event.summary)

        names, held = _names(files), str(model) if model else None
        self._inspection.ask(
            lambda number: ReadImportance(id=number, files=names, model=held), take, failed, refused
        )

    def columns(
        self, files: Sequence[Path], tensor: str, then: Callable[[ImportanceColumns], None], failed: Fail
    ) -> None:
        """How the importance is spread over a tensor's columns. Older questions are dropped."""

        def take(event: Event) -> None:
            assert isinstance(event, ColumnsRead)
            then(event.columns)

        names = _names(files)
        self._inspection.ask(
            lambda number: ReadImportanceColumns(id=number, files=names, tensor=tensor),
            take,
            failed,
            newest=True,
        )

    def save(
        self,
        files: Sequence[Path],
        output: Path,
        model: Path | None,
        then: Callable[[list[str]], None],
        failed: Fail,
    ) -> None:
        """Write the matrices, merged, to `output`, also over a file: the dialog has asked about that.

        Never over one of `files` or of `model`. `then` takes sentences about what the file cannot hold.
        """

        def take(event: Event) -> None:
            assert isinstance(event, ImportanceSaved)
            then(event.warnings)

        names, spared = _names(files), str(model) if model else None
        self._inspection.ask(
            lambda number: SaveImportance(
                id=number, files=names, model=spared, output=str(output), overwrite=True
            ),
            take,
            failed,
        )


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]
