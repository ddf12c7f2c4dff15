"""What is remembered comes back; what a damaged file says does not count."""

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow, QWidget

from app.settings import RECENT_LENGTH, Settings
from engine.api.needs import Speeds


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settings.ini"


def opened(file) -> Settings:
    return Settings(QSettings(str(file), QSettings.Format.IniFormat))


def reopened(file, settings: Settings) -> Settings:
    settings._store.sync()
    return opened(file)


def test_defaults(qapp, file):
    settings = opened(file)
    assert (settings.theme, settings.recent, settings.output_folder) == ("system", [], "")
    assert (settings.measure, settings.speeds) == (True, None)


def test_values_survive_a_restart(qapp, file):
    settings = opened(file)
    settings.theme, settings.output_folder, settings.measure = "dark", "/data/é out", False
    again = reopened(file, settings)
    assert (again.theme, again.output_folder, again.measure) == ("dark", "/data/é out", False)


def test_speeds_survive_a_restart_and_are_told(qapp, qtbot, file):
    settings = opened(file)
    speeds = Speeds(encode={"Q4_K search best": 1.5e7}, read=1e9, write=5e8, multiply=2e11)
    with qtbot.waitSignal(settings.speeds_changed):
        settings.speeds = speeds
    assert reopened(file, settings).speeds == speeds


@pytest.mark.parametrize("count", [1, 2, RECENT_LENGTH + 3])
def test_recent_models_survive_a_restart_the_newest_first(qapp, file, count):
    settings = opened(file)
    for number in range(count):
        settings.add_recent(f"/models/{number}, with a comma")
    expected = [f"/models/{number}, with a comma" for number in reversed(range(count))][:RECENT_LENGTH]
    assert reopened(file, settings).recent == expected


def test_a_model_opened_again_moves_up(qapp, qtbot, file):
    settings = opened(file)
    settings.add_recent("/a")
    settings.add_recent("/b")
    with qtbot.waitSignal(settings.recent_changed):
        settings.add_recent("/a")
    assert settings.recent == ["/a", "/b"]
    with qtbot.waitSignal(settings.recent_changed):
        settings.remove_recent("/a")
    assert settings.recent == ["/b"]


@pytest.mark.parametrize("count", [0, 1])
def test_the_emptied_list_survives_a_restart(qapp, file, count):
    settings = opened(file)
    for path in ("/a", "/b")[: count + 1]:
        settings.add_recent(path)
    settings.remove_recent("/a")
    assert reopened(file, settings).recent == ["/b"][:count]


@pytest.mark.parametrize(
    "content",
    [
        "\x00\xff garbage",
        "[General]\ntheme=purple\nspeeds=fast\nmeasure=perhaps\nrecent=@Variant(\\0\\0\\0\\x8)\ngeometry=7\nlayout=x\n",
        "[General]\nspeeds={}\ntheme=@Invalid()\nrecent=,,\nlayout=@ByteArray(\\0\\x1)\ngeometry=@ByteArray(zz)\n",
        "[General]\nspeeds=@Invalid()\nrecent=@Invalid()\noutput_folder=@ByteArray(abc)\n",
        '[General]\nspeeds={"read": 1}\n',
        '[General]\nspeeds="{\\"encode\\":{},\\"read\\":0,\\"write\\":1,\\"multiply\\":1}"\n',
    ],
)
def test_damaged_values_count_as_not_set(qtbot, file, content):
    file.write_bytes(content.encode("latin-1"))
    settings = opened(file)
    window = QMainWindow()
    qtbot.addWidget(window)
    found = (settings.theme, settings.speeds, settings.measure, settings.output_folder)
    assert found == ("system", None, True, "")
    assert settings.recent == []
    assert not settings.restore_layout(window)


def window_with_dock(qtbot) -> tuple[QMainWindow, QDockWidget]:
    window = QMainWindow()
    qtbot.addWidget(window)
    window.setCentralWidget(QWidget())
    dock = QDockWidget("Dock", window)
    dock.setObjectName("dock")
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    return window, dock


def test_the_layout_survives_a_restart_and_can_be_reset(qtbot, file):
    settings = opened(file)
    window, dock = window_with_dock(qtbot)
    window.resize(701, 503)
    dock.hide()
    settings.save_layout(window)
    again = reopened(file, settings)
    other, other_dock = window_with_dock(qtbot)
    assert again.restore_layout(other)
    assert (other.width(), other.height()) == (701, 503)
    assert other_dock.isHidden()
    again.reset_layout()
    assert not again.restore_layout(other)


def test_without_a_store_it_is_the_users_own(qapp):
    assert Settings()._store.organizationName() == "Bitwright"
