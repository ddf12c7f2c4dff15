"""One job as the window knows it: from its engine here, or from what disk says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.ending import Ending, Remedy
from engine.api.events import ProgressMade
from engine.api.jobs import (
    ActivationsRequest,
    CalibrateRequest,
    JobRequest,
    JobResult,
    JobSummary,
    QuantizeRequest,
    Saved,
)
from engine.api.requests import JobStart

State = Literal[
    "waiting",
    "kept",
    "starting",
    "running",
    "stopping",
    "removing",
    "done",
    "failed",
    "interrupted",
    "replaced",
    "unreadable",
]
"""`waiting`: in line behind the job that runs. `kept`: waited when an earlier run of the program ended."""

WRITING = QuantizeRequest | CalibrateRequest | ActivationsRequest
"""The kinds of jobs that are begun here."""

ACTIVE: tuple[State, ...] = ("starting", "running", "stopping")
UNFINISHED: tuple[State, ...] = ("failed", "interrupted")
FINISHED: tuple[State, ...] = ("done", "replaced", "unreadable")
ELSEWHERE = "running in another process"


@dataclass(eq=False)
class JobRecord:
    """One job. `number` is its own in this session; `job`, its id on disk, is "" before it has a folder.

    `model`, `output`, `folder` and `log` are paths, "" where not known (yet). `progress` is that of an engine
    here, `saved` what is safely on disk. `message`: why it ended, one sentence; `trace`: what to report of
    it; `remedy`: what may help. `created`: ISO 8601, UTC. `stopped`: the user has stopped it. `peak` (bytes,
    0 where unknown) and `memory_limit` are those of its last run here.

    `pending` is what its engine is to be asked for and has not begun. `told` is what disk said last;
    `touched`: when the board did something with it last, in the board's own count.
    """

    number: int
    job: str = ""
    title: str = ""
    model: str = ""
    output: str = ""
    folder: str = ""
    log: str = ""
    state: State = "starting"
    progress: ProgressMade | None = None
    saved: Saved | None = None
    message: str = ""
    trace: str = ""
    remedy: Remedy = ""
    warnings: list[str] = field(default_factory=list)
    result: JobResult | None = None
    request: JobRequest | None = None
    created: str = ""
    stopped: bool = False
    peak: int = 0
    least_memory: int = 0
    memory_limit: int | None = None
    pending: JobStart | None = None
    told: tuple[object, ...] | None = None
    touched: int = 0

    @property
    def resumable(self) -> bool:
        """Whether it can go on from what is saved."""
        return bool(self.job) and self.state in UNFINISHED and self.remedy != "start again"

    @property
    def restartable(self) -> bool:
        """Whether it can begin anew."""
        return self.state in UNFINISHED and (bool(self.job) or isinstance(self.request, WRITING))

    @property
    def removable(self) -> bool:
        return self.state in (*UNFINISHED, *FINISHED, "kept")

    def begin(self) -> None:
        """Forget how the last run ended: an engine works on it now."""
        self.state = "starting"
        self.progress = self.told = None
        self.message = self.trace = self.remedy = ""
        self.warnings, self.result, self.stopped, self.peak = [], None, False, 0

    def end(self, ending: Ending) -> None:
        """Take how its engine ended. "interrupted": broken off, goes on from there; "failed": at a fault."""
        self.stopped = ending.how == "stopped"
        self.peak, self.remedy = ending.peak, ending.remedy
        if ending.how == "done":
            self.state, self.message, self.trace = "done", "", ""
            return
        broken_off = self.job and ending.how != "failed"
        self.state = "interrupted" if broken_off else "failed"
        self.message, self.trace = ending.sentence, ending.trace

    def take_request(self, request: JobRequest) -> None:
        self.request = request
        self.model, self.memory_limit = request.model, request.memory_limit
        if isinstance(request, QuantizeRequest):
            self.output = request.output
            self.title = f"quantize {_name(request.model)} → {_name(request.output)}"
        elif isinstance(request, CalibrateRequest):
            self.output = request.output
            self.title = f"calibrate {_name(request.model)} → {_name(request.output)}"
        elif isinstance(request, ActivationsRequest):
            self.output = request.output
            on = "a prompt" if request.prompt else ", ".join(map(_name, request.texts)) or "the sample text"
            self.title = f"activations of {_name(request.model)} on {on}"
        else:
            against = f" against {_name(request.reference)}" if request.reference else ""
            self.title = f"evaluate {_name(request.model)}{against}"

    def take_summary(self, summary: JobSummary) -> bool:
        """What disk says of a job without an engine here; whether that is new.

        Of how it ended here its engine has told more.
        """
        told = (summary.state, summary.message, str(summary.saved), summary.result is None, summary.output)
        if told == self.told:
            return False
        ended_here = self.told is None and self.state in UNFINISHED
        if not (ended_here and summary.state in UNFINISHED):
            self.state = summary.state
            self.message = ELSEWHERE if summary.state == "running" else summary.message
            self.trace = self.remedy = ""
        self.told = told
        if summary.request is not None and self.request is None:
            self.take_request(summary.request)
        elif not self.title:
            self.title = f"{summary.kind} → {_name(summary.output)}" if summary.output else summary.id
        self.job, self.saved, self.least_memory = summary.id, summary.saved, summary.least_memory
        self.output, self.folder = summary.output, summary.folder
        self.log = str(Path(summary.folder) / "engine.log") if summary.folder else ""
        self.created = self.created or summary.created
        if summary.result is not None:
            self.result, self.warnings = summary.result, list(summary.result.warnings)
        return True


def _name(path: str) -> str:
    return Path(path).absolute().name
