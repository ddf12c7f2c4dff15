"""What a view shows where activations are to be gathered, and the line over those that are looked at."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QProgressBar, QSpinBox, QVBoxLayout, QWidget

from app import theme
from app.activations import ActivationsDesk
from app.models.jobs import share
from app.plain import as_tip, printable
from app.views.calibrate_sheet import LEAST_LENGTH, MOST_LENGTH, MOST_WINDOWS, TEXT_FILES
from app.views.file_list import FileList
from app.views.parts import button, named
from engine.api.jobs import ActivationsRequest

WIDTH = 560
MOST_SEED = 2**31 - 1
STEPS = 1000


class ActivationsOffer(QWidget):
    """Ways to gather activations; while that is done, how far it is and a way to stop it."""

    def __init__(self, desk: ActivationsDesk) -> None:
        super().__init__()
        self._desk = desk
        self.setFixedWidth(WIDTH)
        self.texts = FileList("Texts", "The sample text that ships with Bitwright.", TEXT_FILES, folders=True)
        self.windows = _number("Windows of text", 1, MOST_WINDOWS, "windows")
        self.windows.setToolTip("The most windows, shared among the texts; 100 and more are good")
        self.length = _number("Tokens of a window", LEAST_LENGTH, MOST_LENGTH, "length")
        self.length.setToolTip("Tokens of a window")
        self.seed = _number("Seed", 0, MOST_SEED, "seed")
        self.seed.setToolTip("Which windows, where the texts have more; the same seed takes the same ones")
        self.gather = button("Gather", "Run the model on these texts")
        self.gather.clicked.connect(self._gather)
        self.keep = button("Back", "Look at the activations that are there")
        self.keep.clicked.connect(lambda: desk.ask(False))
        self.prompt = named(QLineEdit(), "Prompt to run the model on")
        self.prompt.setPlaceholderText("or type a prompt: what does this sentence do")
        self.prompt.setToolTip("The model is run on just this text")
        self.prompt.setClearButtonEnabled(True)
        self.look = button("Look", "Run the model on the prompt")
        self.look.clicked.connect(self._look)
        self.prompt.returnPressed.connect(self._look)
        self.prompt.textChanged.connect(self._refresh)
        self.bar = named(QProgressBar(), "Progress of gathering activations")
        self.bar.setRange(0, STEPS)
        self.bar.setTextVisible(False)
        self.item = named(QLabel(textFormat=Qt.TextFormat.PlainText), "What is being done")
        self.item.setMinimumWidth(1)
        self.stop = button("Stop", "Stop gathering")
        self.stop.clicked.connect(desk.stop)
        self._ways, self._running = QWidget(), QWidget()
        self._lay_out()
        desk.changed.connect(self._refresh)
        self._refresh()

    def _lay_out(self) -> None:
        buttons, typed, running = QHBoxLayout(), QHBoxLayout(), QHBoxLayout(self._running)
        for one in (self.windows, QLabel("windows of"), self.length, QLabel("tokens, seed"), self.seed):
            buttons.addWidget(one)
        buttons.addStretch()
        buttons.addWidget(self.keep)
        buttons.addWidget(self.gather)
        typed.addWidget(self.prompt, 1)
        typed.addWidget(self.look)
        running.addWidget(self.bar, 1)
        running.addWidget(self.item, 1)
        running.addWidget(self.stop)
        ways = QVBoxLayout(self._ways)
        ways.addWidget(self.texts)
        ways.addLayout(buttons)
        ways.addLayout(typed)
        column = QVBoxLayout(self)
        column.addWidget(self._ways)
        column.addWidget(self._running)
        for row in (buttons, typed, running, ways, column):
            row.setContentsMargins(0, 0, 0, 0)
            row.setSpacing(2 * theme.SPACE)

    def _refresh(self) -> None:
        record = self._desk.record
        self._ways.setVisible(record is None)
        self._running.setVisible(record is not None)
        self.keep.setVisible(self._desk.file is not None)
        typed = bool(self.prompt.text().strip())
        self.look.setEnabled(typed)
        self.look.setToolTip("Run the model on the prompt" if typed else "Type a prompt first")
        if record is None:
            return
        done, progress = share(record), record.progress
        self.bar.setValue(round(STEPS * (done or 0)))
        waits = "waits for the job before it" if record.state == "waiting" else ""
        self.item.setText(printable(progress.item) if progress else waits)

    def _gather(self) -> None:
        self._desk.gather(
            self.texts.paths,
            windows=self.windows.value(),
            length=self.length.value(),
            seed=self.seed.value(),
        )

    def _look(self) -> None:
        self._desk.look(self.prompt.text())


def _number(name: str, least: int, most: int, field: str) -> QSpinBox:
    """A field for one of a request's numbers, with its default."""
    box = named(QSpinBox(), name)
    box.setRange(least, most)
    box.setGroupSeparatorShown(True)
    box.setValue(ActivationsRequest.model_fields[field].default)
    return box


class ActivationsLine(QWidget):
    """Of what the activations are that one sees, and a way to others."""

    def __init__(self, desk: ActivationsDesk) -> None:
        super().__init__()
        self._desk = desk
        self.words = named(QLabel(textFormat=Qt.TextFormat.PlainText), "Activations of")
        self.words.setMinimumWidth(1)  # a long prompt must not widen the view
        self.words.setForegroundRole(self.palette().ColorRole.PlaceholderText)
        self.other = button("Another text…", "Gather activations from another text or prompt")
        self.other.clicked.connect(lambda: desk.ask(True))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2 * theme.SPACE)
        row.addWidget(self.words, 1)
        row.addWidget(self.other)
        desk.changed.connect(self._refresh)
        self._refresh()
        self.hide()

    def _refresh(self) -> None:
        said = ". ".join(filter(None, (self._desk.of, self._desk.caution)))
        self.words.setText(f"Activations of: {printable(said)}")
        self.words.setToolTip(as_tip(said))
