"""The result page says what came of a job, and its command does it again."""

import csv
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QPushButton, QTableWidget
from pytestqt.qtbot import QtBot

from app.job_record import JobRecord, State
from app.models.command import command_of, program, recipe_file
from app.models.jobs import outcome
from app.models.result import csv_of, headline, outputs, story, table_of
from app.views.result import ResultPanel
from engine.api.activations import Ran
from engine.api.jobs import (
    ActivationsRequest,
    ActivationsResult,
    CalibrateRequest,
    CalibrateResult,
    EvaluateRequest,
    EvaluateResult,
    Measure,
    PresetStart,
    QuantizeRequest,
    QuantizeResult,
    Saved,
)
from engine.api.recipe import Choice, GgufOptions, Output, Recipe, Rule
from engine.api.report import Report
from resources import EVALUATION_TEXT, SAMPLE_MODEL

ROOT = Path(__file__).parents[2]

REPORT = Report(
    model="/out/tiny.gguf",
    architecture="llama",
    model_sha256="a" * 64,
    reference="/models/tiny",
    reference_sha256="b" * 64,
    text="/texts/evaluation.txt",
    text_sha256="c" * 64,
    protocol="llama.cpp",
    window=512,
    windows=16,
    tokens=4096,
    perplexity=20.4,
    perplexity_error=0.51,
    reference_perplexity=20.2,
    reference_perplexity_error=0.5,
    kl_mean=0.008023,
    kl_error=0.0002,
    kl_p99=0.071,
    top1_agreement=0.926,
    device="cpu",
    version="0.1.0",
    torch="2.13.0",
    transformers="5.23.0",
    seconds=12.0,
    notes=["the text overlaps the calibration text"],
)
RESULT = QuantizeResult(
    job="1",
    output="/out/tiny.gguf",
    bytes=9_420_192,
    predicted_bytes=9_420_192,
    bpw=5.13,
    seconds=11.4,
    peak_private_bytes=310_000_000,
    warnings=["2 tensors get Q5_0 instead of Q4_K"],
    source_bytes=29_400_000,
    source_bpw=16.0,
    report=REPORT,
)


def done(**changes: object) -> JobRecord:
    return JobRecord(
        1,
        title="quantize tiny",
        job="1",
        output="/out/tiny.gguf",
        state="done",
        result=RESULT.model_copy(update=changes),
    )


@pytest.fixture
def panel(qtbot: QtBot) -> ResultPanel:
    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.resize(800, 700)
    panel.show()
    return panel


def texts(panel: ResultPanel) -> str:
    return "\n".join(label.text() for label in panel.widget().findChildren(QLabel))


def press(qtbot: QtBot, panel: ResultPanel, text: str) -> None:
    button = next(b for b in panel.widget().findChildren(QPushButton) if b.text() == text)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_the_headline_says_it_all():
    assert headline(done()) == "tiny.gguf: 3.12 × smaller, the same next token in 92.6 %"
    assert headline(done(report=None)) == "tiny.gguf: 3.12 × smaller"
    assert headline(done(source_bytes=4_710_096, report=None)) == "tiny.gguf: 2 × larger"


def test_all_files_of_a_split_output_are_named(panel: ResultPanel):
    files = [f"/out/tiny-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    record = done(files=files, output=files[0])
    assert outputs(record) == files
    panel.show_record(record)
    assert all(file in texts(panel) for file in files)
    assert outputs(done()) == ["/out/tiny.gguf"]


def test_the_table_is_that_of_the_figures(panel: ResultPanel):
    panel.show_record(done())
    table = panel.widget().findChild(QTableWidget)
    rows = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount())]
    assert rows == [
        ["Size", "29.4 MB", "9.42 MB", "3.12 × smaller"],
        ["Bits per weight", "16", "5.13", ""],
        ["Perplexity", "20.2 ± 0.5", "20.4 ± 0.5", "+0.99 %"],
        ["KL divergence, mean (nats)", "0", "0.00802 ± 0.0002", ""],
        ["KL divergence, 99th percentile (nats)", "0", "0.071", ""],
        ["Same next token", "100 %", "92.6 %", ""],
    ]
    assert "9,420,192" in table.item(0, 2).toolTip()


def test_what_it_was_measured_on_is_named(panel: ResultPanel):
    panel.show_record(done())
    shown = texts(panel)
    for part in (
        "evaluation.txt",
        "cccccccccccc",
        "llama.cpp, 16 windows of 512 tokens, 4,096",
        "torch 2.13.0",
    ):
        assert part in shown
    assert "overlaps" in shown


