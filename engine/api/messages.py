"""What the window and the engine say to each other: JSON, one message a line, UTF-8.

The window starts `python -m engine serve`, reads `hello`, and writes requests to its stdin. An engine that
inspects answers any number of requests, each with its `id`; an engine that was given a job
(`quantize`, `calibrate`, `resume`) takes nothing more but `cancel`, and ends behind `done`, `stopped` or
`error`.
Long lists come in pages (`tensors`, `export_tensors`), so that no single message takes the reader long;
arrays lie in `.npy` files that a message names.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from engine.api.importance import ImportanceColumns, ImportanceSummary
from engine.api.jobs import (
    LEAST_MEMORY,
    CalibrateRequest,
    Check,
    JobResult,
    JobSummary,
    QuantizeRequest,
    Saved,
)
from engine.api.model import ModelSummary, TensorSummary
from engine.api.needs import Speeds
from engine.api.plan import ExportSummary, ExportTensor

PROTOCOL = 3
"""Raised whenever a message changes its meaning; both sides must have the same."""

HEARTBEAT_SECONDS = 2.0
"""How often an engine says that it is alive, whatever it is doing."""

PAGE_NAMES = 2000
"""Tensor names in one page of a long list."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


# ------------------------------------------------------------------------------- window to engine


class OpenModel(_Message):
    """Read the headers of `model`. Answers: `model`, pages of `tensors`, `export`, its pages; or `error`.

    `importance_found` alone where it is an importance matrix.
    """

    request: Literal["open"] = "open"
    id: int
    model: str


class CheckRun(_Message):
    """Check what can be checked before a run. Answer: `checks`."""

    request: Literal["check"] = "check"
    id: int
    quantize: QuantizeRequest


class CheckCalibrate(_Message):
    """The same for a calibration. Answer: `checks`. A newer one replaces it."""

    request: Literal["check_calibrate"] = "check_calibrate"
    id: int
    calibrate: CalibrateRequest


class ListJobs(_Message):
    """All jobs on disk. Answer: pages of `jobs`."""

    request: Literal["jobs"] = "jobs"
    id: int


class RemoveJobs(_Message):
    """Delete the folders of these jobs, and what the unfinished ones have written. Answer: pages of `jobs`.

    A job that is running stays.
    """

    request: Literal["remove"] = "remove"
    id: int
    jobs: list[str]


class MeasureSpeeds(_Message):
    """How fast this machine is at what runs do. Answer: `speeds`."""

    request: Literal["speeds"] = "speeds"
    id: int


class ReadHistogram(_Message):
    """The distribution of one source tensor's weights. Answer: `histogram`. A newer one replaces it."""

    request: Literal["histogram"] = "histogram"
    id: int
    model: str
    tensor: str


class ReadImportance(_Message):
    """What importance matrices say, merged; held against `model` if there is one. Answer: `importance`."""

    request: Literal["importance"] = "importance"
    id: int
    files: list[str] = Field(min_length=1)
    model: str | None = None


class ReadImportanceColumns(_Message):
    """How the importance is spread over one tensor's columns. Answer: `columns`. A newer one replaces it."""

    request: Literal["importance_columns"] = "importance_columns"
    id: int
    files: list[str] = Field(min_length=1)
    tensor: str


class SaveImportance(_Message):
    """Write matrices, merged, to a file: GGUF, or .dat by its name. Answer: `importance_saved`."""

    request: Literal["save_importance"] = "save_importance"
    id: int
    files: list[str] = Field(min_length=1)
    output: str
    overwrite: bool = False


class StartQuantize(_Message):
    request: Literal["quantize"] = "quantize"
    quantize: QuantizeRequest


class StartCalibrate(_Message):
    request: Literal["calibrate"] = "calibrate"
    calibrate: CalibrateRequest


class ResumeJob(_Message):
    """Go on with a job; `restart`: begin it again from nothing. A `memory_limit` replaces the job's own."""

    request: Literal["resume"] = "resume"
    job: str
    restart: bool = False
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class Cancel(_Message):
    """Stop the job; what is finished is kept. Ends with `stopped`."""

    request: Literal["cancel"] = "cancel"


Request = (
    OpenModel
    | CheckRun
    | CheckCalibrate
    | ListJobs
    | RemoveJobs
    | MeasureSpeeds
    | ReadHistogram
    | ReadImportance
    | ReadImportanceColumns
    | SaveImportance
    | StartQuantize
    | StartCalibrate
    | ResumeJob
    | Cancel
)

# ------------------------------------------------------------------------------- engine to window


