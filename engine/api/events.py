"""What an engine tells the window: answers, and what becomes of its job. How: `engine.api.messages`."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.api.figures import Figure, HeatMap
from engine.api.importance import ImportanceColumns, ImportanceSummary
from engine.api.jobs import Check, JobResult, JobSummary, Saved
from engine.api.messages import Message
from engine.api.model import ModelSummary, TensorSummary
from engine.api.needs import Speeds
from engine.api.plan import ExportSummary, ExportTensor
from engine.api.statistics import WeightStatistics


class Hello(Message):
    """The first message. `devices`: what can compute ("cpu: 8 threads")."""

    event: Literal["hello"] = "hello"
    protocol: int
    version: str
    devices: list[str]
    pid: int


class Heartbeat(Message):
    """Every two seconds. `memory` and its `peak` so far: private bytes of the engine (RssAnon)."""

    event: Literal["heartbeat"] = "heartbeat"
    memory: int
    peak: int


class ModelOpened(Message):
    """Answer to `open`: the summary, its `tensors` empty; they follow in pages."""

    event: Literal["model"] = "model"
    id: int
    summary: ModelSummary


class TensorsPage(Message):
    event: Literal["tensors"] = "tensors"
    id: int
    tensors: list[TensorSummary]
    last: bool


class ExportPlanned(Message):
    """What a GGUF of the model would hold, its `tensors` empty; they follow in pages."""

    event: Literal["export"] = "export"
    id: int
    export: ExportSummary


class ExportPage(Message):
    event: Literal["export_tensors"] = "export_tensors"
    id: int
    tensors: list[ExportTensor]
    last: bool


class Checked(Message):
    event: Literal["checks"] = "checks"
    id: int
    checks: list[Check]


class JobsListed(Message):
    event: Literal["jobs"] = "jobs"
    id: int
    jobs: list[JobSummary]
    last: bool


class SpeedsMeasured(Message):
    event: Literal["speeds"] = "speeds"
    id: int
    speeds: Speeds


class ImportanceRead(Message):
    event: Literal["importance"] = "importance"
    id: int
    summary: ImportanceSummary


class ImportanceFound(Message):
    """What was to be opened is an importance matrix, by its content."""

    event: Literal["importance_found"] = "importance_found"
    id: int


class ColumnsRead(Message):
    event: Literal["columns"] = "columns"
    id: int
    columns: ImportanceColumns


class ImportanceSaved(Message):
    """Written, read back and verified. `warnings`: what the file cannot hold of the matrix."""

    event: Literal["importance_saved"] = "importance_saved"
    id: int
    path: str
    bytes: int
    warnings: list[str] = Field(default_factory=list)


class FigureRead(Message):
    """`path`: a .npy file, float32 [height, width], of a heat map; the reader deletes it. "" for others.

    `done` of `total` parts are in it; `last`: no better one follows.
    """

    event: Literal["figure"] = "figure"
    id: int
    figure: Annotated[Figure | HeatMap, Field(discriminator="kind")]
    path: str = ""
    done: int
    total: int
    last: bool


class StatisticsRead(Message):
    event: Literal["statistics"] = "statistics"
    id: int
    statistics: WeightStatistics


class JobStarted(Message):
    """The job has a folder now and can be resumed from here on. `log` grows while it runs.

    `output` is "" for a job that writes no file. `least_memory`: bytes that it takes in any case, estimated;
    0: not known.
    """

    event: Literal["job"] = "job"
    job: str
    folder: str
    output: str
    log: str
    least_memory: int = 0


class StageStarted(Message):
    event: Literal["stage"] = "stage"
    stage: str


class ProgressMade(Message):
    """Where a stage stands, at most ten a second. `rate`: units per second; None: unknown.

    `share` of the whole job that is done: it never falls, and is below 1 before the end. `eta`: seconds that
    are left of the whole job. Where stages were not foreseen, `share` is None and `eta` that of the stage.
    """

    event: Literal["progress"] = "progress"
    stage: str
    done: int
    total: int
    unit: str
    item: str
    rate: float | None = None
    eta: float | None = None
    share: float | None = None


class ProgressSaved(Message):
    """What is safely on disk by now: a job that dies here goes on from there."""

    event: Literal["saved"] = "saved"
    saved: Saved


class Metric(Message):
    """A figure that was measured. `unit` is empty for pure numbers."""

    event: Literal["metric"] = "metric"
    name: str
    value: float
    unit: str = ""


class Artifact(Message):
    """A file that is finished, verified and has its name."""

    event: Literal["artifact"] = "artifact"
    path: str


class Warned(Message):
    event: Literal["warning"] = "warning"
    message: str


class Failed(Message):
    """A request that failed (`id`), or the job (None), or a part of it.

    `code`: "user" (the sentence says what to mend), "changed" (what a job stands on is another now: it can
    only be started again), "memory" (there is too little), "busy", "protocol", or "defect" (ours: with a
    traceback).
    """

    event: Literal["error"] = "error"
    code: Literal["user", "changed", "memory", "busy", "protocol", "defect"]
    message: str
    hint: str = ""
    traceback: str = ""
    id: int | None = None


class Stopped(Message):
    """The job was stopped on request; it can be resumed. `job` is empty if it had not begun."""

    event: Literal["stopped"] = "stopped"
    job: str = ""


class Done(Message):
    event: Literal["done"] = "done"
    result: JobResult


Page = ModelOpened | TensorsPage | ExportPlanned | ExportPage
"""What brings a model that is opened."""

Answer = (
    Checked
    | JobsListed
    | SpeedsMeasured
    | ImportanceRead
    | ColumnsRead
    | ImportanceSaved
    | FigureRead
    | StatisticsRead
)
"""What answers a `Question`."""

Event = (
    Hello
    | Heartbeat
    | Page
    | ImportanceFound
    | Answer
    | JobStarted
    | StageStarted
    | ProgressMade
    | ProgressSaved
    | Metric
    | Artifact
    | Warned
    | Failed
    | Stopped
    | Done
)

_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: bytes) -> Event:
    """The event in one line. Raises `pydantic.ValidationError`."""
    return _EVENTS.validate_json(line)
