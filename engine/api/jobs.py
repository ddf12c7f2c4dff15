"""What is asked of a job, what comes back, and how jobs are listed."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from engine.api.activations import Ran
from engine.api.importance import Unseen
from engine.api.recipe import Recipe
from engine.api.report import Report

LEAST_MEMORY = 105_000_000
"""Bytes below which a limit of memory is refused: what the leanest job (from a GGUF file) takes at least.

Imports and encoders, loaded, and the smallest pieces. Others say what they need before they begin."""

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


class PresetStart(BaseModel):
    """The default and the first `rules` rules of a recipe are those of the preset `name` for its model."""

    name: str
    rules: int


class QuantizeRequest(BaseModel):
    """Quantize `model` (a path) by `recipe` into `output`.

    `preset`: what the recipe stands on, where that is known; it only serves to say the recipe in short.

    `make_folders`: the output's folder is made when the job begins, where it is not there. `threads`: None
    takes all cores. `memory_limit`: bytes of private memory that the engine may use; None:
    what the machine can give.
    """

    kind: Literal["quantize"] = "quantize"
    model: str
    output: str
    recipe: Recipe
    preset: PresetStart | None = None
    make_folders: bool = False
    threads: int | None = Field(None, ge=1)
    overwrite: bool = False
    measure: Measure | None = None
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class EvaluateRequest(BaseModel):
    """Measure `model`, against `reference` if there is one, on at most `windows` windows of the file `text`.

    Otherwise as in `QuantizeRequest`.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: str
    text: str
    reference: str | None = None
    protocol: str = "llama.cpp"
    windows: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class CalibrateRequest(BaseModel):
    """Gather the importance matrix of `model` on `texts` (files, folders; none: the sample text) in `output`.

    `windows` of `length` tokens at most, shared among the texts. `output_tensor`: of the output matrix, too.
    `merge`: matrices that are added. Otherwise as in `QuantizeRequest`.
    """

    kind: Literal["calibrate"] = "calibrate"
    model: str
    texts: list[str] = Field(default_factory=list)
    output: str
    windows: int | None = Field(None, ge=1)
    length: int = Field(512, ge=8)
    output_tensor: bool = False
    merge: list[str] = Field(default_factory=list)
    threads: int | None = Field(None, ge=1)
    overwrite: bool = False
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class ActivationsRequest(BaseModel):
    """Gather statistics of what flows through `model` on `texts` (files, folders; none: the sample text).

    At most `windows` of `length` tokens, chosen with `seed`; or `prompt` alone, as it is. `output`: the file
    to write; "": one in the user's cache, where what was asked before lies ready. Otherwise as in
    `QuantizeRequest`.
    """

    kind: Literal["activations"] = "activations"
    model: str
    texts: list[str] = Field(default_factory=list)
    prompt: str = ""
    output: str = ""
    windows: int = Field(128, ge=1)
    length: int = Field(512, ge=8)
    seed: int = Field(0, ge=0, lt=1 << 32)
    threads: int | None = Field(None, ge=1)
    overwrite: bool = False
    memory_limit: int | None = Field(None, ge=LEAST_MEMORY)


class QuantizeResult(BaseModel):
    """What a finished quantize job says. Sizes in bytes.

    `seconds` and `peak_private_bytes` (the highest sampled RssAnon: memory without the pages of files, which
    the system takes back when it needs them) are those of its last run; `resumed`: there was one before.

    `files`: all that were written; `output` is the first of them, which runtimes are given.

    `source_bytes` and `source_bpw` are those of the model's text part before. `report` is there where the
    loss was to be measured and could be (else a warning says why).
    """

    kind: Literal["quantize"] = "quantize"
    job: str
    output: str
    files: list[str] = Field(default_factory=list)
    bytes: int
    predicted_bytes: int
    bpw: float
    seconds: float
    resumed: bool = False
    peak_private_bytes: int
    warnings: list[str]
    source_bytes: int
    source_bpw: float
    report: Report | None = None


class EvaluateResult(BaseModel):
    """What a finished evaluate job says. `seconds`, `resumed`, `peak_private_bytes`: as above."""

    kind: Literal["evaluate"] = "evaluate"
    job: str
    report: Report
    seconds: float
    resumed: bool = False
    peak_private_bytes: int
    warnings: list[str]


class CalibrateResult(BaseModel):
    """What a finished calibrate job says: how many `tensors` the file knows, from how many tokens.

    `unseen`: experts that no token, or nothing but zeros, reached. `seconds`, `resumed`,
    `peak_private_bytes`: as above.
    """

    kind: Literal["calibrate"] = "calibrate"
    job: str
    output: str
    bytes: int
    tensors: int
    windows: int
    tokens: int
    unseen: list[Unseen]
    seconds: float
    resumed: bool = False
    peak_private_bytes: int
    warnings: list[str]


class ActivationsResult(BaseModel):
    """What a finished activations job says: the file `output`, of how many `layers`; `ran`: on what.

    `job` is "" where the file lay ready in the cache. `seconds`, `resumed`, `peak_private_bytes`: as above.
    """

    kind: Literal["activations"] = "activations"
    job: str
    output: str
    bytes: int
    layers: int
    ran: Ran
    seconds: float
    resumed: bool = False
    peak_private_bytes: int
    warnings: list[str]


WritingRequest = Annotated[
    QuantizeRequest | CalibrateRequest | ActivationsRequest, Field(discriminator="kind")
]
"""What is asked of a job that writes a file."""

JobRequest = Annotated[
    QuantizeRequest | EvaluateRequest | CalibrateRequest | ActivationsRequest, Field(discriminator="kind")
]
JobResult = Annotated[
    QuantizeResult | EvaluateResult | CalibrateResult | ActivationsResult, Field(discriminator="kind")
]


class Saved(BaseModel):
    """How much of a job is safely on disk: `done` of `total` `unit`s ("blocks", "blocks measured")."""

    done: int
    total: int
    unit: str

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"


class Check(BaseModel):
    """One thing looked at before a run. `passed` None: it can only be seen during the run.

    `warning`: it passed, but the message should be read.
    """

    name: str
    passed: bool | None
    message: str
    warning: bool = False


class JobSummary(BaseModel):
    """One line of `bitwright jobs`. Times are ISO 8601, UTC.

    `saved` is None where nothing is. `output` is "" for a job that writes no file. `request` and `result` are
    there where the job's folder can be read and the job is finished. `least_memory`: bytes that it takes in
    any case, estimated; 0: not known.
    """

    id: str
    kind: str
    state: State
    output: str
    created: str
    message: str
    folder: str
    saved: Saved | None = None
    least_memory: int = 0
    request: JobRequest | None = None
    result: JobResult | None = None
