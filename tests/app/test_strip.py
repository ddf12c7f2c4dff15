"""What the strip says: before the plan, with it, and when the machine is too small."""

from functools import partial
from pathlib import Path

import pytest
from PySide6.QtCore import QSettings

from app.machine import Room, read_room
from app.settings import Settings
from app.state import State
from app.views.strip import Strip
from engine.api.model import ModelSummary, Role, TensorSummary
from engine.api.needs import Speeds
from engine.api.plan import ExportSummary, ExportTensor
from engine.api.presets import ModelFacts

TENSORS = [
    TensorSummary(
        name=f"block{block}.down", shape=(1024, 512), dtype="BF16", role=Role.DOWN, block=block, bytes=2**20
    )
    for block in range(8)
]
SUMMARY = ModelSummary(
    path="/models/tiny",
    kind="folder",
    architecture="llama",
    parameters=8 * 2**19,
    bytes=8 * 2**20,
    blocks=8,
    tied_embeddings=True,
    quantization=None,
    others={},
    notes=[],
    tensors=TENSORS,
)
EXPORT = ExportSummary(
    facts=ModelFacts(architecture="llama", blocks=8),
    header_bytes=1000,
    alignment=32,
    notes=[],
    tensors=[
        ExportTensor(name=t.name, shape=t.shape, role=t.role, block=t.block, sources=(t.name,))
        for t in TENSORS
    ],
)


def room(folder: str, free: int | None = 53 * 10**9, available: int | None = 20 * 10**9) -> Room:
    return Room(folder, free, None if available is None else 24 * 10**9, available)


@pytest.fixture
def settings(qapp, tmp_path):
    return Settings(QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))


@pytest.fixture
def state(qapp):
    state = State()
    yield state
    state.finish()


def planned(qtbot, state: State) -> None:
    with qtbot.waitSignal(state.plan_changed, check_params_cb=lambda: state.plan is not None):
        state.opening(Path("/models/tiny"))
        state.take_summary(SUMMARY)
        state.take_export(EXPORT)


def shown(qtbot, state: State, settings: Settings, read=room) -> Strip:
    strip = Strip(state, settings, read_room=read)
    qtbot.addWidget(strip)
    return strip


def test_nothing_open(qtbot, state, settings):
    assert shown(qtbot, state, settings).text == "No model is open."


def test_the_source_before_there_is_a_plan(qtbot, state, settings):
    strip = shown(qtbot, state, settings)
    state.opening(Path("/models/tiny"))
    assert strip.text == "Opening tiny…"
    state.take_summary(SUMMARY)
    assert strip.text == "8.39 MB · 16 bits per weight · plan being made…"


def test_a_model_to_look_at_only_says_why(qtbot, state, settings):
    strip = shown(qtbot, state, settings)
    state.opening(Path("/models/tiny"))
    state.take_summary(SUMMARY)
    state.refuse_export("Bitwright cannot write this architecture.")
    assert strip.facts["ratio"].text == "can be looked at, not exported"
    assert strip.facts["ratio"].toolTip() == "Bitwright cannot write this architecture."


def test_the_plan_in_short_and_exact_on_hover(qtbot, state, settings):
    settings.measure = False
    strip = shown(qtbot, state, settings)
    planned(qtbot, state)
    qtbot.waitUntil(lambda: bool(strip.facts["disk"].text))
    bytes_after = state.file_bytes
    size = f"{bytes_after / 1e6:.3g} MB"
    assert strip.facts["size"].text == f"8.39 MB → {size}"
    assert f"{bytes_after:,} bytes in the file: predicted, exact" in strip.facts["size"].toolTip()
    assert strip.facts["bits"].text == f"{state.plan.bits_per_weight:.2f} bpw"
    assert strip.facts["ratio"].text == f"{SUMMARY.bytes / bytes_after:.1f} × smaller"
    assert strip.facts["disk"].text == f"disk {size} of 53 GB free"
    assert strip.facts["memory"].text == "memory ≈ 430 MB of 24 GB"
    assert not any(fact.failed for fact in strip.facts.values())
    assert strip.facts["size"].accessibleName() == f"size: 8.39 MB → {size}"


