"""The tabs that look into a model: what they ask for, when, and what they say where there is nothing."""

import pytest

from app.figure_reader import Drawn
from app.views.errors import ErrorsView
from app.views.figure_slot import SETTLE_MS
from app.views.heat_field import Part
from app.views.histograms import MOST_PINNED, HistogramsView
from app.views.picture import AROUND, PictureView
from engine.api.figures import Axis, Figure, Series
from engine.api.recipe import Rule
from resources import SAMPLE_MODEL
from tests.app.bench import Bench
from tests.app.listening import fake
from tests.app.reading import drawn, heat
from tests.app.small_state import DOWN, GATE


@pytest.fixture
def histograms(bench: Bench) -> HistogramsView:
    view = HistogramsView(bench.state, bench.reader, bench.desk)
    bench.show(view)
    return view


@pytest.fixture
def picture(bench: Bench) -> PictureView:
    view = PictureView(bench.state, bench.reader, bench.desk)
    bench.show(view)
    return view


@pytest.fixture
def errors(bench: Bench) -> ErrorsView:
    view = ErrorsView(bench.state, bench.reader, bench.desk)
    bench.show(view)
    return view


# ------------------------------------------------------------------------------ what they have in common


def test_nothing_selected_leads_to_the_table(qtbot, bench, histograms):
    assert "Select a tensor" in histograms.hint.text
    assert histograms.layers.isVisible()
    with qtbot.waitSignal(histograms.layers_wanted):
        histograms.layers.click()


def test_a_hidden_tab_asks_when_it_is_shown(bench, errors):
    errors.hide()
    bench.select(0)
    bench.nothing_more(0)
    errors.show()
    assert bench.asked().view.tensor == DOWN
    errors.hide()
    errors.show()
    bench.nothing_more(1)


def test_only_what_stands_still_is_asked_for(bench, histograms):
    for place in (0, 1, 2, 0):
        bench.select(place)
    assert bench.asked().view.tensor == DOWN
    bench.nothing_more(1)


def test_what_cannot_be_read_says_why_and_is_tried_again(bench, histograms):
    bench.select(0)
    bench.asked().fail("The file is gone.")
    assert histograms.hint.text == "The file is gone."
    histograms.again.click()
    assert bench.asked(2).view.tensor == DOWN


def test_progress_is_shown_until_the_last_answer(bench, histograms):
    bench.select(0)
    take = bench.asked().take
    take(drawn(last=False))
    assert histograms.slot.progress.text() == "not complete: 50 % is done"
    take(drawn())
    assert histograms.slot.progress.text() == ""


def test_another_model_leaves_nothing(bench, histograms):
    bench.select(0)
    bench.asked().take(drawn())
    histograms.pin.click()
    assert histograms.figure.figure is not None
    bench.state.close()
    bench.reader.dropped.emit()
    assert histograms.figure.figure is None
    assert histograms.pinned == []


# ------------------------------------------------------------------------------------- histograms


def test_scope_and_number_are_those_of_the_tensor(bench, histograms):
    bench.select(1)  # 64 x 160
    first = bench.asked().view
    assert (first.tensor, first.scope, first.index, first.recipe) == (GATE, "tensor", 0, None)
    assert not histograms.number.isVisible()
    for count, (scope, most) in enumerate((("output", 63), ("input", 159)), 2):
        histograms.scope.setCurrentIndex(histograms.scope.findData(scope))
        histograms.number.setValue(most + 5)
        view = bench.asked(count).view
        assert (view.scope, view.index, histograms.number.maximum()) == (scope, most, most)


def test_what_the_recipe_makes_is_laid_over_it(qtbot, bench, histograms):
    bench.select(1)
    bench.asked()
    histograms.quantized.click()
    assert bench.asked(2).view.recipe.default.format == "Q5_0"
    recipe = bench.state.document.recipe
    for count, match in ((2, "down"), (3, "gate")):
        rules = [*recipe.rules, Rule(match=match, format="Q8_0")]
        with qtbot.waitSignal(bench.state.plan_changed):
            bench.state.change_recipe(match, recipe.model_copy(update={"rules": rules}))
        bench.nothing_more(count)
    assert bench.reader.figures[-1].view.recipe.default.format == "Q8_0"
    bench.select(2)  # a norm, which is kept
    assert bench.asked(4).view.recipe is None
    assert not histograms.quantized.isEnabled()


