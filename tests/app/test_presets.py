"""The list of presets by clicks and keys: sizes to the byte, reasons, and the commands of the palette."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.models.offers import FIGURE, NAME, SUMMARY
from app.state import State
from app.views.offers import OfferPopup
from app.views.palette import words
from app.views.presets import WAITING, PresetChooser
from engine.api.editing import set_choice, set_pinned
from engine.api.importance import importance_facts
from engine.api.presets import COPY, IMPORTANCE_WANTED, PRESETS, preset_groups
from engine.api.units import size
from tests.app.layers import open_model

LEFT = Qt.MouseButton.LeftButton


class Chooser:
    """A button, the list under it, and a state to choose for."""

    def __init__(self, qtbot: QtBot) -> None:
        self.qtbot, self.state = qtbot, State()
        self.window = QWidget()
        qtbot.addWidget(self.window)
        self.window.resize(900, 700)
        self.button = QPushButton("Preset", self.window)
        self.window.show()
        open_model(self.state, 4)
        qtbot.waitUntil(lambda: self.state.plan is not None)
        self.chooser = PresetChooser(self.state, self.state.apply_preset, self.window)

    def open(self) -> OfferPopup:
        self.chooser.open_below(self.button)
        popup = self.window.findChildren(OfferPopup)[-1]
        self.qtbot.waitUntil(lambda: all(text != WAITING for text in self.column(popup, FIGURE).values()))
        return popup

    @staticmethod
    def column(popup: OfferPopup, column: int) -> dict[str, str]:
        names = (*PRESETS, COPY)
        return {name: popup.model.item(popup.model.row_of(name), column).text() for name in names}

    def sizes(self) -> dict[str, int]:
        popup = self.open()
        found = {}
        for name in (*PRESETS, COPY):
            said = popup.model.item(popup.model.row_of(name), NAME).toolTip().splitlines()[-1]
            if said.endswith("bytes: predicted, exact"):
                found[name] = int(said.split()[0].replace(",", ""))
        popup.close()
        return found

    def apply(self, name: str) -> int:
        """The size that the window says once a preset is chosen."""
        with self.qtbot.waitSignal(self.state.plan_changed):
            self.state.apply_preset(name)
        assert self.state.file_bytes is not None
        return self.state.file_bytes


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator[Chooser]:
    made = Chooser(qtbot)
    yield made
    made.state.finish()


def test_every_preset_has_its_line_under_a_heading(shown: Chooser):
    popup = shown.open()
    names = [name for names in preset_groups().values() for name in names]
    assert sorted(names) == sorted((*PRESETS, COPY))
    headings = [popup.model.item(row, 0).text() for row in popup.model.headings]
    assert headings == list(preset_groups())
    assert headings[:2] == ["8 bits and more", "6 and 5 bits"]
    room = popup.screen().availableGeometry()
    assert room.contains(popup.geometry())
    popup.close()


def test_sizes_are_those_that_choosing_gives(shown: Chooser):
    sizes = shown.sizes()
    assert sorted(sizes) == sorted({*PRESETS, COPY} - {"MXFP4_MOE"})
    for name in ("Q6_K", "IQ2_M", "F16"):
        assert sizes[name] == shown.apply(name), name


def test_sizes_count_pins_and_metadata(shown: Chooser):
    plain = shown.sizes()
    state = shown.state
    recipe = state.document.recipe.with_options(metadata={"general.author": "A" * 1000})
    recipe = set_choice(recipe, state.planner, state.plan, [2], format="F32")
    plan = state.planner.plan(recipe)
    state.change_recipe("both", set_pinned(recipe, state.planner, plan, [2], True))
    sizes = shown.sizes()
    assert sizes["Q6_K"] > plain["Q6_K"] + 1000
    assert sizes["Q6_K"] == shown.apply("Q6_K")


def test_sizes_count_what_is_told_of_the_importance_matrix(shown: Chooser):
    state = shown.state
    state.set_importance("/data/im.gguf")
    unknown = shown.sizes()
    names = [tensor.name for tensor in state.export.tensors]
    state.take_importance(importance_facts("/data/im.gguf", names, ["t" * 40], 9, 9))
    sizes = shown.sizes()
    assert {name for name in sizes if sizes[name] == unknown[name]} == {"F32", "F16", "BF16", COPY}
    for name in ("Q8_0", "BF16"):
        assert sizes[name] == shown.apply(name), name


def test_what_makes_no_sense_is_greyed_with_its_reason(shown: Chooser):
    popup = shown.open()
    row = popup.model.row_of("MXFP4_MOE")
    assert not popup.model.item(row, NAME).isEnabled()
    assert "mixtures of experts" in popup.model.item(row, SUMMARY).text()
    shown.chooser.refresh("")
    action = shown.chooser.actions["MXFP4_MOE"]
    assert not action.isEnabled()
    assert "mixtures of experts" in action.statusTip()
    popup.close()


def test_those_that_want_an_importance_matrix_say_so(shown: Chooser):
    wanting = {name for name, text in shown.column(shown.open(), SUMMARY).items() if "wants an imp" in text}
    assert wanting == set(IMPORTANCE_WANTED)
    recipe = shown.state.document.recipe
    shown.state.change_recipe("imatrix", recipe.model_copy(update={"imatrix": "/data/im.gguf"}))
    assert not any("wants an imp" in text for text in shown.column(shown.open(), SUMMARY).values())


def test_chosen_by_keys_and_by_a_click(shown: Chooser, qtbot: QtBot):
    state = shown.state
    popup = shown.open()
    assert popup.model.item(popup.view.currentIndex().row(), NAME).text() == "Q4_K_M"
    qtbot.keyClicks(popup.view, "iq3_m")
    with qtbot.waitSignal(state.plan_changed):
        qtbot.keyClick(popup.view, Qt.Key.Key_Return)
    assert state.document.version.name == "IQ3_M"
    popup = shown.open()
    present = popup.model.item(popup.model.row_of("IQ3_M"), NAME)
    assert present.data(Qt.ItemDataRole.AccessibleTextRole).endswith("chosen now")
    assert size(state.file_bytes) == shown.column(popup, FIGURE)["IQ3_M"]
    place = popup.view.visualRect(popup.model.index(popup.model.row_of("Q4_0"), SUMMARY)).center()
    with qtbot.waitSignal(state.plan_changed):
        qtbot.mouseClick(popup.view.viewport(), LEFT, pos=place)
    assert state.document.version.name == "Q4_0"
    assert [state.document.undo_stack.text(step) for step in range(2)] == ["Preset IQ3_M", "Preset Q4_0"]


def test_headings_and_escape_choose_nothing(shown: Chooser, qtbot: QtBot):
    popup = shown.open()
    place = popup.view.visualRect(popup.model.index(popup.model.headings[2], NAME)).center()
    qtbot.mouseClick(popup.view.viewport(), LEFT, pos=place)
    assert popup.isVisible()
    qtbot.keyClick(popup.view, Qt.Key.Key_Escape)
    assert not popup.isVisible()
    assert shown.state.document.undo_stack.count() == 0


def test_the_palette_has_them_all(shown: Chooser, qtbot: QtBot):
    actions = shown.chooser.actions
    assert [words(action) for action in actions.values()][:2] == ["Preset: F32", "Preset: F16"]
    with qtbot.waitSignal(shown.state.plan_changed):
        actions["Q5_0"].trigger()
    assert shown.state.document.version.name == "Q5_0"
    shown.chooser.refresh("Open a model first.")
    assert {action.statusTip() for action in actions.values()} == {"Open a model first."}
    shown.chooser.refresh("")
    assert actions["Q5_0"].isEnabled()