def test_warnings_of_the_job_are_shown(panel: ResultPanel):
    record = done()
    record.warnings = list(RESULT.warnings)
    panel.show_record(record)
    assert RESULT.warnings[0] in texts(panel)


def test_nothing_measured_says_how_to(panel: ResultPanel):
    panel.show_record(done(report=None))
    assert "Measure what was lost" in texts(panel)
    assert panel.widget().findChild(QTableWidget).rowCount() == 2


def test_the_copied_table_is_not_rounded(qtbot: QtBot, panel: ResultPanel):
    panel.show_record(done())
    press(qtbot, panel, "Copy table")
    head, *rows = csv.reader(io.StringIO(QGuiApplication.clipboard().text()))
    assert head == ["figure", "before", "after"]
    assert {name: float(after) for name, _, after in rows} == {
        line.name: line.exact[1] for line in table_of(RESULT)
    }
    assert "0.008023" in csv_of(RESULT)


def test_a_failed_job_says_what_happened_and_what_to_do(qtbot: QtBot, panel: ResultPanel):
    record = JobRecord(
        1,
        title="quantize tiny",
        job="1",
        output="/out/tiny.gguf",
        state="interrupted",
        message="stopped by the system, most likely out of memory",
        trace="Fatal Python error",
        log="/tmp/log",
        remedy="less memory",
        saved=Saved(done=17, total=32, unit="blocks"),
    )
    panel.show_record(record)
    shown = texts(panel)
    assert "is not finished" in shown
    assert "Stopped by the system, most likely out of memory." in shown
    assert "17 of 32 blocks are saved." in shown
    for button, signal in (
        ("Resume", panel.resume_requested),
        ("Resume with less memory", panel.less_memory_requested),
        ("Log", panel.show_log),
    ):
        with qtbot.waitSignal(signal) as asked:
            press(qtbot, panel, button)
        assert asked.args == [record]
    press(qtbot, panel, "Copy report")
    assert "Fatal Python error" in QGuiApplication.clipboard().text()


def test_a_job_that_had_not_begun_offers_no_resume(panel: ResultPanel):
    record = JobRecord(1, title="quantize tiny", state="failed", message="There is no room.")
    panel.show_record(record)
    assert "Nothing was written" in texts(panel)
    assert not panel.widget().findChildren(QPushButton)
    record.request = QuantizeRequest(model="/m", output="/o", recipe=Recipe(default=Choice(format="Q8_0")))
    panel.show_record(record)
    assert [button.text() for button in panel.widget().findChildren(QPushButton)] == ["Start again"]


@pytest.mark.parametrize("state", get_args(State))
def test_every_other_state_has_words(panel: ResultPanel, state: str):
    record = JobRecord(1, title="quantize tiny", output="/out/tiny.gguf", state=state)
    panel.show_record(record)
    assert headline(record) in texts(panel)
    assert isinstance(story(record), str)


def test_what_changed_offers_to_start_again(qtbot: QtBot, panel: ResultPanel):
    record = JobRecord(1, title="quantize tiny", job="1", state="failed", remedy="start again")
    panel.show_record(record)
    with qtbot.waitSignal(panel.restart_requested) as asked:
        press(qtbot, panel, "Start again")
    assert asked.args == [record]


@pytest.mark.parametrize(
    ("resumed", "said"), [(False, "It took 0:12 and"), (True, "Since it was resumed it took 0:12")]
)
def test_the_time_is_that_of_the_last_run(resumed, said):
    result = EvaluateResult(
        job="1", report=REPORT, seconds=12.0, resumed=resumed, peak_private_bytes=10**9, warnings=[]
    )
    assert story(JobRecord(1, job="1", state="done", result=result)).startswith(said)


def test_a_measurement_of_the_command_line_has_its_report(panel: ResultPanel):
    result = EvaluateResult(job="1", report=REPORT, seconds=12.0, peak_private_bytes=10**9, warnings=[])
    record = JobRecord(1, job="1", folder="/jobs/1", state="done", result=result)
    record.take_request(
        EvaluateRequest(model="/out/tiny.gguf", reference="/models/tiny", text="/t.txt", windows=16)
    )
    assert headline(record) == "tiny.gguf: perplexity 20.4, the same next token in 92.6 %"
    panel.show_record(record)
    table = panel.widget().findChild(QTableWidget)
    assert table.item(0, 0).text() == "Perplexity"
    assert "evaluation.txt" in texts(panel)
    assert shlex.split(command_of(record))[1:] == [
        *("evaluate", "/out/tiny.gguf", "--text", "/t.txt", "--protocol", "llama.cpp"),
        *("--reference", "/models/tiny", "--windows", "16"),
    ]
    record.state, record.result = "interrupted", None
    panel.show_record(record)
    assert "is not finished" in texts(panel)