def test_no_time_before_the_machine_is_measured(qtbot, state, settings):
    strip = shown(qtbot, state, settings)
    planned(qtbot, state)
    assert strip.facts["time"].text == ""
    assert strip.facts["time"].isHidden()


def test_the_time_is_that_of_the_measured_speeds(qtbot, state, settings):
    strip = shown(qtbot, state, settings)
    planned(qtbot, state)
    slow = dict.fromkeys(("Q4_K search best", "Q6_K search best", "F32"), 1e4)  # 4.19 million weights
    settings.speeds = Speeds(encode=slow, read=1e9, write=1e9, multiply=1e9)
    time = strip.facts["time"]
    qtbot.waitUntil(lambda: bool(time.text))
    assert time.text == "about 7 min"
    assert "Predicted from the speeds of this machine: quantize 7:" in time.toolTip()
    settings.speeds = Speeds(encode={"Q8_0": 1e6}, read=1e9, write=1e9, multiply=1e9)
    qtbot.waitUntil(lambda: not time.text)  # nothing is known of Q4_K
    settings.speeds = Speeds(encode=dict.fromkeys(slow, 1e9), read=1e9, write=1e9, multiply=1e9)
    qtbot.waitUntil(lambda: bool(time.text))
    assert time.text.endswith(" s")


def test_a_disk_that_is_too_small(qtbot, state, settings):
    settings.output_folder = "/full"
    strip = shown(qtbot, state, settings, partial(room, free=1_000_000))
    planned(qtbot, state)
    qtbot.waitUntil(lambda: strip.facts["disk"].failed)
    assert strip.facts["disk"].text.endswith("1 MB are free in /full")
    assert "choose another folder" in strip.facts["disk"].toolTip()
    assert not strip.facts["disk"]._icon.isHidden()
    strip.grab()


def test_memory_that_is_too_small_until_nothing_is_measured(qtbot, state, settings):
    strip = shown(qtbot, state, settings, partial(room, available=440_000_000))
    planned(qtbot, state)
    qtbot.waitUntil(lambda: strip.facts["memory"].failed)
    assert "440 MB are available" in strip.facts["memory"].text
    settings.measure = False
    strip.set_folder("/elsewhere")
    qtbot.waitUntil(lambda: not strip.facts["memory"].failed)


def test_a_system_that_does_not_tell(qtbot, state, settings):
    strip = shown(qtbot, state, settings, partial(room, free=None, available=None))
    planned(qtbot, state)
    qtbot.waitUntil(lambda: not strip._reader.busy)
    assert (strip.facts["disk"].text, strip.facts["memory"].text) == ("", "")


def test_the_chosen_folder_counts(qtbot, state, settings):
    asked = []

    def read(folder: str) -> Room:
        asked.append(folder)
        return room(folder)

    strip = shown(qtbot, state, settings, read)
    planned(qtbot, state)
    qtbot.waitUntil(lambda: not strip._reader.busy)
    strip.set_folder("/chosen")
    qtbot.waitUntil(lambda: asked[-1] == "/chosen")
    assert asked[0] == "/models"


def test_it_never_widens_the_window(qtbot, state, settings):
    strip = shown(qtbot, state, settings, partial(room, free=1, available=1))
    strip.set_folder("/a/folder/with/" + "a-long-name/" * 30)
    planned(qtbot, state)
    qtbot.waitUntil(lambda: strip.facts["disk"].failed)
    assert strip.minimumSizeHint().width() < 700


def test_the_room_of_this_machine(tmp_path):
    found = read_room(str(tmp_path / "not" / "there" / "yet"))
    assert found.free is not None
    assert found.free > 0
    if Path("/proc/meminfo").exists():
        assert 0 < found.available <= found.total
