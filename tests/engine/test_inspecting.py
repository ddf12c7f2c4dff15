"""What the inspecting engine answers about the machine and its jobs; test_server.py has the rest."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import pytest

from engine import inspecting, places, quantization_errors
from engine.api.errors import CalibrationError, CheckpointError, OutputError
from engine.api.events import (
    Checked,
    ColumnsRead,
    Event,
    ExportPage,
    Failed,
    ImportanceFound,
    ImportanceRead,
    ImportanceSaved,
    JobsListed,
    SpeedsMeasured,
    StatisticsRead,
)
from engine.api.jobs import CalibrateRequest, Check, QuantizeRequest
from engine.api.needs import Speeds
from engine.api.recipe import Choice, Recipe
from engine.api.requests import (
    CheckCalibrate,
    ListJobs,
    MeasureSpeeds,
    OpenModel,
    ReadImportance,
    ReadImportanceColumns,
    ReadStatistics,
    RemoveJobs,
    SaveImportance,
)
from engine.calibration import statistics
from engine.calibration.importance_files import read_importance, write_importance
from engine.inspecting import Inspector
from engine.quantization_errors import measure_errors
from engine.quantize import quantize
from engine.weight_statistics import gather
from resources import SAMPLE_MODEL
from tests.tiny import write_llama

SPEEDS = Speeds(encode={}, read=1e9, write=1e8, multiply=1e10)


class Answers:
    """What an inspector sent, to be waited for."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.inspector = Inspector(self._events.put)

    def next(self, kind: type) -> Event:
        """The next one of that kind; others before it are dropped."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                event = self._events.get(timeout=1)
            except Empty:
                continue
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__}")


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return write_llama(tmp_path / "model")


def test_speeds_are_measured_while_a_model_is_opened(model, monkeypatch):
    """However long that takes."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Speeds:
        begun.set()
        go_on.wait()
        return SPEEDS

    monkeypatch.setattr(inspecting, "speeds", slow)
    answers = Answers()
    answers.inspector.answer(MeasureSpeeds(id=1))
    answers.inspector.answer(OpenModel(id=2, model=str(model)))
    assert answers.next(ExportPage).id == 2
    assert begun.wait(60)
    go_on.set()
    assert answers.next(SpeedsMeasured) == SpeedsMeasured(id=1, speeds=SPEEDS)
    answers.inspector.close()


def test_an_importance_matrix_comes_with_its_statistics():
    answers = Answers()
    file = str(SAMPLE_MODEL / "imatrix.gguf")
    answers.inspector.answer(ReadImportance(id=3, files=[file, file], model=str(SAMPLE_MODEL)))
    found = answers.next(ImportanceRead)
    assert (found.id, found.summary.windows, len(found.summary.tensors)) == (3, 240, 28)
    assert found.summary.warnings == []


def test_a_tensors_columns_come_sorted(monkeypatch):
    file = SAMPLE_MODEL / "imatrix.gguf"
    name = "blk.1.ffn_down.weight"
    expected = np.sort(read_importance(file).entries[name].means().ravel())[::-1]
    answers = Answers()
    ask = ReadImportanceColumns(id=4, files=[str(file)], tensor=name)
    answers.inspector.answer(ask)
    columns = answers.next(ColumnsRead).columns
    assert (columns.columns, columns.width) == (expected.size, 1)
    np.testing.assert_allclose(columns.values, expected, rtol=1e-6)
    monkeypatch.setattr(statistics, "MOST_VALUES", 100)
    answers.inspector.answer(ask)
    columns = answers.next(ColumnsRead).columns
    assert len(columns.values) <= 100
    np.testing.assert_allclose(columns.values, expected[:: columns.width], rtol=1e-6)
    with pytest.raises(CalibrationError, match="says nothing of this tensor"):
        answers.inspector.answer(ask.model_copy(update={"tensor": "blk.9.none"}))


def test_a_matrix_is_found_by_its_content_and_saved_in_both_formats(tmp_path):
    answers = Answers()
    file = SAMPLE_MODEL / "imatrix.gguf"
    for number, output in enumerate((tmp_path / "same.gguf", tmp_path / "older.dat")):
        answers.inspector.answer(SaveImportance(id=number, files=[str(file)], output=str(output)))
        saved = answers.next(ImportanceSaved)
        assert (saved.id, saved.path, saved.bytes) == (number, str(output), output.stat().st_size)
        other = output.with_suffix(".model")
        other.write_bytes(output.read_bytes())
        answers.inspector.answer(OpenModel(id=7, model=str(other)))
        assert answers.next(ImportanceFound).id == 7
    with pytest.raises(OutputError, match="is the input itself"):
        answers.inspector.answer(SaveImportance(id=9, files=[str(file)], output=str(file), overwrite=True))
    (tmp_path / "text.dat").write_text("no matrix, but some words of text " * 9)
    for path in (tmp_path / "text.dat", tmp_path / "none.gguf", tmp_path):
        with pytest.raises(CheckpointError):
            answers.inspector.answer(OpenModel(id=8, model=str(path)))


def test_no_file_of_the_model_is_written_over(tmp_path):
    model = write_llama(tmp_path / "model", shards=2)
    _, shard = sorted(model.glob("*.safetensors"))
    before = shard.read_bytes()
    ask = SaveImportance(
        id=1, files=[str(SAMPLE_MODEL / "imatrix.gguf")], model=str(model), output=str(shard), overwrite=True
    )
    with pytest.raises(OutputError, match=f"{shard.name}: is the input itself"):
        Answers().inspector.answer(ask)
    assert shard.read_bytes() == before


