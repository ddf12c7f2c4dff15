"""Pictures of every view and state of the window: `python -m tests.app.screenshots FOLDER [WIDTHxHEIGHT]`.

Drives the real window over the sample model, light and dark. Without a display Qt draws offscreen. State and
settings of the run lie under FOLDER, too; nothing of the user's is touched.
"""

import os
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from app.ending import Evidence, explain
from app.main_window import MainWindow
from app.session import Session
from app.settings import Settings
from app.views.calibrate_sheet import CalibrateSheet
from app.views.figure_slot import FigureSlot
from app.views.metadata_sheet import MetadataSheet
from app.views.offers import OfferPopup
from app.views.palette import CommandPalette
from app.views.run_sheet import RunSheet
from engine.api.events import ProgressMade
from engine.api.jobs import JobSummary, Measure, QuantizeRequest, Saved
from engine.api.recipe import Choice, Recipe
from resources import EVALUATION_TEXT, SAMPLE_MODEL

PATIENCE = 300.0
"""Seconds that a state may take to come."""

SETTLE_MS = 400


class Photographer:
    """One window and the folder for its pictures."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.folder = folder
        store = QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat)
        self.window = MainWindow(Session(Settings(store)))
        self.window.resize(width, height)
        self.window.show()
        self.window.session.start()

    def wait(self, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline, "the state did not come"
            QTest.qWait(20)
        QTest.qWait(SETTLE_MS)

    def take(self, name: str, widget: QWidget | None = None) -> None:
        """The whole window, with `widget` laid over its middle where that is a window of its own."""
        picture = self.window.grab()
        if widget is not None:
            from PySide6.QtGui import QPainter

            painter = QPainter(picture)
            over = widget.grab()
            painter.drawPixmap(
                (picture.width() - over.width()) // 2, (picture.height() - over.height()) // 2, over
            )
            painter.end()
        picture.save(str(self.folder / f"{name}.png"))

    def both(self, name: str, widget: QWidget | None = None) -> None:
        """Light and dark."""
        for mode in ("dark", "light"):
            self.window.actions_table[f"theme_{mode}"].trigger()
            QTest.qWait(SETTLE_MS)
            self.take(f"{name}-{mode}", widget)


def photograph(folder: Path, width: int, height: int) -> None:
    model = folder / "sample-model"
    if not model.exists():
        shutil.copytree(SAMPLE_MODEL, model)
    camera = Photographer(folder, width, height)
    window, state = camera.window, camera.window.state
    camera.wait(lambda: window.session.hello)
    camera.both("start")
    window.session.open(folder / "not-there")
    camera.wait(lambda: window.banner.banners)
    camera.both("error")
    window.banner.dismiss_all()
    window.session.open(model)
    camera.wait(lambda: state.plan is not None)
    state.select(("blk.1.ffn_down.weight",))
    window.layers.table.setFocus()
    window.layers.set_bits(6)
    camera.wait(lambda: window.inspector.findChild(QWidget, "plot") or window.inspector.isVisible())
    QTest.qWait(3000)
    camera.both("layers")
    palette = CommandPalette(window)
    palette.open(window.actions_table.all())
    QTest.qWait(SETTLE_MS)
    camera.both("palette")
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Escape)
    window.actions_table["preset"].trigger()
    QTest.qWait(2000)
    popup = window.findChild(OfferPopup)
    camera.both("presets", popup)
    popup.close()
    window.layers.choose_format()
    popup = window.layers.findChild(OfferPopup)
    camera.both("formats", popup)
    popup.close()
    window.actions_table["metadata"].trigger()
    metadata = window.findChild(MetadataSheet)
    metadata.form.fields["general.author"].field.setText("Ada Lovelace")
    metadata.form.fields["general.tags"].field.setText("small,,sample")
    metadata.form.commit()
    camera.both("metadata", metadata)
    metadata.tabs.setCurrentIndex(1)
    camera.both("metadata-keys", metadata)
    metadata.close()
    state.document.undo_stack.undo()
    window.show_help("window")
    camera.both("help")
    window.help_dock.hide()
    photograph_views(camera)
    photograph_importance(camera, model)
    window.actions_table["run"].trigger()
    sheet = QApplication.activeModalWidget()
    assert isinstance(sheet, RunSheet)
    (folder / sheet.name.text()).unlink(missing_ok=True)
    sheet.folder.setText(str(folder))
    camera.wait(lambda: sheet.run.isEnabled())
    camera.both("sheet", sheet)
    sheet.options.fold.click()
    sheet.options.split.setCurrentText("4 MB")
    camera.wait(lambda: sheet.run.isEnabled())
    camera.both("sheet-options", sheet)
    sheet.options.split.setCurrentText("one file")
    camera.wait(lambda: sheet.run.isEnabled())
    sheet.run.click()
    camera.wait(lambda: window.session.board.active)
    record = window.session.board.active[0]
    camera.wait(lambda: record.progress is not None and record.progress.stage in ("quantize", "evaluate"))
    camera.take("running-light")
    camera.wait(lambda: record.state not in ("starting", "running"))
    camera.both("result")
    window.show_log(record)
    QTest.qWait(SETTLE_MS)
    camera.both("log")
    photograph_jobs(camera, model)
    window.session.ended.connect(QApplication.quit)
    window.close()
    if window.isVisible():  # jobs are running: it asks once
        window.close()
    QApplication.exec()


def photograph_views(camera: Photographer) -> None:
    """The tabs that look into the model: nothing selected, then each of weights, then of activations."""
    window, state, views = camera.window, camera.window.state, camera.window.views
    tabs, desk = window.tabs, window.session.activations
    state.select(())
    tabs.setCurrentWidget(views.histograms)
    QTest.qWait(SETTLE_MS)
    camera.both("histograms-empty")
    state.select(("blk.1.ffn_down.weight",))
    views.histograms.quantized.setChecked(True)
    camera.wait(lambda: complete(views.histograms.slot))
    views.histograms.pin.click()
    state.select(("blk.1.attn_q.weight",))
    camera.wait(lambda: complete(views.histograms.slot))
    camera.both("histograms")
    tabs.setCurrentWidget(views.outliers)
    camera.wait(lambda: complete(views.outliers.slot) and views.outliers.model.lines)
    views.outliers.table.selectRow(0)
    camera.both("outliers")
    tabs.setCurrentWidget(views.picture)
    camera.wait(lambda: complete(views.picture.slot))
    camera.both("weights")
    views.picture.what.setCurrentIndex(1)
    camera.wait(lambda: complete(views.picture.slot))
    views.picture.channel.click()
    views.picture.figure.show_part(40, 56, 96, 128)
    QTest.qWait(1000)
    camera.wait(lambda: complete(views.picture.slot))
    camera.both("weights-zoomed")
    tabs.setCurrentWidget(views.errors)
    camera.wait(lambda: complete(views.errors.slot))
    camera.both("error")
    views.errors.scope.setCurrentIndex(2)
    camera.wait(lambda: complete(views.errors.slot))
    camera.both("error-groups")
    tabs.setCurrentWidget(views.outliers)
    views.outliers.source.setCurrentIndex(1)
    QTest.qWait(SETTLE_MS)
    camera.both("activations-empty")
    desk.look("What does this sentence do to the model?")
    camera.wait(lambda: desk.ready)
    camera.wait(lambda: complete(views.outliers.slot) and views.outliers.model.lines)
    camera.both("activations")
    tabs.setCurrentWidget(views.histograms)
    views.histograms.source.setCurrentIndex(1)
    camera.wait(lambda: complete(views.histograms.slot))
    camera.take("histograms-activations-light")
    for view, what, kind in ((views.picture, views.picture.what, 0), (views.errors, views.errors.scope, 3)):
        tabs.setCurrentWidget(view)
        view.source.setCurrentIndex(1)
        what.setCurrentIndex(kind)
        camera.wait(lambda view=view: complete(view.slot))
        camera.both(f"{view.accessibleName().lower()}-prompt")
    tabs.setCurrentWidget(window.layers)


def complete(slot: FigureSlot) -> bool:
    """Whether its last answer is there."""
    return slot.shown is not None and slot.shown.last


def photograph_importance(camera: Photographer, model: Path) -> None:
    """The sheet of a calibration, its result, and the view of the matrix: alone, with warnings, misfit."""
    window, state = camera.window, camera.window.state
    window.actions_table["calibrate"].trigger()
    sheet = QApplication.activeModalWidget()
    assert isinstance(sheet, CalibrateSheet)
    (camera.folder / sheet.name.text()).unlink(missing_ok=True)
    sheet.folder.setText(str(camera.folder))
    sheet.windows.setValue(8)
    sheet.merge.add([model / "imatrix.gguf"])
    camera.wait(lambda: sheet.run.isEnabled())
    camera.both("calibrate", sheet)
    sheet.run.click()
    camera.wait(lambda: window.importance.figure.figure is not None)
    camera.both("calibrated")
    window.actions_table["view_importance"].trigger()
    window.importance.table.selectRow(3)
    camera.wait(lambda: window.importance.figure.figure is not None)
    camera.both("importance")
    window.importance.plots.setCurrentIndex(1)
    QTest.qWait(SETTLE_MS)
    camera.take("importance-blocks-light")
    experts = camera.folder / "experts.dat"
    experts.write_bytes(unseen_matrix())
    window.session.importance.view(experts)
    camera.wait(lambda: window.importance.figure.figure is not None)
    camera.both("importance-misfit")
    state.document.undo_stack.undo()
    window.session.importance.close()
    window.tabs.setCurrentWidget(window.layers)
    window.banner.dismiss_all()


def unseen_matrix() -> bytes:
    """An importance matrix of another model, in the older format: an expert in it saw no token."""
    parts = [struct.pack("<i", 1)]
    name, values = b"blk.0.ffn_down_exps.weight", [1.0, 2.0, 3.0, 4.0] * 8
    parts += [struct.pack("<i", len(name)), name, struct.pack("<ii", 4, len(values))]
    parts += [struct.pack(f"<{len(values)}f", *values), struct.pack("<ii", 4, 5), b"texts"]
    return b"".join(parts)


def photograph_jobs(camera: Photographer, model: Path) -> None:
    """The list of jobs with one of each kind: some real, some that disk and engines could tell of."""
    window, board, desk = camera.window, camera.window.session.board, camera.window.session.desk
    window.session.upkeep.watch(False)  # it would find out that some are nowhere on disk
    board.take(list(remembered()), since=0)
    window.tabs.setCurrentWidget(window.layers)
    window.log_dock.hide()
    window.resizeDocks([window.jobs_dock], [330], Qt.Orientation.Vertical)
    recipe = window.state.document.recipe
    assert recipe is not None
    for name in ("first", "second", "third"):
        output = camera.folder / f"{name}.gguf"
        output.unlink(missing_ok=True)
        measure = Measure(text=str(EVALUATION_TEXT))
        desk.run(QuantizeRequest(model=str(model), output=str(output), recipe=recipe, measure=measure))
    killed = next(record for record in board.records if record.job == "killed")
    killed.end(explain(OUT_OF_MEMORY))
    board.changed.emit(killed)
    board.finished.emit(killed)
    first = board.active[0]
    camera.wait(lambda: first.saved is not None and first.progress is not None and first.progress.rate)
    window.jobs.select(first)
    camera.both("jobs")
    window.jobs.select(killed)
    desk.remove(killed)
    camera.both("remove")
    window.banner.dismiss_all()
    window.show_result(killed)
    camera.both("killed")
    window.close()
    camera.both("closing")
    for record in (*board.waiting, *board.active):
        board.cancel(record)
    camera.wait(lambda: not board.active)


OUT_OF_MEMORY = Evidence(
    code=9,
    signalled=True,
    job=True,
    progress=ProgressMade(
        stage="quantize", done=17, total=32, unit="blocks", item="blk.17.ffn_down", share=0.5
    ),
    saved=Saved(done=17, total=32, unit="blocks"),
    peak=21_400_000_000,
    memory=23_000_000_000,
)


def remembered() -> Iterator[JobSummary]:
    """Jobs of earlier days."""
    recipe = Recipe(default=Choice(format="Q8_0"))
    told = {
        "killed": ("interrupted", "", 17),
        "stopped": ("interrupted", "stopped on request", 4),
        "full": ("failed", "/data/full.gguf: the disk is full; free some space, then resume the job.", 30),
        "older": ("replaced", "job 20261123-101500-000001 started over on its output", 0),
        "elsewhere": ("running", "", 9),
    }
    for number, (name, (state, message, done)) in enumerate(told.items()):
        yield JobSummary.model_validate(
            {
                "id": name,
                "kind": "quantize",
                "state": state,
                "output": f"/data/{name}-Q4_K_M.gguf",
                "created": f"2026-01-0{number}",
                "message": message,
                "folder": f"/jobs/{name}",
                "saved": {"done": done, "total": 32, "unit": "blocks"} if done else None,
                "request": QuantizeRequest(
                    model="/models/llama-3.2-1b", output=f"/data/{name}-Q4_K_M.gguf", recipe=recipe
                ),
            }
        )


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    width, height = map(int, (sys.argv[2] if len(sys.argv) > 2 else "1280x800").split("x"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    app = QApplication([])
    app.setQuitOnLastWindowClosed(False)
    theme.apply_theme(app, "light")
    photograph(folder, width, height)


if __name__ == "__main__":
    main()