def test_marks_are_shown_as_wanted_without_a_question(bench, histograms):
    bench.select(0)
    bench.asked()
    histograms.quantized.click()
    bench.asked(2).take(drawn())
    assert [mark.kind for mark in histograms.figure.figure.marks] == ["percentile"]
    histograms.levels.click()
    assert [mark.kind for mark in histograms.figure.figure.marks] == ["percentile", "clip"]
    histograms.percentiles.click()
    assert [mark.kind for mark in histograms.figure.figure.marks] == ["clip"]
    bench.nothing_more(2)


def test_up_to_four_are_pinned_and_closed_one_by_one(qtbot, bench, histograms):
    bench.select(0)
    assert not histograms.pin.isEnabled()
    bench.asked().take(drawn(title="first"))
    for _ in range(MOST_PINNED):
        histograms.pin.click()
    assert len(histograms.pinned) == MOST_PINNED
    assert not histograms.pin.isEnabled()
    assert "close one" in histograms.pin.toolTip()
    bench.select(1)
    bench.asked(2).take(drawn(title="second"))
    assert [pinned.figure.figure.title for pinned in histograms.pinned] == ["first"] * MOST_PINNED
    histograms.pinned[0].close_button.click()
    assert len(histograms.pinned) == MOST_PINNED - 1
    assert histograms.pin.isEnabled()


def test_pinned_histograms_are_told_apart(bench, histograms):
    """However narrow they are: both ends of a title are seen, and no legend lies on the bars."""
    name = "model.layers.2.mlp.down_proj.weight"
    bench.select(0)
    two = drawn(title=f"Weights of {name}, input channel 1,500 as Q6_K")
    two.figure.series.append(two.figure.series[0].model_copy(update={"name": "quantized (Q6_K)"}))
    bench.asked().take(two)
    for _ in range(MOST_PINNED):
        histograms.pin.click()
    title = histograms.pinned[0].title
    bench.qtbot.waitUntil(lambda: title.width() < 250)
    assert title.shown.startswith("Weights")
    assert title.shown.endswith("Q6_K")
    assert all(word in title.toolTip() for word in (name, "original", "quantized"))
    assert histograms.figure._plot._legend.isVisible()
    assert not histograms.pinned[0].figure._plot._legend.isVisible()


def test_each_scope_has_a_number_of_its_own(bench, histograms):
    bench.select(1)  # 64 x 160
    bench.state.mark_channel(150)
    assert bench.asked().view.index == 150
    for count, (scope, index) in enumerate((("output", 0), ("group", 0), ("input", 150)), 2):
        histograms.scope.setCurrentIndex(histograms.scope.findData(scope))
        view = bench.asked(count).view
        assert (view.scope, view.index) == (scope, index)


def test_a_marked_channel_is_looked_at(bench, histograms):
    bench.select(0)
    bench.asked()
    bench.state.mark_channel(200)
    view = bench.asked(2).view
    assert (view.scope, view.index) == ("input", 200)


def test_without_activations_it_says_how_to_get_some(bench, histograms):
    bench.select(0)
    bench.asked()
    histograms.source.setCurrentIndex(1)
    assert "No activations" in histograms.hint.text
    assert histograms.offer.isVisible()
    histograms.source.setCurrentIndex(0)
    bench.asked(2).take(drawn())
    assert histograms.figure.isVisible()


def test_of_activations_input_channels_can_be_looked_at(bench, histograms, tmp_path):
    bench.desk.file = tmp_path / "activations"
    bench.select(1)  # 64 x 160
    histograms.scope.setCurrentIndex(histograms.scope.findData("output"))
    bench.asked()
    histograms.source.setCurrentIndex(1)
    assert bench.asked(2).view.scope == "tensor"
    items = histograms.scope.model()
    assert [items.item(place).isEnabled() for place in range(4)] == [True, False, True, False]
    assert items.item(1).toolTip()
    bench.state.mark_channel(100)
    view = bench.asked(3).view
    assert (view.source, view.scope, view.index, view.tensor) == (
        "activations",
        "input",
        100,
        bench.state.rows[1].key,
    )
    assert histograms.number.isVisible()


