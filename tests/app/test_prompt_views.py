"""Activations in the tabs of one tensor: a prompt token by token, and what the recipe makes wrong of it."""

import pytest

from app.figure_reader import Drawn
from app.views.errors import ErrorsView
from app.views.picture import AROUND, PictureView
from engine.api.figures import Axis, Figure, Series
from tests.app.bench import Bench
from tests.app.reading import heat
from tests.app.small_state import DOWN

TOKENS = [f"{place} token" for place in range(6)]


@pytest.fixture
def picture(bench: Bench, tmp_path) -> PictureView:
    bench.desk.file = tmp_path / "of a prompt"
    view = PictureView(bench.state, bench.reader, bench.desk)
    bench.show(view)
    bench.select(0)  # 64 x 256
    bench.asked()
    return view


@pytest.fixture
def errors(bench: Bench, tmp_path) -> ErrorsView:
    bench.desk.file = tmp_path / "of a prompt"
    view = ErrorsView(bench.state, bench.reader, bench.desk)
    bench.show(view)
    bench.select(0)
    bench.asked()
    return view


def choose(box, data: str) -> None:
    box.setCurrentIndex(box.findData(data))


def test_inputs_of_a_prompt_are_a_picture(bench, picture, tmp_path):
    choose(picture.source, "activations")
    question = bench.asked(2)
    view = question.view
    assert (view.source, view.tensor, view.what, view.recipe) == ("activations", DOWN, "value", None)
    assert view.activations == str(tmp_path / "of a prompt")
    question.take(heat([[1.0] * 256] * 6, rows=TOKENS, y=Axis(name="token", counts=True)))
    assert picture.line.isVisible()
    bench.state.mark_channel(100)
    assert picture.figure._heat_map.marked == (None, 100)
    picture.channel.click()
    part = bench.asked(3).view
    assert (part.first_column, part.stop_column) == (100 - AROUND, 100 + AROUND + 1)
    assert (part.first_row, part.stop_row) in ((0, 6), (0, 0))


def test_errors_of_outputs_are_asked_for_whole(bench, picture):
    """Their columns are other channels than those one looked at."""
    choose(picture.source, "activations")
    bench.asked(2).take(heat([[1.0] * 256] * 6, rows=TOKENS))
    bench.state.mark_channel(100)
    picture.channel.click()
    bench.asked(3)
    choose(picture.what, "error")
    view = bench.asked(4).view
    assert (view.what, view.first_column, view.stop_column) == ("error", 0, 0)
    assert view.recipe is not None
    assert not picture.channel.isVisible()  # an input channel is none of these


def test_codes_are_of_weights(bench, picture):
    choose(picture.what, "code")
    bench.asked(2)
    choose(picture.source, "activations")
    assert bench.asked(3).view.what == "value"
    item = picture.what.model().item(picture.what.findData("code"))
    assert not item.isEnabled()
    assert "no codes" in item.toolTip()
    choose(picture.source, "weights")
    assert bench.asked(4).view.source == "weights"
    assert item.isEnabled()


@pytest.mark.parametrize("view", ["picture", "errors"])
def test_without_activations_they_are_a_click_away(bench, view, request):
    shown = request.getfixturevalue(view)
    bench.desk.file = None
    choose(shown.source, "activations")
    assert "No activations" in shown.hint.text
    assert shown.offer.isVisible()
    bench.nothing_more(1)


def test_what_a_text_does_not_tell_offers_a_prompt(bench, picture):
    choose(picture.source, "activations")
    bench.asked(2).fail("Type a prompt.")
    assert picture.hint.text == "Type a prompt."
    assert picture.offer.prompt.isVisible()
    assert picture.again.isVisible()


def test_the_error_of_outputs_by_what(bench, errors):
    choose(errors.scope, "group")
    bench.asked(2)
    choose(errors.source, "activations")
    view = bench.asked(3).view
    assert (view.source, view.scope) == ("activations", "input")
    items = errors.scope.model()
    assert not items.item(errors.scope.findData("group")).isEnabled()
    choose(errors.scope, "token")
    question = bench.asked(4)
    assert question.view.scope == "token"
    axes = {"x": Axis(name="token", counts=True), "y": Axis(name="squared error")}
    series = [Series(name="error", x=range(6), y=[0.1, 0.2, 0.9, 0.1, 0.1, 0.1], width=1)]
    question.take(Drawn(Figure(title="t", series=series, names=TOKENS, **axes), None, 1, 1, True))
    bench.qtbot.waitUntil(lambda: bool(errors.model.lines))
    assert errors.model.text(errors.model.lines[0], 0) == "2 token"
    assert errors.model.to_csv(errors.model.lines).splitlines()[1].startswith("2 token,0.9,")
    errors.lines.table.selectRow(0)
    assert errors.figure._plot._marked.value() == 2
    assert bench.state.channel is None  # a token is no channel
    choose(errors.source, "weights")
    assert bench.asked(5).view.scope == "input"