def test_a_calibration_of_the_command_line_has_its_page(panel: ResultPanel):
    record = JobRecord(1, job="1", folder="/jobs/1", state="done")
    record.result = CalibrateResult(
        job="1", output="/out/i.gguf", bytes=78_624, tensors=28, windows=120, tokens=61_440,
        unseen=[], seconds=40.0, peak_private_bytes=10**9, warnings=[],
    )  # fmt: skip
    record.take_request(
        CalibrateRequest(
            model="/models/tiny", texts=["/t.txt"], output="/out/i.gguf", windows=120, merge=["/m.dat"]
        )
    )
    assert (record.title, record.output) == ("calibrate tiny → i.gguf", "/out/i.gguf")
    assert headline(record) == "i.gguf: the importance of 28 tensors, from 61,440 tokens"
    panel.show_record(record)
    assert panel.widget().findChild(QTableWidget) is None
    assert "Read back and verified, 78,624 bytes." in texts(panel)
    assert shlex.split(command_of(record))[1:] == [
        *("calibrate", "/models/tiny", "--out", "/out/i.gguf", "--length", "512", "--calibration", "/t.txt"),
        *("--merge", "/m.dat", "--windows", "120"),
    ]


def test_activations_have_their_page(panel: ResultPanel):
    record = JobRecord(1, job="1", folder="/jobs/1", state="done")
    record.take_request(ActivationsRequest(model="/models/tiny", windows=7, seed=3))
    assert record.title == "activations of tiny on the sample text"
    record.state = "running"
    assert headline(record) == "activations of tiny on the sample text are being gathered"
    assert shlex.split(command_of(record))[1:] == [
        *("stats", "/models/tiny", "--calibration", "sample", "--windows", "7", "--length", "512"),
        *("--seed", "3"),
    ]
    record.take_request(ActivationsRequest(model="/models/tiny", prompt="-what?", output="/out/a"))
    assert record.title == "activations of tiny on a prompt"
    assert shlex.split(command_of(record))[1:] == [
        *("stats", "/models/tiny", "--prompt=-what?", "--activations-out", "/out/a")
    ]
    ran = Ran(model="/models/tiny", files=[], prompt="-what?", windows=1, windows_there=1, length=4, seed=0)
    record.state = "done"
    record.result = ActivationsResult(
        job="1", output="/out/a", bytes=78_624, layers=16, ran=ran, seconds=4.0,
        peak_private_bytes=10**9, warnings=[],
    )  # fmt: skip
    assert headline(record) == "activations of tiny on a prompt: 16 layers, 4 tokens"
    assert outcome(record.result) == "78.6 kB, 16 layers on 4 tokens"
    panel.show_record(record)
    assert panel.widget().findChild(QTableWidget) is None
    assert "What was run: a prompt of 4 tokens." in texts(panel)


def test_no_command_without_a_request():
    record = done()
    record.request = None
    assert command_of(record) == ""


def test_the_command_says_the_recipe_by_options():
    """Whatever becomes of the job's folder, and nothing is replaced unasked."""
    options = GgufOptions(split_max_size=2_000_000, metadata={"general.name": "My model"})
    rules = [Rule(match="down", format="Q6_K"), Rule(match="attn_q", format="Q8_0", pinned=True)]
    recipe = Recipe(
        rules=rules, default=Choice(format="Q4_K"), imatrix="/i m.gguf", effort="fast",
        output=Output(options=options),
    )  # fmt: skip
    record = done()
    start = PresetStart(name="Q4_K_M", rules=1)
    request = QuantizeRequest(model="/m", output="/o/a.gguf", recipe=recipe, preset=start)
    record.request = request
    assert shlex.split(command_of(record))[1:] == [
        *("quantize", "/m", "--preset", "Q4_K_M", "--tensor-type", "attn_q=Q8_0", "--imatrix", "/i m.gguf"),
        *("--effort", "fast", "--split-max-size", "2000000", "--metadata", "general.name=My model"),
        *("--out", "/o/a.gguf"),
    ]
    assert recipe_file(record) is None
    record.request = request.model_copy(update={"overwrite": True})
    assert shlex.split(command_of(record))[-1] == "--overwrite"
    for value in ("{% for m in messages %}\n{{ m }}\n{% endfor %}", "x" * 201, "@file"):
        long = recipe.with_options(metadata={"tokenizer.chat_template": value})
        record.request = request.model_copy(update={"recipe": long})
        assert recipe_file(record) == Path("/o/a.recipe.json")
        assert value not in command_of(record)
    in_blocks = recipe.model_copy(update={"rules": [rules[0], Rule(match="q", blocks="0", format="Q8_0")]})
    record.request = request.model_copy(update={"recipe": in_blocks})
    assert recipe_file(record) == Path("/o/a.recipe.json")


