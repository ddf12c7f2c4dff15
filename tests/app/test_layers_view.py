"""The layers view driven by keys and clicks: selection, edits, filter, and what survives them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QObject, QPoint, Qt
from PySide6.QtGui import QAction, QGuiApplication, QRegion
from PySide6.QtWidgets import QApplication, QComboBox, QWidget

from app.models.layer_lines import Column
from app.models.layers import MANY
from app.models.offers import NAME, NAME_ROLE, SUMMARY
from app.state import State
from app.views.layers import LayersView
from app.views.offers import OfferPopup
from engine.api.formats import FORMATS
from tests.app.layers import UNUSED, hostile_model, open_model, summaries

CONTROL = Qt.KeyboardModifier.ControlModifier
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def state(qtbot) -> Iterator[State]:
    state = State()
    yield state
    state.finish()


@pytest.fixture
def view(qtbot, state) -> LayersView:
    view = LayersView(state)
    qtbot.addWidget(view)
    view.resize(1000, 600)
    view.show()
    qtbot.waitExposed(view)
    return view


@pytest.fixture
def opened(qtbot, state, view) -> LayersView:
    open_model(state, 4)
    qtbot.waitUntil(lambda: state.plan is not None)
    return view


class Paints(QObject):
    """Notes what of a widget is painted."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self.regions: list[QRegion] = []
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint:
            self.regions.append(QRegion(event.region()))
        return False


def key(part: str, block: int) -> str:
    return f"blk.{block}.{part}.weight"


def click(qtbot, view: LayersView, name: str, column: Column = Column.NAME, *, add: bool = False) -> None:
    index = view.model.index_of(name, column)
    view.table.scrollTo(index)
    where = view.table.visualRect(index).center()
    modifier = CONTROL if add else Qt.KeyboardModifier.NoModifier
    qtbot.mouseClick(view.table.viewport(), LEFT, modifier, where)


def planned(qtbot, state: State, gesture: Callable[[], None]) -> None:
    with qtbot.waitSignal(state.plan_changed):
        gesture()


def formats(state: State, *keys: str) -> list[str]:
    by_name = {tensor.name: tensor.format for tensor in state.plan.tensors}
    return [by_name[name] for name in keys]


def popup(qtbot) -> QWidget:
    qtbot.waitUntil(lambda: QApplication.activePopupWidget() is not None)
    return QApplication.activePopupWidget()


def test_clicks_select_for_all_views(qtbot, state, opened):
    click(qtbot, opened, key("attn_q", 1))
    assert state.selection == (key("attn_q", 1),)
    click(qtbot, opened, key("attn_k", 1), add=True)
    assert state.selection == (key("attn_q", 1), key("attn_k", 1))


def test_another_view_selects_here(state, opened):
    opened.collapse_all()
    state.select((key("ffn_up", 0), key("ffn_down", 3)))
    assert [row.key for row in opened.table.chosen] == [key("ffn_up", 0), key("ffn_down", 3)]
    assert opened.table.currentIndex() == opened.model.index_of(key("ffn_down", 3))
    rect = opened.table.visualRect(opened.table.currentIndex())
    assert opened.table.viewport().rect().contains(rect.center())


def test_bits_for_the_selection_are_one_undo_step(qtbot, state, opened):
    messages = []
    opened.message.connect(messages.append)
    names = [key("attn_q", 0), key("attn_q", 1), key("attn_k", 2)]
    state.select(tuple(names))
    before = formats(state, *names)
    planned(qtbot, state, lambda: opened.set_bits(8))
    assert formats(state, *names) == ["Q8_0"] * 3
    assert state.document.undo_stack.undoText() == "Q8_0 for 3 tensors"
    assert state.document.undo_stack.count() == 1
    planned(qtbot, state, state.document.undo_stack.undo)
    assert formats(state, *names) == before
    planned(qtbot, state, lambda: opened.set_bits(3))
    assert formats(state, *names) == ["Q3_K"] * 3
    planned(qtbot, state, state.document.undo_stack.undo)
    opened.set_bits(7)
    assert messages == ["No format has 7 bits"]


def test_a_group_stands_for_its_tensors(qtbot, state, opened):
    group = opened.model.index(2, 0)
    qtbot.mouseClick(
        opened.table.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, opened.table.visualRect(group).center()
    )
    assert len(state.selection) == 7
    planned(qtbot, state, lambda: opened.set_bits(6))
    assert formats(state, key("attn_q", 1), key("ffn_up", 1), key("ffn_up", 2)) == ["Q6_K", "Q6_K", "Q4_K"]


