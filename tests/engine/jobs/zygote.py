"""A process that has imported everything, and forks a child for each job that is to die.

Starting Python and importing takes seconds, a fork milliseconds. No kernel is launched before the fork:
Numba's threads would not come along. `Zygote` is the test's side; `python -m tests.engine.jobs.zygote` the
process, which takes one order a line on stdin and answers with the child's fate.
"""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.api.errors import UserError
from engine.api.events import ProgressSaved
from engine.api.jobs import EvaluateRequest, QuantizeRequest, Saved
from engine.api.progress import Progress
from engine.api.recipe import Choice, Recipe
from engine.checkpoint import open_checkpoint
from engine.preparation import prepare
from tests.engine.jobs.calls import Calls
from tests.engine.jobs.power import Disk

ROOT = Path(__file__).parents[3]


@dataclass
class Order:
    """What a child is to do: `request` (as JSON), or go on with `job`, or `restart` it.

    Below the folders `watched` its moments count.

    At the moment `at` it kills itself; `power`: and the disk loses power, to what was synced ("synced"), or
    to a state drawn with this seed. `after`: it is killed from outside after so many seconds.

    Or it is `python -m engine` with these `arguments`; `input` waits on its stdin, which does not end.
    `before` is Python that is executed first, in either case.
    """

    state: str
    watched: list[str]
    request: str = ""
    job: str = ""
    restart: bool = False
    at: int | None = None
    power: str = ""
    after: float | None = None
    arguments: list[str] = field(default_factory=list)
    input: str = ""
    before: str = ""


@dataclass
class Fate:
    """How a child ended: its exit code, or minus a signal's number.

    `moments`: those it had come by, each by its name. `saved`: what it had told to be saved, last.
    `out` and `noise`: what went to stdout and to stderr.
    """

    code: int
    moments: list[str]
    saved: Saved | None
    error: str
    result: dict
    out: str
    noise: str


class Zygote:
    """Starts the process; `run` has a child born and waits for its death."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "tests.engine.jobs.zygote", str(model)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, order: Order) -> Fate:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(vars(order)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        saved = answer.pop("saved")
        return Fate(saved=Saved(**saved) if saved else None, **answer)

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


IMPORTED = (
    "engine.cli",
    "engine.evaluate",
    "engine.methods",
    "engine.quantize",
    "engine.resume",
    "engine.server",
    "kernels.cpu",
    "transformers.models.llama.modeling_llama",
)
"""What children need, beside what preparing imports."""


def serve(model: Path) -> None:
    for name in IMPORTED:
        import_module(name)
    with open_checkpoint(model) as checkpoint:
        prepare(checkpoint, Recipe(default=Choice(format="F16")))
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in orders:
        order = Order(**json.loads(line))
        answers.write(json.dumps(_fate(order)) + "\n")
        answers.flush()


def hasten(change: Callable[[Any, str, object], None]) -> None:
    """Small batches of windows, and hidden states saved behind every one of them, not every second."""
    from engine import states, streaming

    change(streaming, "BATCH_TOKENS", 256)
    change(states, "SAVING_SECONDS", 0.0)
    change(states, "SAVING_SHARE", float("inf"))


def _fate(order: Order) -> dict[str, Any]:
    hears, says = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as noise:
        child = os.fork()
        if child == 0:
            os.close(hears)
            os.dup2(out.fileno(), 1)
            os.dup2(noise.fileno(), 2)
            os.environ["XDG_STATE_HOME"] = order.state
            hasten(setattr)
            exec(order.before, {})
            os._exit(_knock(order) if order.arguments else _live(order, says))
        os.close(says)
        if order.after is not None:
            killer = threading.Timer(order.after, os.kill, [child, signal.SIGKILL])
            killer.start()
        with os.fdopen(hears) as words:
            said = [json.loads(line) for line in words if line.endswith("\n")]
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        if order.after is not None:  # before its number may be another's
            killer.cancel()
            killer.join()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        noise.seek(0)
        last = {key: value for words in said for key, value in words.items()}
        return {
            "code": code,
            "moments": [words["moment"] for words in said if "moment" in words],
            "saved": last.get("saved"),
            "error": last.get("error", ""),
            "result": last.get("result", {}),
            "out": out.read().decode(),
            "noise": noise.read().decode(),
        }


def _knock(order: Order) -> int:
    """The child's life as `python -m engine`."""
    hears, says = os.pipe()
    os.dup2(hears, 0)
    os.write(says, order.input.encode())
    sys.argv = ["bitwright", *order.arguments]
    try:
        runpy.run_module("engine", run_name="__main__")
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _live(order: Order, says: int) -> int:
    """The child's life, but for its death; the exit code."""
    write, passed = os.write, 0
    folders = [Path(folder) for folder in order.watched]
    disk = Disk(folders) if order.power else None

    def say(**words: object) -> None:
        write(says, json.dumps(words).encode() + b"\n")

    def strike(name: str, tear: Any = None) -> None:
        nonlocal passed
        say(moment=name)
        passed += 1
        if passed - 1 != order.at:
            return
        if tear:
            tear()
        calls.__exit__()
        if disk:
            disk.lose_power(None if order.power == "synced" else random.Random(int(order.power)))
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(event: Any) -> None:
        if isinstance(event, ProgressSaved):
            say(saved=event.saved.model_dump())

    def listen(event: Progress) -> None:
        strike(f"event {event.stage}")

    try:
        with Calls(folders, strike, disk.behind if disk else None) as calls:
            say(result=_work(order, listen, tell))
    except UserError as error:
        say(error=str(error))
        return 2
    except BaseException:
        say(error=traceback.format_exc())
        return 1
    return 0


def _work(order: Order, listen: Any, tell: Any) -> dict:
    from engine.resume import resume

    if order.job:
        return resume(order.job, listen, tell, restart=order.restart).model_dump(mode="json")
    request = json.loads(order.request)
    if request["kind"] == "quantize":
        from engine.quantize import quantize

        return quantize(QuantizeRequest.model_validate(request), listen, tell).model_dump(mode="json")
    from engine.evaluate import evaluate

    return evaluate(EvaluateRequest.model_validate(request), listen, tell).model_dump(mode="json")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
    os._exit(0)  # libraries take seconds to tidy up