class Hello(_Message):
    """The first message. `devices`: what can compute ("cpu: 8 threads")."""

    event: Literal["hello"] = "hello"
    protocol: int
    version: str
    devices: list[str]
    pid: int


class Heartbeat(_Message):
    """Every two seconds. `memory` and its `peak` so far: private bytes of the engine (RssAnon)."""

    event: Literal["heartbeat"] = "heartbeat"
    memory: int
    peak: int


class ModelOpened(_Message):
    """Answer to `open`: the summary, its `tensors` empty; they follow in pages."""

    event: Literal["model"] = "model"
    id: int
    summary: ModelSummary


class TensorsPage(_Message):
    event: Literal["tensors"] = "tensors"
    id: int
    tensors: list[TensorSummary]
    last: bool


class ExportPlanned(_Message):
    """What a GGUF of the model would hold, its `tensors` empty; they follow in pages."""

    event: Literal["export"] = "export"
    id: int
    export: ExportSummary


class ExportPage(_Message):
    event: Literal["export_tensors"] = "export_tensors"
    id: int
    tensors: list[ExportTensor]
    last: bool


class Checked(_Message):
    event: Literal["checks"] = "checks"
    id: int
    checks: list[Check]


class JobsListed(_Message):
    event: Literal["jobs"] = "jobs"
    id: int
    jobs: list[JobSummary]
    last: bool


class SpeedsMeasured(_Message):
    event: Literal["speeds"] = "speeds"
    id: int
    speeds: Speeds


class HistogramRead(_Message):
    """`path`: a .npy file, float64 [2, bins]: lower edges, counts; bins are `width` wide. Reader deletes it.

    The figures are exact, over all `count` weights; `deviation` is the standard deviation.
    """

    event: Literal["histogram"] = "histogram"
    id: int
    tensor: str
    path: str
    width: float
    count: int
    minimum: float
    maximum: float
    mean: float
    deviation: float


class ImportanceRead(_Message):
    event: Literal["importance"] = "importance"
    id: int
    summary: ImportanceSummary


class ImportanceFound(_Message):
    """What was to be opened is an importance matrix, by its content."""

    event: Literal["importance_found"] = "importance_found"
    id: int


class ColumnsRead(_Message):
    event: Literal["columns"] = "columns"
    id: int
    columns: ImportanceColumns


class ImportanceSaved(_Message):
    """Written, read back and verified."""

    event: Literal["importance_saved"] = "importance_saved"
    id: int
    path: str
    bytes: int


class JobStarted(_Message):
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


class StageStarted(_Message):
    event: Literal["stage"] = "stage"
    stage: str


class ProgressMade(_Message):
    """Where a stage stands, at most ten a second. `rate`: units per second, `eta`: seconds; None: unknown."""

    event: Literal["progress"] = "progress"
    stage: str
    done: int
    total: int
    unit: str
    item: str
    rate: float | None = None
    eta: float | None = None


class ProgressSaved(_Message):
    """What is safely on disk by now: a job that dies here goes on from there."""

    event: Literal["saved"] = "saved"
    saved: Saved


class Metric(_Message):
    """A figure that was measured. `unit` is empty for pure numbers."""

    event: Literal["metric"] = "metric"
    name: str
    value: float
    unit: str = ""


class Artifact(_Message):
    """A file that is finished, verified and has its name."""

    event: Literal["artifact"] = "artifact"
    path: str


class Warned(_Message):
    event: Literal["warning"] = "warning"
    message: str


class Failed(_Message):
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


class Stopped(_Message):
    """The job was stopped on request; it can be resumed. `job` is empty if it had not begun."""

    event: Literal["stopped"] = "stopped"
    job: str = ""


class Done(_Message):
    event: Literal["done"] = "done"
    result: JobResult


Event = (
    Hello
    | Heartbeat
    | ModelOpened
    | TensorsPage
    | ExportPlanned
    | ExportPage
    | Checked
    | JobsListed
    | SpeedsMeasured
    | HistogramRead
    | ImportanceRead
    | ImportanceFound
    | ColumnsRead
    | ImportanceSaved
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

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="request")])
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_request(line: bytes) -> Request:
    """The request in one line. Raises `pydantic.ValidationError`."""
    return _REQUESTS.validate_json(line)


def read_event(line: bytes) -> Event:
    """The event in one line. Raises `pydantic.ValidationError`."""
    return _EVENTS.validate_json(line)


def write(message: Request | Event) -> bytes:
    """One line, its newline included."""
    return message.model_dump_json().encode() + b"\n"