def test_a_recipe_that_options_cannot_say_is_saved_beside_the_output(panel, tmp_path):
    record = done()
    recipe = Recipe(default=Choice(format="Q8_0"))
    record.request = QuantizeRequest(model="/m", output=str(tmp_path / "a.gguf"), recipe=recipe)
    panel.show_record(record)
    assert "a.recipe.json" in texts(panel)
    said = []
    panel.message.connect(said.append)
    panel._save_recipe(record)
    assert (tmp_path / "a.recipe.json").read_text() == recipe.to_json()
    (tmp_path / "a.recipe.json").write_text("mine")
    panel._save_recipe(record)
    assert "says something else" in said[-1]
    assert (tmp_path / "a.recipe.json").read_text() == "mine"


def test_saving_the_recipe_is_whole_and_reads_no_foreign_file(panel, tmp_path, monkeypatch):
    record, said = done(), []
    recipe = Recipe(default=Choice(format="Q8_0"))
    record.request = QuantizeRequest(model="/m", output=str(tmp_path / "a.gguf"), recipe=recipe)
    panel.message.connect(said.append)
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    file = tmp_path / "a.recipe.json"
    panel._save_recipe(record)
    panel._save_recipe(record)
    assert (said, len(synced)) == ([f"The recipe is in {file}."] * 2, 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    monkeypatch.setattr(Path, "read_text", lambda path, **_: pytest.fail(f"{path} is read"))
    with file.open("wb") as huge:
        huge.truncate(1 << 40)
    panel._save_recipe(record)
    assert "says something else" in said[-1]
    record.request = record.request.model_copy(update={"output": str(tmp_path / "none" / "a.gguf")})
    panel._save_recipe(record)
    assert said[-1].endswith("the recipe cannot be written: No such file or directory.")


def test_the_command_quotes_what_a_shell_would_split():
    record = done()
    record.folder = "/state/my jobs/1"
    record.output = "/out/a b.gguf"
    record.request = QuantizeRequest(
        model="/models/it's tiny",
        output="/out/a b.gguf",
        recipe=Recipe(default=Choice(format="Q8_0")),
        threads=2,
        memory_limit=8_000_000_000,
        measure=Measure(text="/texts/$HOME.txt", windows=3),
    )
    assert shlex.split(command_of(record)) == [
        *(program(), "quantize", "/models/it's tiny", "--recipe", "/out/a b.recipe.json"),
        *("--out", "/out/a b.gguf", "--measure", "/texts/$HOME.txt", "--windows", "3"),
        *("--threads", "2", "--memory-limit", "8000000000"),
    ]


def test_the_command_does_it_again(tmp_path: Path):
    """Run by a shell, as one pastes it, over what an earlier run has written."""
    (tmp_path / "it's tiny").symlink_to(SAMPLE_MODEL)
    recipe = Recipe(default=Choice(format="Q8_0"))
    (tmp_path / "out put.recipe.json").write_text(recipe.to_json())
    output = tmp_path / "out put.gguf"
    output.write_text("an earlier run")
    request = QuantizeRequest(
        model=str(tmp_path / "it's tiny"),
        output=str(output),
        recipe=recipe,
        threads=1,
        overwrite=True,
        measure=Measure(text=str(EVALUATION_TEXT), windows=1),
    )
    record = JobRecord(1, job="1", state="done", output=str(output), request=request)
    command = command_of(record).removeprefix(shlex.quote(program()))
    command = f"{shlex.quote(sys.executable)} -m engine.cli{command}"
    ran = subprocess.run(
        f"{command} --json", shell=True, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    result = QuantizeResult.model_validate_json(ran.stdout.splitlines()[-1])
    assert output.stat().st_size == result.bytes
    assert result.report is not None
    assert result.report.windows == 1
