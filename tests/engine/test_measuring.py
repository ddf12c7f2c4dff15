"""A job that also measures what was lost, behind the file it has written."""

from pathlib import Path

import pytest

import engine.methods
from engine import states
from engine.api.errors import EvaluationError
from engine.api.events import Artifact, JobStarted, Metric, Warned
from engine.api.jobs import LEAST_MEMORY, Measure, QuantizeRequest, QuantizeResult, Stopped
from engine.api.progress import Progress
from engine.jobs.folder import list_jobs
from engine.quantize import quantize
from engine.resume import resume
from tests.engine.test_quantize import WIDE, request_for
from tests.tiny import llama_config, llama_tensors, write_llama


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("wide") / "model", config=WIDE, shards=2)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text("The harbour was quiet that morning, and 27 boats lay at the wall.\n" * 100)
    return path


def told(events: list, kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def test_measured_against_the_source(model, tmp_path, text):
    output = tmp_path / "o.gguf"
    events: list = []
    stages = []
    request = request_for(model, output, measure=Measure(text=str(text), windows=2), threads=2)
    result = quantize(request, lambda event: stages.append(event.stage), events.append)
    report = result.report
    assert report is not None
    assert (report.windows, report.model, report.reference) == (2, str(output), str(model))
    assert report.kl_mean is not None
    assert 0 < report.kl_mean < 1
    weights = sum(tensor.numel() for tensor in llama_tensors(llama_config(**WIDE)).values())
    assert (result.source_bytes, result.source_bpw) == (4 * weights, 32)
    assert {metric.name: metric.value for metric in told(events, Metric)}["kl_mean"] == report.kl_mean
    assert [artifact.path for artifact in told(events, Artifact)] == [str(output)]
    assert events.index(told(events, Artifact)[0]) < events.index(told(events, Metric)[0])
    assert stages[-1] == "evaluate"
    listed = list_jobs()[-1]
    assert listed.result == result
    assert listed.request is not None
    assert listed.request.measure == request.measure
    assert told(events, JobStarted)[0].folder == listed.folder
    assert told(events, JobStarted)[0].least_memory == listed.least_memory > LEAST_MEMORY
    assert not result.resumed
    log = Path(told(events, JobStarted)[0].log).read_text()
    for line in (
        "stage: quantize",
        "blk.1.ffn_down.weight: Q6_K",
        "read back and verified",
        "kl mean: ",
        "done in",
    ):
        assert line in log


def test_what_cannot_be_measured_is_a_warning(model, tmp_path, text, monkeypatch):
    def fail(*_: object) -> None:
        raise EvaluationError("No figures today.")

    monkeypatch.setattr(engine.quantize, "measure", fail)
    events: list = []
    result = quantize(
        request_for(model, tmp_path / "o.gguf", measure=Measure(text=str(text))), tell=events.append
    )
    assert result.report is None
    assert result.warnings[-1] == "The loss could not be measured: No figures today."
    assert told(events, Warned)[-1].message == result.warnings[-1]
    assert list_jobs()[-1].state == "done"


def test_a_text_that_cannot_be_measured_on_is_refused_before_the_work(model, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("A few words.")
    for text, said in ((tmp_path / "absent.txt", "Cannot read"), (short, "take a longer text")):
        with pytest.raises(EvaluationError, match=said):
            quantize(request_for(model, tmp_path / "o.gguf", measure=Measure(text=str(text))))
    assert list(tmp_path.glob("o.gguf*")) == []
    assert list_jobs() == []


def test_stopped_while_measuring_and_resumed_only_measures(model, tmp_path, text):
    output = tmp_path / "o.gguf"
    request = request_for(model, output, measure=Measure(text=str(text), windows=1))
    job = stopped_at(request, 1)
    written = output.stat().st_mtime_ns
    assert list_jobs()[-1].state == "interrupted"
    stages: list[str] = []
    result = resume(job, lambda event: stages.append(event.stage))
    assert set(stages) - {"check finished"} == {"load model code", "evaluate"}
    assert isinstance(result, QuantizeResult)
    assert result.report is not None
    assert output.stat().st_mtime_ns == written
    log = (Path(list_jobs()[-1].folder) / "engine.log").read_text()
    assert "stopped on request" in log


def test_what_is_measured_is_kept(model, tmp_path, text, monkeypatch):
    """Stopped after the first block of the original: the written file's blocks are not run again."""
    monkeypatch.setattr(states, "SAVING_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", float("inf"))
    asked = Measure(text=str(text), windows=2)
    whole = quantize(request_for(model, tmp_path / "whole.gguf", measure=asked, threads=2))
    output = tmp_path / "o.gguf"
    job = stopped_at(request_for(model, output, measure=asked, threads=2), 3)
    assert str(list_jobs()[-1].saved) == "3 of 4 blocks measured"
    assert (Path(list_jobs()[-1].folder) / "work").is_dir()
    events: list[Progress] = []
    result = resume(job, events.append)
    measured = [event.item for event in events if event.stage == "evaluate"]
    assert measured == ["model, block 2 of 2", "predictions", "predictions"]
    assert isinstance(result, QuantizeResult)
    assert result.report is not None
    assert whole.report is not None
    own = {"seconds", "model", "notes"}
    assert result.report.model_dump(exclude=own) == whole.report.model_dump(exclude=own)
    assert output.read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert not (Path(list_jobs()[-1].folder) / "work").exists()


def stopped_at(request: QuantizeRequest, event: int) -> str:
    """The id of a job that was stopped at that event of its measuring, counted from 1."""
    left = event

    def stop(event: Progress) -> None:
        nonlocal left
        left -= event.stage == "evaluate"
        if left == 0:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as stopped:
        quantize(request, stop)
    return stopped.value.job