def test_a_cell_offers_formats_and_edits_the_selection(qtbot, state, opened):
    click(qtbot, opened, key("ffn_down", 1))
    click(qtbot, opened, key("ffn_down", 2), add=True)
    index = opened.model.index_of(key("ffn_down", 2), Column.FORMAT)
    opened.table.setCurrentIndex(index)
    state.select((key("ffn_down", 1), key("ffn_down", 2)))
    opened.table.edit(index)
    box = opened.table.findChild(QComboBox)
    items = {box.itemData(row): box.model().item(row) for row in range(box.count())}
    assert not items["Q4_K"].isEnabled()
    assert items["Q4_K"].text() == "Q4_K  →  F16"
    assert items["Q4_K"].toolTip() == "Q4_K needs rows that 256 divides; 172 columns get F16"
    assert items["BF16"].isEnabled()
    list_of = box.view()
    qtbot.waitUntil(list_of.isVisible)
    place = list_of.visualRect(items["BF16"].index()).center()
    planned(qtbot, state, lambda: qtbot.mouseClick(list_of.viewport(), LEFT, pos=place))
    assert formats(state, key("ffn_down", 1), key("ffn_down", 2)) == ["BF16", "BF16"]
    assert state.document.undo_stack.count() == 1


@pytest.mark.parametrize("blocks", [1, MANY + 1])
def test_an_open_box_follows_the_plan(qtbot, state, view, blocks):
    open_model(state, blocks)
    qtbot.waitUntil(lambda: state.plan is not None)
    view.expand_all()
    click(qtbot, view, key("attn_q", 0))
    index = view.model.index_of(key("attn_q", 0), Column.FORMAT)
    view.table.setCurrentIndex(index)
    view.table.edit(index)
    box = view.table.findChild(QComboBox)
    assert box.currentData() == "Q4_K"
    planned(qtbot, state, lambda: state.apply_preset("Q8_0"))
    assert box.currentData() == "Q8_0"


def test_a_plan_for_many_groups_is_painted_inside_them(qtbot, state, view):
    open_model(state, MANY + 1)
    qtbot.waitUntil(lambda: state.plan is not None)
    view.expand_all()
    port = view.table.viewport()
    place = view.table.visualRect(view.model.index_of(key("attn_q", 0), Column.FORMAT))
    before = port.grab(place).toImage()
    paints = Paints(port)
    planned(qtbot, state, lambda: state.apply_preset("Q8_0"))
    qtbot.waitUntil(lambda: any(region.contains(place.center()) for region in paints.regions))
    assert port.grab(place).toImage() != before


def test_double_click_edits_the_method(qtbot, state, opened):
    index = opened.model.index_of(key("attn_q", 0), Column.METHOD)
    click(qtbot, opened, key("attn_q", 0), Column.METHOD)
    where = opened.table.visualRect(index).center()
    qtbot.mouseDClick(opened.table.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, where)
    box = opened.table.findChild(QComboBox)
    assert box.currentText() == "search"
    qtbot.waitUntil(box.view().isVisible)
    qtbot.keyClick(box.view(), Qt.Key.Key_Home)
    planned(qtbot, state, lambda: qtbot.keyClick(box.view(), Qt.Key.Key_Return))
    assert index.data() == "rtn"


def test_the_list_of_formats_of_a_norm_says_why_there_is_no_choice(qtbot, state, opened):
    click(qtbot, opened, key("attn_norm", 0))
    opened.choose_format()
    shown = popup(qtbot)
    given = shown.model.item(shown.model.row_of("F32"), NAME)
    assert given.text() == "F32"
    assert given.data(Qt.ItemDataRole.AccessibleTextRole).endswith("chosen now")
    other = shown.model.item(shown.model.row_of("Q4_K"), NAME)
    assert not other.data(Qt.ItemDataRole.AccessibleTextRole).endswith("chosen now")
    assert shown._note.text() == "Bits per weight, scales and all. These tensors stay in F32."
    shown.close()


