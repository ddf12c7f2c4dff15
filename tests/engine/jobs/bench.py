"""A place to kill jobs at: a model, a process that forks jobs on it, and what an undisturbed run gives."""

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.api.jobs import EvaluateRequest, Measure, QuantizeRequest
from engine.api.recipe import Choice, Recipe, Rule
from engine.api.report import Report
from engine.evaluate import evaluate
from engine.jobs.folder import Job, all_jobs, list_jobs
from engine.quantize import quantize
from engine.resume import resume
from tests.engine.jobs.zygote import Fate, Order, Zygote
from tests.tiny import TEXT, write_llama

RECIPE = Recipe(rules=[Rule(match="ffn", format="Q4_K")], default=Choice(format="F16"))
CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}

MEASURED = {"protocol": "gptq", "windows": 5}
"""Windows of 64 tokens, in batches of four and one (see `hasten`), by one thread: threads wait for each other
where the machine is busy.
"""


@dataclass(frozen=True)
class Run:
    """An undisturbed one: its file, its figures, the names of all its moments (see `calls.Calls`)."""

    whole: bytes
    figures: dict
    moments: list[str]

    def chosen(self, count: int, seed: int) -> list[int]:
        """`count` random moments, of as many kinds as there are: those of one kind take turns."""
        chance = random.Random(seed)
        kinds = defaultdict(list)
        for index, name in enumerate(self.moments):
            kinds[name].append(index)
        turns = [
            (turn, chance.random(), index)
            for kind in kinds.values()
            for turn, index in enumerate(chance.sample(kind, len(kind)))
        ]
        return [index for _, _, index in sorted(turns)][:count]


class Bench:
    """What all places share. `quantized`: a file to be measured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text, self.quantized = folder, folder / "text", folder / "quantized.gguf"
        self.text.write_text("\n".join(TEXT) * 10)
        self.model = write_llama(folder / "model", config=CONFIG, shards=2)
        self.zygote = Zygote(self.model)
        place = Place(self, folder / "first", "quantize")
        fate = self.zygote.run(place.order(request=place.request()))  # on a fresh machine it compiles
        assert fate.code == 0, fate.error
        place.output.rename(self.quantized)
        self.run = cache(self._run)

    @property
    def whole(self) -> bytes:
        return self.run("quantize").whole

    def _run(self, kind: str) -> Run:
        place = Place(self, self.folder / f"undisturbed {kind}", kind)
        fate = self.zygote.run(place.order(request=place.request()))
        assert fate.code == 0, fate.error
        whole = place.output.read_bytes() if place.output.exists() else b""
        report = fate.result.get("report")
        return Run(whole, figures(Report(**report) if report else None), fate.moments)


class Place:
    """A state folder and an output folder for one job, of one kind.

    Kinds: "quantize", "quantize and measure", "evaluate".
    """

    def __init__(self, bench: Bench, folder: Path, kind: str) -> None:
        self.bench, self.kind, self.model = bench, kind, bench.model
        self.state, self.output = folder / "state", folder / "out" / "o.gguf"
        self.state.mkdir(parents=True)
        self.output.parent.mkdir()

    def asked(self, **changes: object) -> QuantizeRequest:
        """What asks for the file."""
        request = QuantizeRequest(model=str(self.model), output=str(self.output), recipe=RECIPE)
        if self.kind == "quantize and measure":
            request.measure, request.threads = Measure(text=str(self.bench.text), **MEASURED), 1
        return request.model_copy(update=changes)

    def asked_to_evaluate(self) -> EvaluateRequest:
        model, reference, text = self.bench.quantized, self.bench.model, self.bench.text
        return EvaluateRequest(
            model=str(model), reference=str(reference), text=str(text), threads=1, **MEASURED
        )

    def request(self) -> str:
        asked = self.asked_to_evaluate() if self.kind == "evaluate" else self.asked()
        return asked.model_dump_json()

    def job(self) -> Job:
        (job,) = all_jobs()
        return job

    def order(self, **what: object) -> Order:
        return Order(str(self.state), [str(self.state), str(self.output.parent)], **what)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Run the job in this process."""
        if self.kind == "evaluate":
            evaluate(self.asked_to_evaluate())
        else:
            quantize(self.asked())

    def go_on(self, fate: Fate) -> None:
        """What a user does after a death: resume the job, or begin it where there is none yet."""
        listed = list_jobs()
        if not listed:
            assert fate.saved is None
            self.begin()
            return
        (job,) = listed
        if job.state != "done":
            assert job.state == "interrupted"
            if fate.saved is not None:
                assert job.saved is not None
                assert job.saved.done >= fate.saved.done or job.saved.unit != fate.saved.unit, (
                    "nothing is lost"
                )
            resume(job.id)

    def check(self) -> None:
        """All is as after an undisturbed run."""
        run, made = self.bench.run(self.kind), list(self.output.parent.iterdir())
        assert made == ([self.output] if run.whole else [])
        assert not run.whole or self.output.read_bytes() == run.whole
        (job,) = list_jobs()
        assert job.state == "done"
        assert job.result is not None
        assert figures(job.result.report) == run.figures
        assert not (Path(job.folder) / "work").exists()


def figures(report: Report | None) -> dict:
    """A report's figures, but for the time they took and where the files lay."""
    return report.model_dump(exclude={"seconds", "model", "text", "notes"}) if report else {}
