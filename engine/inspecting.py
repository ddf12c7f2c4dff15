"""Answers to what the window asks about models: headers, the output they would give, checks, figures."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from engine import imatrix
from engine.api.events import (
    Checked,
    ColumnsRead,
    Event,
    ExportPage,
    ExportPlanned,
    Failed,
    ImportanceFound,
    ImportanceRead,
    ImportanceSaved,
    JobsListed,
    ModelOpened,
    SpeedsMeasured,
    TensorsPage,
)
from engine.api.jobs import Check, JobSummary, QuantizeRequest
from engine.api.messages import PAGE_NAMES
from engine.api.requests import (
    CheckCalibrate,
    CheckRun,
    Inspection,
    ListJobs,
    MeasureSpeeds,
    OpenModel,
    ReadFigure,
    ReadImportance,
    ReadImportanceColumns,
    ReadStatistics,
    RemoveJobs,
    SaveImportance,
)
from engine.api.wording import for_window
from engine.calibration.importance_files import is_importance
from engine.calibration.statistics import sorted_columns
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import NotAModelError
from engine.checks import check, check_calibrate
from engine.estimate import speeds
from engine.handed_arrays import HandedArrays
from engine.jobs.cleaning import remove_jobs
from engine.jobs.folder import list_jobs
from engine.places import Places
from engine.summary import export_summary
from kernels.statistics import warm_up
from resources import SAMPLE_MODEL

Item = TypeVar("Item")


class Inspector:
    """Answers with `send`; keeps the last model open."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._model: tuple[str, Checkpoint] | None = None
        self._arrays = HandedArrays()
        self._places = Places(send, self._arrays, self._wait_until_can_plan)
        self._warming: threading.Thread | None = None
        self._can_plan = threading.Event()

    def answer(self, request: Inspection) -> None:
        """Raises what the engine's functions raise."""
        match request:
            case OpenModel():
                self._places.drop()
                self._open(request)
            case ReadFigure() | ReadStatistics():
                self._places.ask(request)
            case CheckRun():
                self._wait_until_warm()
                self._send(Checked(id=request.id, checks=_spoken(check(request.quantize))))
            case CheckCalibrate():
                self._wait_until_warm()
                self._send(Checked(id=request.id, checks=_spoken(check_calibrate(request.calibrate))))
            case ListJobs():
                self._list_jobs(request.id)
            case RemoveJobs():
                remove_jobs(request.jobs)
                self._list_jobs(request.id)
            case MeasureSpeeds():
                self.warm_up()
                threading.Thread(
                    target=self._measure_speeds, args=[request.id], name="speeds", daemon=True
                ).start()
            case ReadImportance():
                self._wait_until_warm()
                files = [Path(file) for file in request.files]
                found = imatrix.summary(imatrix.read_all(files), files, request.model)
                self._send(ImportanceRead(id=request.id, summary=found))
            case ReadImportanceColumns():
                read = imatrix.read_all([Path(file) for file in request.files])
                self._send(ColumnsRead(id=request.id, columns=sorted_columns(read, request.tensor)))
            case SaveImportance():
                self._save_importance(request)

    def warm_up(self) -> None:
        """Load what planning an output needs (transformers) while waiting: the first `open` is quick.

        Then what statistics need, and the speeds of this machine, which needs the encoders.
        """
        if self._warming is None:
            self._warming = threading.Thread(target=self._warm, name="warm-up", daemon=True)
            self._warming.start()

    def close(self) -> None:
        self._places.close()
        if self._model:
            self._model[1].close()
        self._arrays.close()

    def _warm(self) -> None:
        try:
            _plan_sample()
        finally:
            self._can_plan.set()
        warm_up()
        speeds()

    def _wait_until_warm(self) -> None:
        """Two threads must not import the same libraries: each could see the other's half-made modules."""
        if self._warming:
            self._warming.join()

    def _wait_until_can_plan(self) -> None:
        if self._warming:
            self._can_plan.wait()

    def _measure_speeds(self, request: int) -> None:
        """In a thread of its own: a model is opened meanwhile."""
        self._wait_until_warm()
        try:
            self._send(SpeedsMeasured(id=request, speeds=speeds()))
        except Exception as error:
            said = f"The speeds of this machine could not be measured ({type(error).__name__}: {error})."
            self._send(Failed(code="defect", message=said, id=request))

    def _list_jobs(self, request: int) -> None:
        for jobs, last in pages(list_jobs(), _weight):
            for job in jobs:
                job.message = for_window(job.message)
            self._send(JobsListed(id=request, jobs=jobs, last=last))

    def _open(self, request: OpenModel) -> None:
        try:
            checkpoint = self._opened(request.model, anew=True)
        except NotAModelError:
            if not is_importance(Path(request.model)):
                raise
            self._send(ImportanceFound(id=request.id))
            return
        summary = checkpoint.summary()
        self._send(ModelOpened(id=request.id, summary=summary.model_copy(update={"tensors": []})))
        for tensors, last in pages(summary.tensors, lambda tensor: 1):
            self._send(TensorsPage(id=request.id, tensors=tensors, last=last))
        self._wait_until_can_plan()
        export = export_summary(checkpoint)
        self._send(ExportPlanned(id=request.id, export=export.model_copy(update={"tensors": []})))
        for planned, last in pages(export.tensors, lambda tensor: 1 + len(tensor.sources)):
            self._send(ExportPage(id=request.id, tensors=planned, last=last))

    def _opened(self, path: str, *, anew: bool = False) -> Checkpoint:
        if self._model and self._model[0] == path and not anew:
            return self._model[1]
        if self._model:
            self._model[1].close()
            self._model = None
        checkpoint = open_checkpoint(path)
        self._model = (path, checkpoint)
        return checkpoint

    def _save_importance(self, request: SaveImportance) -> None:
        files = [Path(file) for file in request.files]
        spared = self._opened(request.model).files if request.model else []
        size, warnings = imatrix.save(files, Path(request.output), spared=spared, overwrite=request.overwrite)
        self._send(ImportanceSaved(id=request.id, path=request.output, bytes=size, warnings=warnings))


def _weight(job: JobSummary) -> int:
    """In tensor names, what a job costs to read: its texts and figures, and the rules of its recipe."""
    return 20 + (len(job.request.recipe.rules) if isinstance(job.request, QuantizeRequest) else 0)


def pages(items: list[Item], names: Callable[[Item], int]) -> Iterator[tuple[list[Item], bool]]:
    """`items` in pages of about `PAGE_NAMES` names, and whether a page is the last. None: an empty page."""
    page: list[Item] = []
    count = 0
    for item in items:
        if page and count + names(item) > PAGE_NAMES:
            yield page, False
            page, count = [], 0
        page.append(item)
        count += names(item)
    yield page, True


def _plan_sample() -> None:
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        export_summary(checkpoint)


def _spoken(checks: list[Check]) -> list[Check]:
    return [check.model_copy(update={"message": for_window(check.message)}) for check in checks]
