"""The inspector follows the selection and drops what comes late."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.views.inspector import Inspector, histogram_figure
from engine.api.events import HistogramRead
from tests.app.small_state import DOWN, NORM, make_state


class FakeInspection:
    """Keeps what was asked; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable, Callable]] = []

    def histogram(self, model: Path, tensor: str, then: Callable, failed: Callable) -> None:
        self.asked.append((tensor, then, failed))


def read(tensor: str) -> HistogramRead:
    return HistogramRead(
        id=1,
        tensor=tensor,
        path="",
        width=0.5,
        count=16384,
        minimum=-0.41,
        maximum=0.39,
        mean=0.0001,
        deviation=0.03,
    )


COUNTS = np.array([[-0.5, 0.0], [10.0, 16374.0]])


@pytest.fixture
def parts(qtbot: QtBot):
    state, inspection = make_state(), FakeInspection()
    inspector = Inspector(state, inspection)
    qtbot.addWidget(inspector)
    inspector.resize(300, 600)
    inspector.show()
    qtbot.waitUntil(lambda: state.plan is not None)
    yield state, inspection, inspector
    state.finish()


def facts(inspector: Inspector) -> dict[str, str]:
    """The visible facts, as a screen reader has them."""
    names = [label.accessibleName() for label in inspector.findChildren(QLabel) if label.isVisible()]
    return dict(name.split(": ", 1) for name in names if ": " in name)


def test_it_names_the_next_step_when_nothing_is_selected(parts):
    state, inspection, inspector = parts
    assert "Select a tensor" in inspector._empty.text()
    state.close()
    assert "Open a model" in inspector._empty.text()
    assert not inspection.asked


def test_facts_of_a_tensor_and_why(parts):
    state, _, inspector = parts
    state.select((state.rows[1].key,))
    shown = facts(inspector)
    assert shown["Shape"] == "64 × 160"
    assert shown["Source"] == "BF16, 20.5 kB"
    assert shown["Format"] == "Q5_0, 5.5 bits"
    assert shown["Size"] == "20.5 kB → 7.04 kB"
    assert shown["Chosen by"] == "the default"
    assert "160 columns" in shown["Note"]


def test_a_rule_that_chose_is_named(parts):
    state, _, inspector = parts
    state.select((state.rows[0].key,))
    assert facts(inspector)["Chosen by"].startswith("rule ")


def test_a_kept_tensor_says_why(parts):
    state, _, inspector = parts
    state.select((state.rows[2].key,))
    shown = facts(inspector)
    assert shown["Note"] == "kept in F32: one-dimensional"
    assert "Method" not in shown


def test_facts_follow_the_recipe(qtbot: QtBot, parts):
    state, _, inspector = parts
    state.select((state.rows[1].key,))
    recipe = state.document.recipe
    state.change_recipe(
        "Q8_0", recipe.model_copy(update={"default": recipe.default.model_copy(update={"format": "Q8_0"})})
    )
    qtbot.waitUntil(lambda: facts(inspector)["Format"].startswith("Q8_0"))


def test_only_the_last_of_quick_selections_is_read(qtbot: QtBot, parts):
    state, inspection, _ = parts
    for row in state.rows:
        state.select((row.key,))
    qtbot.waitUntil(lambda: bool(inspection.asked))
    assert [tensor for tensor, *_ in inspection.asked] == [NORM]


def test_a_histogram_shows_its_figures(qtbot: QtBot, parts):
    state, inspection, inspector = parts
    state.select((state.rows[0].key,))
    qtbot.waitUntil(lambda: bool(inspection.asked))
    _, then, _ = inspection.asked[0]
    then(read(DOWN), COUNTS)
    assert inspector.figure.figure.series[0].y == [10.0, 16374.0]
    figures = inspector._figures.text().replace("\N{NO-BREAK SPACE}", " ")
    assert figures == "min −0.41 · max 0.39 · mean 0.0001 · σ 0.03"


def test_a_late_histogram_is_dropped(qtbot: QtBot, parts):
    state, inspection, inspector = parts
    state.select((state.rows[0].key,))
    qtbot.waitUntil(lambda: bool(inspection.asked))
    _, then, failed = inspection.asked[0]
    state.select((state.rows[1].key,))
    then(read(DOWN), COUNTS)
    failed("too late")
    assert inspector.figure.figure is None
    assert "Reading" in inspector.figure._text.text()


def test_a_tensor_that_cannot_be_read_says_why(qtbot: QtBot, parts):
    state, inspection, inspector = parts
    state.select((state.rows[0].key,))
    qtbot.waitUntil(lambda: bool(inspection.asked))
    inspection.asked[0][2]("The file is gone.")
    assert inspector.figure._text.text() == "The file is gone."


def test_a_hidden_inspector_asks_nothing_until_shown(qtbot: QtBot, parts):
    state, inspection, inspector = parts
    inspector.hide()
    state.select((state.rows[0].key,))
    inspector._ask()
    assert not inspection.asked
    inspector.show()
    qtbot.waitUntil(lambda: bool(inspection.asked))


def test_the_figure_is_the_array():
    figure = histogram_figure(read(DOWN), COUNTS)
    assert figure.rows() == [(-0.5, 0.0, 10.0), (0.0, 0.5, 16374.0)]
    assert (figure.x.name, figure.y.name) == ("weight", "count")


def test_what_is_copied_says_so(parts, qtbot: QtBot):
    state, _, inspector = parts
    down = state.plan.tensors[0].name
    tensors = [
        tensor.model_copy(update={"stored": state.plan.tensors[0].format, "copyable": True})
        if tensor.name == down
        else tensor
        for tensor in state.export.tensors
    ]
    with qtbot.waitSignal(state.plan_changed):
        state.take_export(state.export.model_copy(update={"tensors": tensors}))
    state.select((down,))
    assert facts(inspector)["Method"] == "copied"