def test_what_stays_as_the_source_has_it_says_in_what(qtbot, state, view):
    """Of a GGUF source: not in F32, and in types that nothing is quantized to."""
    summary, export = summaries(1)
    kept = {"attn_norm": "F16", "attn_q": "I32"}
    tensors = [
        tensor.model_copy(update={"fixed": kept.get(tensor.name.split(".")[-2], "")})
        for tensor in export.tensors
    ]
    state.opening(Path("model"))
    state.take_summary(summary)
    state.take_export(export.model_copy(update={"tensors": tensors}))
    qtbot.waitUntil(lambda: state.plan is not None)
    for parts, types in (
        (["attn_norm"], "F16"),
        (["attn_q"], "I32"),
        (["attn_norm", "attn_q"], "F16 and I32"),
    ):
        state.select(tuple(key(part, 0) for part in parts))
        view.choose_format()
        shown = popup(qtbot)
        assert shown._note.text() == f"Bits per weight, scales and all. These tensors stay in {types}."
        shown.close()
    cell = view.model.index_of(key("attn_q", 0), Column.METHOD)
    assert "there is nothing to choose" in cell.data(Qt.ItemDataRole.ToolTipRole)
    assert not any(offer.possible for offer in view.edits.methods([view.model.row_at(cell)]))


def test_the_list_of_formats(qtbot, state, opened):
    click(qtbot, opened, key("attn_q", 0))
    opened.choose_format()
    shown = popup(qtbot)
    assert isinstance(shown, OfferPopup)
    assert [shown.model.item(row, NAME).data(NAME_ROLE) for row in range(26)] == [
        info.name for info in sorted(FORMATS.values(), key=lambda info: -info.bits)
    ]
    line = [shown.model.item(shown.model.row_of("Q6_K"), column).text() for column in range(3)]
    assert line == ["Q6_K", "6.56 bits", FORMATS["Q6_K"].summary]
    present = shown.view.currentIndex()
    assert present.data(NAME_ROLE) == "Q4_K"
    assert present.data(Qt.ItemDataRole.AccessibleTextRole).endswith("chosen now")
    qtbot.keyClicks(shown.view, "q5_k")
    planned(qtbot, state, lambda: qtbot.keyClick(shown.view, Qt.Key.Key_Return))
    assert formats(state, key("attn_q", 0)) == ["Q5_K"]
    qtbot.waitUntil(lambda: QApplication.activePopupWidget() is None)


def test_formats_that_do_not_fit_are_greyed_with_the_reason(qtbot, state, opened):
    state.select((key("ffn_down", 0),))
    opened.choose_format()
    shown = popup(qtbot)
    row = shown.model.row_of("Q4_K")
    assert shown.model.item(row, NAME).text() == "Q4_K  →  F16"
    assert shown.model.item(row, SUMMARY).text() == "Q4_K needs rows that 256 divides; 172 columns get F16"
    place = shown.view.visualRect(shown.model.index(row, NAME)).center()
    qtbot.mouseClick(shown.view.viewport(), LEFT, pos=place)
    assert shown.isVisible()
    assert state.document.undo_stack.count() == 0
    qtbot.keyClick(shown.view, Qt.Key.Key_Escape)
    assert not shown.isVisible()


def test_formats_for_many_tensors_say_how_many_get_another_one(qtbot, state, opened):
    state.select((key("ffn_down", 0), key("ffn_down", 1), key("attn_q", 0)))
    opened.choose_format()
    shown = popup(qtbot)
    row = shown.model.row_of("Q6_K")
    assert shown.model.item(row, SUMMARY).text() == f"2 of 3 get F16 · {FORMATS['Q6_K'].summary}"
    place = shown.view.visualRect(shown.model.index(row, NAME)).center()
    planned(qtbot, state, lambda: qtbot.mouseClick(shown.view.viewport(), LEFT, pos=place))
    assert formats(state, key("ffn_down", 1), key("attn_q", 0)) == ["F16", "Q6_K"]


def test_pins_withstand_edits_and_say_so(qtbot, state, opened):
    messages = []
    opened.message.connect(messages.append)
    state.select((key("attn_q", 0),))
    planned(qtbot, state, opened.toggle_pin)
    planned(qtbot, state, lambda: (opened.select_all(), opened.set_bits(8)))
    assert formats(state, key("attn_q", 0), key("attn_q", 1)) == ["Q4_K", "Q8_0"]
    assert "1 pinned tensor was left as it is; P on it alone lets go of it" in messages[0]
    state.select((key("attn_q", 0),))
    opened.set_bits(8)
    assert messages[1:] == ["1 pinned tensor was left as it is; P lets go of it"]
    planned(qtbot, state, opened.toggle_pin)
    planned(qtbot, state, lambda: opened.set_bits(8))
    assert formats(state, key("attn_q", 0)) == ["Q8_0"]