def test_what_is_disabled_says_why(bench, histograms):
    bench.select(2)  # a norm, which is kept
    assert "one-dimensional" in histograms.quantized.toolTip()
    assert "first" in histograms.levels.toolTip()
    assert not histograms.levels.isEnabled()
    assert "nothing is shown" in histograms.pin.toolTip()
    bench.asked().take(drawn())
    assert histograms.pin.isEnabled()
    bench.select(1)
    assert not histograms.pin.isEnabled()
    histograms.quantized.click()
    assert histograms.levels.isEnabled()


# ---------------------------------------------------------------------------------------- pictures


def test_a_part_that_is_zoomed_to_is_asked_for_again(bench, picture):
    bench.select(0)
    whole = bench.asked()
    assert (whole.view.what, whole.view.stop_row, whole.view.recipe) == ("value", 0, None)
    whole.take(heat([[1, 2], [3, 4]], title="down"))
    picture.figure.zoomed.emit((8, 16, 32, 64))
    assert picture.figure.figure is not None  # what is there stays until the finer one comes
    part = bench.asked(2)
    view = part.view
    assert (view.first_row, view.stop_row, view.first_column, view.stop_column) == (8, 16, 32, 64)
    bench.select(1)
    assert picture.figure.figure is None
    assert bench.asked(3).view.stop_row == 0


def test_errors_and_codes_are_those_of_the_recipe(bench, picture):
    bench.select(0)
    bench.asked()
    picture.what.setCurrentIndex(picture.what.findData("code"))
    assert bench.asked(2).view.recipe.default.format == bench.state.planned(bench.state.rows[0]).format
    bench.select(2)
    assert picture.hint.text == "Kept in F32: one-dimensional. It is not quantized."


def test_another_kind_or_recipe_reads_the_whole_and_then_what_one_looks_at(bench, picture):
    bench.select(0)  # 64 x 256
    bench.asked().take(heat([[1.0] * 64] * 32, title="down", row_step=2, column_step=4))
    picture.figure.show_part(8, 16, 32, 64)
    bench.asked(2).take(heat([[1.0] * 32] * 8, title="down", first_row=8, first_column=32))
    picture.what.setCurrentIndex(picture.what.findData("error"))
    assert picture.figure.figure is None  # nothing of the values is left
    whole = bench.asked(3)
    assert (whole.view.what, whole.view.stop_row) == ("error", 0)
    whole.take(heat([[1.0] * 64] * 32, title="errors", row_step=2, column_step=4))
    part = bench.asked(4).view
    assert (part.first_row, part.stop_row, part.first_column, part.stop_column) == (8, 16, 32, 64)
    bench.reader.figures[-1].take(heat([[1.0] * 32] * 8, title="errors", first_row=8, first_column=32))
    picture.figure._heat_map.reset()
    assert picture.figure._heat_map.part == Part(0, 64, 0, 256)
    bench.qtbot.wait(2 * SETTLE_MS)
    recipe = bench.state.document.recipe
    rules = [*recipe.rules, Rule(match="down", format="Q8_0")]
    with bench.qtbot.waitSignal(bench.state.plan_changed):
        bench.state.change_recipe("down", recipe.model_copy(update={"rules": rules}))
    assert picture.figure.figure is None  # nothing of the recipe before is left


def test_a_channel_that_is_marked_does_not_hold_the_picture(bench, picture):
    bench.select(0)
    bench.state.mark_channel(250)
    bench.asked().take(heat([[1.0] * 64] * 32, title="down", row_step=2, column_step=4))
    picture.figure.show_part(40, 48, 0, 32)
    bench.asked(2).take(heat([[1.0] * 32] * 8, title="down", first_row=40))
    assert picture.figure._heat_map.part == Part(40, 48, 0, 32)


def test_the_marked_channel_can_be_zoomed_to(qtbot, bench, picture):
    bench.select(0)  # 64 x 256
    bench.asked().take(heat([[1.0] * 256] * 64))
    assert not picture.channel.isVisible()
    bench.state.mark_channel(100)
    assert picture.figure._heat_map.marked == (None, 100)
    picture.channel.click()
    view = bench.asked(2).view
    assert (view.first_column, view.stop_column) == (100 - AROUND, 100 + AROUND + 1)
    bench.state.mark_channel(256)
    assert not picture.channel.isVisible()


