"""What is asked of a job, what comes back, and how jobs are listed."""

from typing import Literal

from pydantic import BaseModel, Field

from engine.api.recipe import Recipe
from engine.api.report import Report

State = Literal["running", "done", "failed", "interrupted", "replaced", "unreadable"]
"""`replaced`: another job started over on its output. `unreadable`: its folder is damaged."""


class Stopped(Exception):  # noqa: N818 - the user's wish, not an error
    """The user stopped a job; `job` is its id, what is finished is kept."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job


class Measure(BaseModel):
    """Measure what was lost against the source, on at most `windows` windows of the file `text`."""

    text: str
    protocol: str = "llama.cpp"
    windows: int | None = Field(None, ge=1)


class QuantizeRequest(BaseModel):
    """Quantize `model` (a path) by `recipe` into `output`. `threads`: None takes all cores."""

    model: str
    output: str
    recipe: Recipe
    threads: int | None = Field(None, ge=1)
    overwrite: bool = False
    measure: Measure | None = None


class QuantizeResult(BaseModel):
    """What a finished quantize job says. Sizes in bytes; `peak_rss_bytes` is the highest sampled RssAnon.

    `source_bytes` and `source_bpw` are those of the model's text part before. `report` is there where the
    loss was to be measured and could be (else a warning says why).
    """

    job: str
    output: str
    bytes: int
    predicted_bytes: int
    bpw: float
    seconds: float
    peak_rss_bytes: int
    warnings: list[str]
    source_bytes: int
    source_bpw: float
    report: Report | None = None


class Check(BaseModel):
    """One thing looked at before a run. `passed` None: it can only be seen during the run.

    `warning`: it passed, but the message should be read.
    """

    name: str
    passed: bool | None
    message: str
    warning: bool = False


class JobSummary(BaseModel):
    """One line of `bitwright jobs`. `done` of `total` units of work are on disk; times are ISO 8601, UTC.

    `request` and `result` are there where the job's folder can be read and the job is finished.
    """

    id: str
    kind: str
    state: State
    output: str
    created: str
    done: int
    total: int
    message: str
    folder: str
    request: QuantizeRequest | None = None
    result: QuantizeResult | None = None
