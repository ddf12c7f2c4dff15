"""Jobs in the window: killed, closed over, stopped, resumed, started again, removed, come from elsewhere."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from PySide6.QtCore import Qt

from app.job_record import JobRecord
from app.main_window import MainWindow
from app.session import Session
from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe
from tests.app.conftest import close
from tests.app.test_window import LOAD, ROOT, WORK, banner_button, click, open_model, press, run, texts


def test_killed_engine_is_explained_and_the_job_resumes(qtbot, window, wide, tmp_path):
    open_model(qtbot, window, wide)
    record = run(qtbot, window, tmp_path, measure=False)
    journal = lambda: Path(record.folder) / "journal.jsonl"  # noqa: E731
    qtbot.waitUntil(lambda: record.saved is not None and record.saved.done > 0, timeout=WORK)
    os.kill(engine_pid(record), signal.SIGKILL)
    qtbot.waitUntil(lambda: record.state == "interrupted", timeout=LOAD)
    assert "by the system" in texts(window.banner)
    assert f"{record.saved} " in texts(window.banner)
    saved = len(journal().read_text().splitlines())
    click(qtbot, banner_button(window, "Resume"))
    qtbot.waitUntil(lambda: record.state == "done", timeout=WORK)
    assert len(journal().read_text().splitlines()) == 2702  # each tensor once, and the header
    assert saved > 0
    assert Path(record.output).stat().st_size == window.state.file_bytes


def engine_pid(record: JobRecord) -> int:
    """The process that works on a job: the one that holds its log open."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(entry.readlink()) == record.log for entry in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("no process works on the job")


def test_closing_in_the_middle_of_a_job_offers_to_resume_it_at_the_next_start(
    qtbot, window, settings, wide, tmp_path
):
    open_model(qtbot, window, wide)
    record = run(qtbot, window, tmp_path, measure=False)
    waiting = QuantizeRequest(**record.request.model_dump() | {"output": str(tmp_path / "other.gguf")})
    window.session.desk.run(waiting)
    qtbot.waitUntil(lambda: record.saved is not None and record.saved.done > 0, timeout=WORK)
    window.close()
    assert window.isVisible()
    assert "1 job is running" in texts(window.banner)
    assert "1 more waits" in texts(window.banner)
    with qtbot.waitSignal(window.session.ended, timeout=LOAD):
        click(qtbot, banner_button(window, "Stop and close"))
    window.deleteLater()
    window.session.deleteLater()
    assert record.state == "interrupted"

    later = MainWindow(Session(settings))
    later.show()
    later.session.start()
    qtbot.waitUntil(lambda: banner_button(later, "Resume") is not None, timeout=LOAD)
    assert "interrupted" in texts(later.banner)
    assert f"{record.saved} " in texts(later.banner)
    assert "Not begun when Bitwright ended" in texts(later.banner)
    click(qtbot, banner_button(later, "Start"))
    click(qtbot, banner_button(later, "Resume"))
    [other], [again] = later.session.board.active, later.session.board.waiting
    assert (again.job, other.output) == (record.job, waiting.output)
    qtbot.waitUntil(lambda: again.state == other.state == "done", timeout=WORK)
    assert Path(again.output).exists()
    assert Path(other.output).read_bytes() == Path(again.output).read_bytes()
    close(qtbot, later)


def test_jobs_of_the_command_line_come_and_go(qtbot, window, wide, tmp_path):
    output = tmp_path / "small.gguf"
    command = ["quantize", str(wide), "--preset", "Q4_0", "--out", str(output)]
    terminal = subprocess.Popen(
        [sys.executable, "-m", "engine", *command], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    qtbot.waitUntil(lambda: terminal.poll() is not None, timeout=WORK)
    assert terminal.returncode == 0
    board = window.session.board
    qtbot.waitUntil(lambda: bool(board.records) and board.records[0].state == "done", timeout=LOAD)
    [record] = board.records
    assert (record.state, record.output) == ("done", str(output))
    window.jobs_dock.show()
    window.jobs.select(record)
    window.jobs.view.setFocus()
    press(qtbot, window, Qt.Key.Key_Delete, Qt.KeyboardModifier.NoModifier)
    qtbot.waitUntil(lambda: not board.records, timeout=LOAD)
    assert not Path(record.folder).exists()
    assert output.exists()


def test_an_unfinished_job_is_removed_with_what_it_has_written(qtbot, window, wide, tmp_path):
    open_model(qtbot, window, wide)
    record = run(qtbot, window, tmp_path, measure=False)
    qtbot.waitUntil(lambda: record.saved is not None and record.saved.done > 0, timeout=WORK)
    window.actions_table["stop_job"].trigger()
    qtbot.waitUntil(lambda: record.state == "interrupted", timeout=LOAD)
    partial = Path(record.output + ".partial")
    assert partial.exists()
    window.actions_table["remove_job"].trigger()
    assert "takes on the disk?" in texts(window.banner)
    assert record.state == "interrupted"
    click(qtbot, banner_button(window, "Remove"))
    qtbot.waitUntil(lambda: not window.session.board.records, timeout=LOAD)
    assert not partial.exists()
    assert not Path(record.folder).exists()


def test_a_source_that_changed_is_named_and_the_job_started_again(qtbot, window, wide, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(wide.read_bytes())
    open_model(qtbot, window, model)
    record = run(qtbot, window, tmp_path, measure=False)
    qtbot.waitUntil(lambda: record.saved is not None and record.saved.done > 0, timeout=WORK)
    window.actions_table["stop_job"].trigger()
    qtbot.waitUntil(lambda: record.state == "interrupted", timeout=LOAD)
    os.utime(model, (1, 1))
    window.actions_table["resume_job"].trigger()
    qtbot.waitUntil(lambda: record.state == "failed", timeout=LOAD)
    assert "model.gguf" in texts(window.banner)
    assert banner_button(window, "Resume") is None
    click(qtbot, banner_button(window, "Start again"))
    qtbot.waitUntil(lambda: record.state == "done", timeout=WORK)
    assert Path(record.output).stat().st_size == window.state.file_bytes


def test_stop_by_keys(qtbot, window, wide, tmp_path):
    open_model(qtbot, window, wide)
    record = run(qtbot, window, tmp_path, measure=False)
    qtbot.waitUntil(lambda: record.state == "running", timeout=WORK)
    press(qtbot, window, Qt.Key.Key_Period)
    qtbot.waitUntil(lambda: record.state == "interrupted", timeout=LOAD)
    assert record.resumable
    assert not window.session.board.active


def test_a_copied_command_says_where_to_get_its_recipe(window):
    request = QuantizeRequest(model="/m", output="/o/a.gguf", recipe=Recipe(default=Choice(format="Q8_0")))
    window.wiring._copy_command(JobRecord(1, title="quantize m", job="1", request=request))
    said = "Copied: the command of quantize m. It needs a.recipe.json: press Save recipe on the job's result."
    assert window.passing.text() == said


def test_one_output_is_not_written_by_two_jobs(qtbot, window, wide, tmp_path):
    open_model(qtbot, window, wide)
    recipe = window.state.document.recipe
    request = QuantizeRequest(model=str(wide), output=str(tmp_path / "same.gguf"), recipe=recipe)
    window.session.desk.run(request)
    window.session.desk.run(request)
    assert len(window.session.board.active) == 1
    assert "is writing" in texts(window.banner)