# ------------------------------------------------------------------------------------------ errors


def test_the_error_by_what(bench, errors):
    bench.select(0)
    assert bench.asked().view.scope == "input"
    errors.scope.setCurrentIndex(errors.scope.findData("group"))
    question = bench.asked(2)
    assert question.view.scope == "group"
    question.take(heat([[0.1, 0.2]]))
    assert errors.figure.figure is not None


def channel_errors(values: list[float]) -> Drawn:
    axes = {"x": Axis(name="input channel", counts=True), "y": Axis(name="relative squared error")}
    series = [Series(name="error", x=range(len(values)), y=values, width=1)]
    return Drawn(Figure(title="errors", series=series, **axes), None, 1, 1, True)


def test_where_most_is_lost_is_listed_and_a_click_marks_it(bench, errors):
    bench.select(0)
    bench.asked().take(channel_errors([0.1, 0.4, 0.1, 0.2]))
    bench.qtbot.waitUntil(lambda: bool(errors.model.lines))
    csv = errors.model.to_csv(errors.model.lines).splitlines()
    assert csv[:3] == ["input channel,error,× median", "1,0.4,2.6666666666666665", "3,0.2,1.3333333333333333"]
    errors.lines.table.selectRow(1)
    assert bench.state.channel == 3
    assert errors.figure._plot._marked.isVisible()
    assert errors.figure._plot._marked.value() == 3
    bench.state.mark_channel(1)
    assert [line.cell for line in errors.lines.table.selected()] == [(None, 1)]
    errors.scope.setCurrentIndex(errors.scope.findData("group"))
    assert errors.model.lines == []
    axes = {
        "x": Axis(name="group of 32 input channels", counts=True),
        "y": Axis(name="output channel", counts=True),
    }
    bench.asked(2).take(heat([[0.1, 0.2], [0.5, float("nan")]], **axes))
    bench.qtbot.waitUntil(lambda: bool(errors.model.lines))
    lines = errors.model.to_csv(errors.model.lines).splitlines()
    assert lines[0] == "output channel,group of 32 input channels,error,× median"
    assert lines[1].startswith("1,0,0.5,")
    header = errors.lines.table.horizontalHeader()
    assert all(header.sectionSize(place) >= header.sectionSizeHint(place) for place in range(4))
    assert len(lines) == 4
    errors.lines.table.selectRow(0)
    assert errors.figure._heat_map.marked == (1, 0)


def test_what_loses_nothing_says_so(bench, errors):
    bench.select(2)
    assert errors.hint.text == "Kept in F32: one-dimensional. It is not quantized."
    bench.nothing_more(0)


# ---------------------------------------------------------------------------------------- the window


def test_the_tabs_are_there_as_long_as_a_model_is(qtbot, window):
    """And each is a key away."""

    def titles() -> list[str]:
        return [window.tabs.tabText(place) for place in range(window.tabs.count())]

    assert titles() == ["Layers"]
    window.session.open(SAMPLE_MODEL)
    qtbot.waitUntil(lambda: window.state.phase == "ready", timeout=60_000)
    assert titles() == ["Layers", "Histograms", "Outliers", "Weights", "Error"]
    for place, name in enumerate(("layers", "histograms", "outliers", "weights", "error")):
        window.actions_table[f"show_{name}"].trigger()
        assert window.tabs.currentIndex() == place
    window.state.close()
    assert titles() == ["Layers"]
    assert window.pages.currentIndex() == 0


def test_a_look_at_a_prompt_stays_on_the_view(qtbot, window, tmp_path):
    """No result, no list of jobs pushes itself forward; the job is listed all the same."""
    window.tabs.addTab(window.views.outliers, "Outliers")
    window.tabs.setCurrentWidget(window.views.outliers)
    window.session.board._command = fake("job")
    window.state.opening(tmp_path)
    window.tabs.setCurrentWidget(window.views.outliers)
    window.session.activations.look("What does this sentence do")
    qtbot.waitUntil(lambda: window.session.activations.ready)
    assert window.tabs.currentWidget() is window.views.outliers
    assert window.tabs.indexOf(window.result) < 0
    assert window.jobs_dock.isHidden()
    assert [record.state for record in window.session.board.records] == ["done"]
