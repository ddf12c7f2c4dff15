"""Which activations are looked at: gathered by a job, followed while it runs, forgotten with the model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.activations import ActivationsDesk
from app.job_desk import JobDesk
from app.jobs import JobBoard
from app.settings import Settings
from app.state import State
from app.views.activations_offer import ActivationsLine, ActivationsOffer
from engine.api.jobs import JobSummary
from engine.api.model import ModelSummary
from tests.app.listening import fake


def empty_summary(path: Path, state: str = "") -> ModelSummary:
    facts = {"kind": "safetensors", "architecture": None, "parameters": 0, "bytes": 0, "blocks": 0}
    facts |= {"tied_embeddings": False, "quantization": None, "others": {}, "notes": [], "tensors": []}
    return ModelSummary.model_validate(facts | {"path": str(path), "state": state})


class Office:
    """A desk over jobs of fake engines; the model is a folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.state, self.board = State(), JobBoard(command=fake("job"))
        self.jobs = JobDesk(self.board, None, settings)
        self.desk = ActivationsDesk(self.state, self.board, self.jobs)
        self.results: list[object] = []
        self.jobs.show_result.connect(self.results.append)
        self.notices: list[object] = []
        self.jobs.notice.connect(self.notices.append)
        self.state.opening(folder)


@pytest.fixture
def office(qtbot: QtBot, tmp_path: Path, settings: Settings) -> Iterator[Office]:
    office = Office(tmp_path, settings)
    yield office
    with qtbot.waitSignal(office.board.all_ended, timeout=20_000):
        office.board.close()
    office.state.finish()


@pytest.fixture
def offer(qtbot: QtBot, office: Office) -> ActivationsOffer:
    offer = ActivationsOffer(office.desk)
    qtbot.addWidget(offer)
    offer.show()
    return offer


def test_the_sample_text_is_a_button_away(qtbot, office, offer, tmp_path):
    assert not office.desk.ready
    offer.gather.click()
    request = office.desk.record.request
    assert (request.texts, request.windows, request.length, request.seed) == ([], 128, 512, 0)
    assert offer.stop.isVisible()
    assert not offer.gather.isVisible()
    qtbot.waitUntil(lambda: office.desk.ready)
    assert office.desk.file == tmp_path / "activations.safetensors"
    assert "sample.txt" in office.desk.of
    assert office.results == []  # no other tab pushes itself forward


def test_texts_and_how_much_of_them_are_chosen(office, offer, tmp_path):
    offer.texts.add([tmp_path / "one.txt", tmp_path / "folder"])
    for field, number in ((offer.windows, 32), (offer.length, 256), (offer.seed, 7)):
        field.setValue(number)
    offer.gather.click()
    request = office.desk.record.request
    assert request.texts == [str(tmp_path / "one.txt"), str(tmp_path / "folder")]
    assert (request.windows, request.length, request.seed) == (32, 256, 7)


def test_a_prompt_is_looked_at(qtbot, office, offer):
    assert not offer.look.isEnabled()
    qtbot.keyClicks(offer.prompt, "What does this sentence do")
    offer.look.click()
    qtbot.waitUntil(lambda: office.desk.ready)
    line = ActivationsLine(office.desk)
    qtbot.addWidget(line)
    of, caution = "“What does this sentence do”, 9 tokens", "Of 9 tokens: single channels depend on chance."
    assert line.words.text() == f"Activations of: {of}. {caution}"
    line.other.click()
    assert not office.desk.ready
    assert offer.keep.isVisible()
    offer.keep.click()
    assert office.desk.ready


def test_a_run_that_fails_says_why(qtbot, office):
    office.desk.look("refuse")
    qtbot.waitUntil(lambda: bool(office.desk.problem))
    assert office.desk.sentence == "The model cannot be run."
    assert office.desk.record is None
    assert office.notices == []  # the view says it


def test_a_run_is_followed_and_stopped(qtbot, office, offer):
    office.desk.look("wait")
    qtbot.waitUntil(lambda: offer.item.text() == "block 1 of 4")
    assert offer.bar.value() == 250
    offer.stop.click()
    qtbot.waitUntil(lambda: office.desk.record is None)
    assert office.desk.problem == ""
    assert "No activations" in office.desk.sentence


def test_another_model_has_none_and_this_one_has_them_again(qtbot, office, tmp_path):
    office.desk.gather([])
    qtbot.waitUntil(lambda: office.desk.ready)
    office.state.opening(tmp_path / "other")
    assert office.desk.file is None
    office.state.opening(tmp_path)
    assert office.desk.ready


def test_another_state_of_the_model_has_none(qtbot, office, tmp_path):
    office.desk.gather([])
    qtbot.waitUntil(lambda: office.desk.ready)
    office.state.close()
    office.state.opening(tmp_path)
    office.state.take_summary(empty_summary(tmp_path, state="changed"))
    assert office.desk.file is None
    assert "another state of this model" in office.desk.sentence
    office.desk.gather([])  # by a model that is another one than is open
    qtbot.waitUntil(lambda: office.desk.record is None)
    assert "open it again" in office.desk.sentence
    office.state.opening(tmp_path)
    office.state.take_summary(empty_summary(tmp_path))
    assert office.desk.ready


def test_what_was_gathered_before_is_found_on_disk(office, tmp_path):
    told = {"id": "1", "kind": "activations", "state": "done", "output": "", "created": "2025"}
    file = tmp_path / "kept.safetensors"
    ran = {
        "model": str(tmp_path),
        "files": ["a.txt"],
        "windows": 2,
        "windows_there": 2,
        "length": 8,
        "seed": 0,
    }
    result = {"kind": "activations", "job": "1", "output": str(file), "bytes": 1, "layers": 1, "ran": ran}
    result |= {"seconds": 1.0, "peak_private_bytes": 1, "warnings": []}
    told |= {"message": "", "folder": "", "request": {"kind": "activations", "model": str(tmp_path)}}
    office.board.take([JobSummary.model_validate(told | {"id": "2", "result": result | {"job": "2"}})])
    assert office.desk.file is None  # it is gone
    assert office.desk.problem == ""
    file.write_bytes(b"")
    office.board.take([JobSummary.model_validate(told | {"result": result})])
    assert office.desk.file == file