def test_apply_to_all_of_a_role(qtbot, state, opened):
    state.select((key("attn_k", 1),))
    planned(qtbot, state, lambda: opened.set_bits(6))
    planned(qtbot, state, opened.apply_to_role)
    assert formats(state, *(key("attn_k", block) for block in range(4))) == ["Q6_K"] * 4
    assert state.document.undo_stack.undoText() == "Q6_K for all of role k"


def test_what_is_kept_says_why(state, opened):
    messages = []
    opened.message.connect(messages.append)
    state.select((key("attn_norm", 1),))
    opened.set_bits(8)
    state.select(())
    opened.choose_format()
    state.select((UNUSED,))
    opened.toggle_pin()
    assert messages == [
        "1 tensor kept in F32: one-dimensional",
        "Select tensors first",
        "This tensor has no place in the file.",
    ]
    assert state.document.undo_stack.count() == 0


def test_a_model_without_an_output_says_why(state, view):
    summary, _ = summaries(1)
    messages = []
    view.message.connect(messages.append)
    state.opening(Path("model"))
    state.take_summary(summary)
    state.select((summary.tensors[3].name,))
    view.choose_format()
    state.refuse_export("Nobody runs this architecture.")
    view.set_bits(4)
    assert messages == [
        "What the file will hold is not known yet",
        "There is nothing to choose: Nobody runs this architecture.",
    ]


def test_plans_and_filters_leave_the_tree_as_it_was(qtbot, state, opened):
    table = opened.table
    opened.collapse_all()
    opened.expand_all()
    table.collapse(opened.model.index(1, 0))
    table.verticalScrollBar().setValue(4)
    state.select((key("attn_q", 2),))
    scrolled = table.verticalScrollBar().value()
    planned(qtbot, state, lambda: opened.set_bits(8))
    assert table.verticalScrollBar().value() == scrolled
    opened.filter.field.setText("down|attn_q")
    assert table.isExpanded(opened.model.index(0, 0))
    assert [row.key for row in table.chosen] == [key("attn_q", 2)]
    opened.filter.field.clear()
    assert not table.isExpanded(opened.model.index(1, 0))
    assert table.isExpanded(opened.model.index(2, 0))
    assert [row.key for row in table.chosen] == [key("attn_q", 2)]
    assert state.selection == (key("attn_q", 2),)
    assert table.verticalScrollBar().value() == scrolled


