"""What the window asks of an engine. How it is said: `engine.api.messages`."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.api.jobs import LEAST_MEMORY, ActivationsRequest, CalibrateRequest, QuantizeRequest
from engine.api.messages import Message
from engine.api.recipe import Recipe
from engine.api.views import View


class OpenModel(Message):
    """Read the headers of `model`. Answers: `model`, pages of `tensors`, `export`, its pages; or `error`.

    `importance_found` alone where it is an importance matrix.
    """

    request: Literal["open"] = "open"
    id: int
    model: str


class CheckRun(Message):
    """Check what can be checked before a run. Answer: `checks`."""

    request: Literal["check"] = "check"
    id: int
    quantize: QuantizeRequest


class CheckCalibrate(Message):
    """The same for a calibration. Answer: `checks`. A newer one replaces it."""

    request: Literal["check_calibrate"] = "check_calibrate"
    id: int
    calibrate: CalibrateRequest


class ListJobs(Message):
    """All jobs on disk. Answer: pages of `jobs`."""

    request: Literal["jobs"] = "jobs"
    id: int


class RemoveJobs(Message):
    """Delete the folders of these jobs, and what the unfinished ones have written. Answer: pages of `jobs`.

    A job that is running stays.
    """

    request: Literal["remove"] = "remove"
    id: int
    jobs: list[str]


class MeasureSpeeds(Message):
    """How fast this machine is at what runs do. Answer: `speeds`."""

    request: Literal["speeds"] = "speeds"
    id: int


class ReadImportance(Message):
    """What importance matrices say, merged; held against `model` if there is one. Answer: `importance`."""

    request: Literal["importance"] = "importance"
    id: int
    files: list[str] = Field(min_length=1)
    model: str | None = None


class ReadImportanceColumns(Message):
    """How the importance is spread over one tensor's columns. Answer: `columns`. A newer one replaces it."""

    request: Literal["importance_columns"] = "importance_columns"
    id: int
    files: list[str] = Field(min_length=1)
    tensor: str


class SaveImportance(Message):
    """Write matrices, merged, to a file: GGUF, or .dat by its name. Answer: `importance_saved`.

    Never over one of `files`, nor over a file that holds tensors of `model`.
    """

    request: Literal["save_importance"] = "save_importance"
    id: int
    files: list[str] = Field(min_length=1)
    model: str | None = None
    output: str
    overwrite: bool = False


class ReadFigure(Message):
    """A figure of `model`. Answers: `figure`, until one is the last. A newer one of that `place` replaces it.

    `place` is where it is shown: "histogram 2", "outliers".
    """

    request: Literal["figure"] = "figure"
    id: int
    model: str
    place: str
    view: View


class ReadStatistics(Message):
    """Statistics of one source tensor's weights. Answer: `statistics`. A newer one replaces it.

    With `recipe` what it makes of them, too; with `activations`, a file of statistics, what reaches them.
    """

    request: Literal["statistics"] = "statistics"
    id: int
    model: str
    tensor: str
    recipe: Recipe | None = None
    activations: str | None = None


class StartQuantize(Message):
    request: Literal["quantize"] = "quantize"
    quantize: QuantizeRequest


class StartCalibrate(Message):
    request: Literal["calibrate"] = "calibrate"
    calibrate: CalibrateRequest


class StartActivations(Message):
    request: Literal["activations"] = "activations"
    activations: ActivationsRequest


class ResumeJob(Message):
    """Go on with a job; `restart`: begin it again from nothing. A `memory_limit` replaces the job's own."""

    request: Literal["resume"] = "resume"
    job: str
    restart: bool = False
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class Cancel(Message):
    """Stop the job; what is finished is kept. Ends with `stopped`."""

    request: Literal["cancel"] = "cancel"


Question = (
    CheckRun
    | CheckCalibrate
    | ListJobs
    | RemoveJobs
    | MeasureSpeeds
    | ReadImportance
    | ReadImportanceColumns
    | SaveImportance
    | ReadFigure
    | ReadStatistics
)
"""What one `Answer` (or pages of one) answers; opening a model has answers of its own."""

Inspection = OpenModel | Question
"""What an engine without a job answers."""

NewJob = StartQuantize | StartCalibrate | StartActivations
JobStart = NewJob | ResumeJob
"""What gives an engine its one job."""

Request = Inspection | JobStart | Cancel

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="request")])


def read_request(line: bytes) -> Request:
    """The request in one line. Raises `pydantic.ValidationError`."""
    return _REQUESTS.validate_json(line)
