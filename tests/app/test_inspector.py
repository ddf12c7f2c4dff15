"""The inspector follows the selection and drops what comes late."""

from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.views.inspector import SETTLE_MS, Inspector
from engine.api.activations import HeadRange, InputStatistics, Peak
from engine.api.model import Role
from engine.api.recipe import Rule
from engine.api.statistics import PERCENTS, QuantizationError, WeightStatistics
from tests.app.reading import FakeDesk, FakeReader, drawn
from tests.app.small_state import GATE, NORM, make_state


def known(tensor: str, error: bool = False) -> WeightStatistics:
    lost = {"format": "Q5_0", "method": "search", "squared": 0.018, "mean_squared": 1e-5, "snr": 17.4}
    lost |= {"cosine": 0.99, "saturation": 0.01, "levels_used": 30, "levels": 32}
    lost |= {"worst_channel": 1500, "worst_channel_error": 0.62}
    return WeightStatistics(
        tensor=tensor,
        canonical="blk.0.ffn_down.weight",
        role=Role.DOWN,
        block=0,
        shape=(64, 256),
        dtype="BF16",
        count=16384,
        min=-0.41,
        max=0.3912345,
        mean=0.0001,
        std=0.03,
        absmax=0.41,
        kurtosis=4.5,
        zeros=0.125,
        percentiles=[float(place) for place in range(len(PERCENTS))],
        beyond_sigmas=3,
        large=0,
        outlier_channels=[7, 3],
        outlier_ratio=5.5,
        error=QuantizationError.model_validate(lost) if error else None,
    )


@pytest.fixture
def parts(qtbot: QtBot):
    state, reader, desk = make_state(), FakeReader(), FakeDesk()
    inspector = Inspector(state, reader, desk)
    qtbot.addWidget(inspector)
    inspector.resize(300, 600)
    inspector.show()
    qtbot.waitUntil(lambda: state.plan is not None)
    yield state, reader, inspector
    state.finish()


def facts(inspector: Inspector) -> dict[str, str]:
    """The visible facts, as a screen reader has them."""
    names = [label.accessibleName() for label in inspector.findChildren(QLabel) if label.isVisible()]
    return dict(name.split(": ", 1) for name in names if ": " in name)