def test_what_the_older_format_does_not_keep_is_told(tmp_path):
    answers, read = Answers(), read_importance(SAMPLE_MODEL / "imatrix.gguf")
    both, older = tmp_path / "both.gguf", tmp_path / "both.dat"
    write_importance(both, replace(read, datasets=["one.txt", "two.txt"]), overwrite=False)
    for number, output in enumerate((tmp_path / "same.gguf", older)):
        answers.inspector.answer(SaveImportance(id=number, files=[str(both)], output=str(output)))
    assert answers.next(ImportanceSaved).warnings == []
    [warning] = answers.next(ImportanceSaved).warnings
    assert warning.startswith(f"{older}: the older format (.dat) does not keep all names of its 2 texts")


def test_a_calibration_is_checked_before_it_runs(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("some words of text " * 400)
    request = CalibrateRequest(
        model=str(model), texts=[str(text)], output=str(tmp_path / "new.gguf"), length=32, windows=3
    )

    def checked(**changes: object) -> dict[str, Check]:
        answers = Answers()
        changed = request.model_copy(update=changes)
        answers.inspector.answer(CheckCalibrate(id=1, calibrate=changed))
        return {check.name: check for check in answers.next(Checked).checks}

    found = checked()
    assert list(found) == ["model", "texts", "output", "disk", "memory", "time"]
    assert all(check.passed is not False for check in found.values())
    assert found["texts"].warning
    taken = tmp_path / "taken.gguf"
    taken.touch()
    output = checked(output=str(taken))["output"]
    assert (output.passed, "exists already" in output.message) == (False, True)
    assert "disk" not in checked(output=str(taken))
    assert checked(output=str(taken), overwrite=True)["output"].passed
    failed = checked(texts=[str(tmp_path / "none.txt")])
    assert [(check.name, check.passed) for check in failed.values()] == [("model and texts", False)]
    failed = checked(merge=[str(SAMPLE_MODEL / "imatrix.gguf")])
    assert "cannot be merged" in failed["model and texts"].message


def test_jobs_are_removed_and_the_others_listed(model, tmp_path):
    for name in ("one", "two"):
        recipe = Recipe(default=Choice(format="Q8_0"))
        quantize(QuantizeRequest(model=str(model), output=str(tmp_path / name), recipe=recipe))
    answers = Answers()
    answers.inspector.answer(ListJobs(id=1))
    first, second = answers.next(JobsListed).jobs
    answers.inspector.answer(RemoveJobs(id=2, jobs=[first.id]))
    listed = answers.next(JobsListed)
    assert (listed.id, [job.id for job in listed.jobs]) == (2, [second.id])
    assert not Path(first.folder).exists()
    assert Path(first.output).exists()


def test_statistics_come_while_others_are_asked(monkeypatch):
    """The newest of them: what was asked before is left, as soon as it asks whether it is wanted."""
    begun = threading.Event()

    def slow(checkpoint, name, *, wanted):
        if name != "model.norm.weight":
            return gather(checkpoint, name, wanted=wanted)
        begun.set()
        while wanted():
            time.sleep(0.01)
        return None

    monkeypatch.setattr(places, "gather", slow)
    answers = Answers()
    sample = str(SAMPLE_MODEL)
    answers.inspector.answer(ReadStatistics(id=1, model=sample, tensor="model.norm.weight"))
    assert begun.wait(60)
    answers.inspector.answer(ListJobs(id=2))
    assert answers.next(JobsListed).id == 2
    answers.inspector.answer(ReadStatistics(id=3, model=sample, tensor="blk.1.ffn_down.weight"))
    found = answers.next(StatisticsRead)
    assert (found.id, found.statistics.tensor) == (3, "model.layers.1.mlp.down_proj.weight")
    assert found.statistics.outlier_channels == [106]
    answers.inspector.answer(ReadStatistics(id=4, model=sample, tensor="none"))
    failed = answers.next(Failed)
    assert (failed.id, failed.code) == (4, "user")
    assert "has no tensor none" in failed.message
    answers.inspector.answer(ReadStatistics(id=5, model=sample, tensor="model.norm.weight"))
    answers.inspector.close()  # does not wait for it


def test_what_a_recipe_loses_is_measured_once(monkeypatch):
    """Going back to a tensor, or to what was chosen for it, costs nothing."""
    measured: list[str] = []

    def counted(made, *asked, **more):
        measured.append(made.tensor)
        return measure_errors(made, *asked, **more)

    monkeypatch.setattr(quantization_errors, "measure_errors", counted)
    monkeypatch.setattr(quantization_errors, "_remembered", {})
    answers = Answers()
    names = ("model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight")
    found = []
    for number, (name, format_name) in enumerate(
        [(names[0], "Q4_0"), (names[1], "Q4_0"), (names[0], "Q8_0"), (names[0], "Q4_0")]
    ):
        recipe = Recipe(default=Choice(format=format_name))
        answers.inspector.answer(
            ReadStatistics(id=number, model=str(SAMPLE_MODEL), tensor=name, recipe=recipe)
        )
        found.append(answers.next(StatisticsRead).statistics.error)
    assert measured == [names[0], names[1], names[0]]
    assert [error.format for error in found] == ["Q4_0", "Q4_0", "Q8_0", "Q4_0"]
    assert found[0] == found[3]
    assert found[2].snr - found[0].snr > 20
    answers.inspector.close()