def test_header_clicks_sort_and_clear(qtbot, opened):
    header = opened.table.header()
    unsorted = opened.model.keys_shown()
    place = QPoint(header.sectionViewportPosition(Column.SHAPE) + 20, header.height() // 2)
    orders = []
    titles = []
    for _ in range(3):
        qtbot.mouseClick(header.viewport(), LEFT, pos=place)
        orders.append(opened.model.keys_shown())
        titles.append(opened.model.headerData(Column.SHAPE, Qt.Orientation.Horizontal))
    assert titles == ["Shape ↑", "Shape ↓", "Shape"]
    assert orders[0] != unsorted
    assert orders[1] != orders[0]
    assert orders[2] == unsorted


def test_the_context_menu(qtbot, state, opened):
    click(qtbot, opened, key("attn_v", 1))
    where = opened.table.visualRect(opened.model.index_of(key("attn_v", 1))).center()
    opened.table.customContextMenuRequested.emit(where)
    menu = popup(qtbot)
    actions = {action.text().replace("&", ""): action for action in menu.actions()}
    assert {"Format…", "Method", "Pin", "Apply to all of role v"} <= set(actions)
    actions["Select all of role v"].trigger()
    assert set(state.selection) == {key("attn_v", block) for block in range(4)}
    actions["Copy names"].trigger()
    assert QGuiApplication.clipboard().text() == "model.layers.1.self_attn.v_proj.weight"
    menu.close()
    actions["Format…"].trigger()
    shown = popup(qtbot)
    qtbot.keyClicks(shown.view, "q8")
    planned(qtbot, state, lambda: qtbot.keyClick(shown.view, Qt.Key.Key_Return))
    assert formats(state, key("attn_v", 1), key("attn_v", 3)) == ["Q8_0", "Q6_K"], "the line that was clicked"


def test_what_is_copied_says_so(qtbot, state, view):
    summary, export = summaries(1)
    tensors = [
        tensor.model_copy(update={"stored": "Q4_K", "copyable": True})
        if tensor.name == key("attn_q", 0)
        else tensor
        for tensor in export.tensors
    ]
    state.opening(Path("model"))
    state.take_summary(summary)
    state.take_export(export.model_copy(update={"tensors": tensors}))
    qtbot.waitUntil(lambda: state.plan is not None)
    index = view.model.index_of(key("attn_q", 0), Column.METHOD)
    assert index.data() == "copied"
    assert "as they are" in index.data(Qt.ItemDataRole.ToolTipRole)
    state.select((key("attn_q", 0),))
    assert [offer.possible for offer in view.edits.methods(view.table.chosen)] == [False, False]
    planned(qtbot, state, lambda: view.set_bits(6))
    assert view.model.index_of(key("attn_q", 0), Column.METHOD).data() == "search"


def test_the_context_menu_says_what_a_pin_would_do(qtbot, state, opened):
    def offered(*keys: str) -> str:
        state.select(keys)
        where = opened.table.visualRect(opened.model.index_of(keys[0])).center()
        opened.table.customContextMenuRequested.emit(where)
        menu = popup(qtbot)
        texts = [action.text().replace("&", "") for action in menu.actions()]
        menu.close()
        return next(text for text in texts if text.lower().endswith("pin"))

    state.select((key("attn_v", 0), key("attn_norm", 0)))
    planned(qtbot, state, opened.toggle_pin)
    assert offered(key("attn_v", 0), key("attn_norm", 0)) == "Unpin"
    assert offered(key("attn_v", 0), key("attn_q", 0)) == "Pin"
    assert offered(key("attn_norm", 0)) == "Pin"


@pytest.mark.parametrize(
    ("keys", "bits", "said"),
    [
        ([("ffn_down", 0), ("ffn_down", 1), ("attn_q", 0)], 6, "2 of 3 tensors: they get F16"),
        ([("ffn_down", 0), ("attn_q", 0)], 8, "1 of 2 tensors: it gets F16"),
        ([("ffn_down", 0)], 4, "this tensor: it gets F16"),
        ([("ffn_down", 0), ("ffn_down", 1)], 5, "these 2 tensors: they get F16"),
    ],
)
def test_bits_that_do_not_fit_say_so(qtbot, state, opened, keys, bits, said):
    messages = []
    opened.message.connect(messages.append)
    state.select(tuple(key(*of) for of in keys))
    if bits == 4:
        planned(qtbot, state, lambda: opened.edits.set_format(opened.table.chosen, "BF16"))
    planned(qtbot, state, lambda: opened.set_bits(bits))
    assert messages == [f"{ ({4: 'Q4_K', 5: 'Q5_K', 6: 'Q6_K', 8: 'Q8_0'}[bits]) } does not fit {said}"]


def test_what_fits_is_not_spoken_of(qtbot, state, opened):
    messages = []
    opened.message.connect(messages.append)
    state.select((key("attn_q", 0),))
    planned(qtbot, state, lambda: opened.set_bits(6))
    assert messages == []


def test_menus_and_messages_of_a_hostile_name_are_no_markup(qtbot, state, view):
    hostile_model(state)
    qtbot.waitUntil(lambda: state.plan is not None)
    state.select((key("attn_q", 0),))
    where = view.table.visualRect(view.model.index_of(key("attn_q", 0))).center()
    view.table.customContextMenuRequested.emit(where)
    menu = popup(qtbot)
    said = [action.text() + action.toolTip() for action in menu.findChildren(QAction)]
    menu.close()
    assert not [text for text in said if "<b>" in text]
    planned(qtbot, state, lambda: view.set_bits(8))
    assert state.document.undo_stack.undoText().isprintable()


def test_edits_are_written_as_few_rules(qtbot, state, opened):
    state.select(tuple(key("attn_v", block) for block in range(4)))
    planned(qtbot, state, lambda: opened.set_bits(8))
    written = json.loads(state.document.recipe.to_json())
    assert {"method": "search", "format": "Q8_0", "params": {}, "match": "v"} in written["rules"]


def test_two_thousand_tensors(qtbot, state, view):
    open_model(state, 290)
    qtbot.waitUntil(lambda: state.plan is not None)
    assert view.model.total == 2034
    assert not view.table.isExpanded(view.model.index(5, 0))
    view.select_all()
    planned(qtbot, state, lambda: view.set_bits(8))
    assert len(state.document.recipe.rules) == 0
    assert formats(state, key("attn_q", 289)) == ["Q8_0"]