def test_it_names_the_next_step_when_nothing_is_selected(parts):
    state, reader, inspector = parts
    assert "Select a tensor" in inspector._empty.text()
    state.close()
    assert "Open a model" in inspector._empty.text()
    assert not reader.figures


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
    state, reader, _ = parts
    for row in state.rows:
        state.select((row.key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    assert [asked.view.tensor for asked in reader.figures] == [NORM]


def test_the_histogram_comes_first_then_all_statistics_then_the_error(qtbot: QtBot, parts):
    state, reader, inspector = parts
    state.select((state.rows[1].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    take = reader.figures[0].take
    take(drawn(last=False))
    assert inspector.figure.figure.series[0].y == [10.0, 16374.0]
    assert not reader.statistics_asked
    take(drawn())
    [(tensor, recipe, then, _)] = reader.statistics_asked
    assert (tensor, recipe) == (GATE, None)
    then(known(GATE))
    shown = facts(inspector)
    assert (shown["Min"], shown["Kurtosis"], shown["Zeros"]) == ("−0.410", "4.50", "12.5 %")
    assert shown["Outlier channels"] == "7, 3"
    assert "Error" not in shown
    tensor, recipe, then, _ = reader.statistics_asked[1]
    assert (tensor, recipe.default.format, recipe.rules) == (GATE, "Q5_0", [])
    then(known(GATE, error=True))
    assert facts(inspector)["Error"] == "1.80 %"
    assert facts(inspector)["SNR"] == "17.4 dB"
    assert facts(inspector)["Worst channel error"] == "62.0 % in channel 1,500"
    assert len(reader.statistics_asked) == 2


def test_all_statistics_are_copied_with_all_digits(qtbot: QtBot, parts):
    state, reader, inspector = parts
    state.select((state.rows[1].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(drawn())
    reader.statistics_asked[0][2](known(GATE))
    inspector.statistics.copy.click()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert f"Tensor: {GATE}" in lines
    assert "Max: 0.3912345" in lines
    assert "Outlier channels: 7;3" in lines


def test_the_error_follows_the_recipe_of_this_tensor_alone(qtbot: QtBot, parts):
    state, reader, inspector = parts
    state.select((state.rows[1].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(drawn())
    reader.statistics_asked[0][2](known(GATE))
    reader.statistics_asked[1][2](known(GATE, error=True))
    recipe = state.document.recipe
    for match, asked in (("^blk.0.ffn_down.weight$", 2), ("gate", 3)):
        rules = [*recipe.rules, Rule(match=match, format="Q8_0")]
        with qtbot.waitSignal(state.plan_changed):
            state.change_recipe(match, recipe.model_copy(update={"rules": rules}))
        changed = match == "gate"  # then the error is no longer what the recipe makes of it
        assert (inspector.statistics.statistics.error is None) == changed
        qtbot.wait(2 * SETTLE_MS)
        assert len(reader.statistics_asked) == asked
    assert reader.statistics_asked[2][1].default.format == "Q8_0"


def test_another_selection_forgets_what_is_shown_and_asked(qtbot: QtBot, parts):
    state, reader, inspector = parts
    state.select((state.rows[1].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(drawn())
    reader.statistics_asked[0][2](known(GATE))
    reader.left.clear()
    state.select((state.rows[0].key,))
    assert inspector.figure.figure is None
    assert inspector.statistics.isHidden()
    assert {"inspector", "statistics"} <= set(reader.left)


def test_a_tensor_that_cannot_be_read_says_why(qtbot: QtBot, parts):
    state, reader, inspector = parts
    state.select((state.rows[0].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].fail("The file is gone.")
    assert inspector.figure._text.text() == "The file is gone."


def test_a_hidden_inspector_asks_nothing_until_shown(qtbot: QtBot, parts):
    state, reader, inspector = parts
    inspector.hide()
    state.select((state.rows[0].key,))
    qtbot.wait(300)
    assert not reader.figures
    inspector.show()
    qtbot.waitUntil(lambda: bool(reader.figures))


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


def test_what_reaches_the_tensor_is_told_when_activations_are_there(qtbot: QtBot, parts, tmp_path: Path):
    state, reader, inspector = parts
    state.select((state.rows[1].key,))
    qtbot.waitUntil(lambda: bool(reader.figures))
    reader.figures[0].take(drawn())
    reader.statistics_asked[0][2](known(GATE))
    reader.statistics_asked[1][2](known(GATE, error=True))
    assert reader.activations_asked == [None, None]
    inspector._desk.take(tmp_path / "file")
    qtbot.waitUntil(lambda: len(reader.statistics_asked) == 3)
    assert reader.activations_asked[2] == tmp_path / "file"
    found = known(GATE, error=True)
    found.inputs = InputStatistics(
        ran="a prompt of 3 tokens",
        rows=3,
        min=-2.0,
        max=2457.25,
        absmax=2457.25,
        mean_square=9.5,
        percentiles=[0.0] * len(PERCENTS),
        outlier_channels=[37],
        outlier_ratio=31.0,
        beyond=1 / 3,
        beyond_channel=37,
        peaks=[Peak(window=0, position=position, token=token, channel=37, value=value)
               for position, token, value in ((0, "<s>", 2457.25), (0, "<s>", 80.0), (2, "the", -7.0))],
        cache=[HeadRange(of="key", head=head, min=-1.0 - head, max=2.0) for head in range(2)],
    )  # fmt: skip
    reader.statistics_asked[2][2](found)
    shown = facts(inspector)
    assert shown["Input range"].startswith("−2.00 to 2")
    assert shown["Input outliers"] == "37"
    assert shown["Largest at"] == "“<s>” (0), “the” (2)"
    assert shown["Cache, keys"] == "0: −1.00 to 2.00; 1: −2.00 to 2.00"
    assert "Cache, values" not in shown
    assert shown["Outlier channels"] == "7, 3"
    assert "2457.25 in channel 37 at “<s>”, token 0 of window 0" in inspector.statistics.text()
    assert len(reader.statistics_asked) == 3
