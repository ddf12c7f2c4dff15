"""Jobs that waited when the program ended are there again, whatever became of the file."""

import logging
from collections.abc import Callable, Iterator
from errno import ENOSPC
from pathlib import Path

import pytest
from platformdirs import user_state_path
from PySide6.QtCore import QCoreApplication, QEvent
from pytestqt.qtbot import QtBot

from app.jobs import JobBoard
from app.waiting import WaitingFile, WaitingJob
from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe
from tests.app.listening import fake


def request(output: str = "/out/small.gguf") -> QuantizeRequest:
    return QuantizeRequest(model="/m/llama", output=output, recipe=Recipe(default=Choice(format="Q8_0")))


def job(name: str) -> WaitingJob:
    return WaitingJob(created=f"2026-01-0{name}", request=request(f"/out/{name}.gguf"))


def files() -> list[Path]:
    return sorted(path for path in (user_state_path("bitwright") / "waiting").glob("*") if path.is_file())


def names(suffix: str) -> list[Path]:
    return [path for path in files() if path.suffix == suffix]


def test_what_is_kept_is_taken_over_once(qapp):
    first, second = WaitingFile(), WaitingFile()
    first.keep([job("2"), job("1")])
    assert second.take_over() == []  # the first window lives
    first.release()
    assert second.take_over() == [job("1"), job("2")]
    assert WaitingFile().take_over() == []
    second.keep([])
    assert files() == []


def refuse(*_: object, **__: object) -> None:
    """As a full disk does."""
    raise OSError(ENOSPC, "No space left on device")


def test_what_was_taken_over_and_cannot_be_kept_stays(qapp, monkeypatch):
    first, second = WaitingFile(), WaitingFile()
    first.keep([job("1")])
    first.release()
    taken = second.take_over()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        with pytest.raises(OSError, match="No space left"):
            second.keep(taken)
    assert WaitingFile().take_over() == []  # the second window lives
    second.release()
    assert WaitingFile().take_over() == [job("1")]


def test_an_empty_list_leaves_no_file(qapp):
    file = WaitingFile()
    file.keep([])
    file.keep([job("1")])
    file.keep([])
    file.release()
    assert files() == []


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"{}", b'[{"created": 3}]', b"[" * 100_000, b'[{"created": "x"', b"null"]
)
def test_a_damaged_file_is_set_aside_with_one_line(qapp, caplog, content):
    old = WaitingFile()
    old.keep([job("1")])
    old.release()
    [path] = names(".json")
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert WaitingFile().take_over() == []
    assert len(caplog.records) == 1
    assert [file.suffix for file in files()] == [".damaged"]


def close(qtbot: QtBot, board: JobBoard) -> None:
    with qtbot.waitSignal(board.all_ended, timeout=20_000):
        board.close()


@pytest.fixture
def make_board(qapp) -> Iterator[Callable[[str], JobBoard]]:
    """Makes boards over fake engines whose jobs end as named; the test closes them."""
    made: list[JobBoard] = []

    def make(end: str = "done") -> JobBoard:
        made.append(JobBoard(command=fake("job", end)))
        return made[-1]

    yield make
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def test_a_folder_that_cannot_be_written_is_told(qtbot: QtBot, make_board):
    folder = user_state_path("bitwright")
    folder.mkdir(parents=True)
    (folder / "waiting").write_text("a file in its place")
    board = make_board("waits")
    with qtbot.waitSignal(board.not_kept) as told:
        board.run(request())
    assert "could not be written down" in told.args[0]
    close(qtbot, board)


def test_a_closed_board_leaves_what_waited_to_the_next(qtbot: QtBot, make_board):
    board = make_board("stopped")
    running, *waiting = [board.run(request(f"/out/{number}.gguf")) for number in range(3)]
    qtbot.waitUntil(lambda: running.state == "running")
    close(qtbot, board)
    later = make_board("done")
    kept = later.bring_back()
    assert [record.state for record in kept] == ["kept", "kept"]
    assert [record.title for record in kept] == [record.title for record in waiting]
    assert [record.created for record in kept] == [record.created for record in waiting]
    assert later.active == []
    later.resume(kept[1])
    qtbot.waitUntil(lambda: kept[1].state == "done")
    close(qtbot, later)
    last = make_board()
    assert [record.output for record in last.bring_back()] == ["/out/1.gguf"]
    close(qtbot, last)


def test_what_could_not_be_kept_at_first_does_not_come_back(qtbot: QtBot, make_board, monkeypatch):
    old = WaitingFile()
    old.keep([job("1")])
    old.release()
    board = make_board()
    with monkeypatch.context() as patch, qtbot.waitSignal(board.not_kept):
        patch.setattr(Path, "write_text", refuse)
        kept = board.bring_back()
    board.drop(kept)
    close(qtbot, board)
    assert WaitingFile().take_over() == []


def test_a_window_that_dies_loses_nothing(qtbot: QtBot, make_board):
    board = make_board("waits")
    for number in range(2):
        board.run(request(f"/out/{number}.gguf"))
    qtbot.waitUntil(lambda: bool(names(".json")))
    copy = names(".json")[0].read_bytes()  # as its disk is when it dies, the first job without a folder yet
    close(qtbot, board)
    for path in files():
        path.unlink()
    (user_state_path("bitwright") / "waiting" / "1-dead.json").write_bytes(copy)
    later = make_board()
    assert [record.output for record in later.bring_back()] == ["/out/0.gguf", "/out/1.gguf"]
    close(qtbot, later)


def test_a_job_that_had_no_folder_yet_when_the_window_closed_is_kept(qtbot: QtBot, make_board):
    board = make_board("waits")
    record = board.run(request())
    close(qtbot, board)
    assert record.job == ""
    later = make_board()
    assert [kept.output for kept in later.bring_back()] == ["/out/small.gguf"]
    later.drop(later.records)
    close(qtbot, later)
    assert names(".json") == []


def test_a_job_with_a_folder_is_not_kept_twice(qtbot: QtBot, make_board):
    board = make_board("stopped")
    record = board.run(request())
    qtbot.waitUntil(lambda: record.state == "running")
    close(qtbot, board)
    assert names(".json") == []
