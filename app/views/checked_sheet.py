"""A sheet before a job: what its fields say is checked by the engine, and only what passed is accepted."""

from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QDialog, QFormLayout, QFrame, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.views.check_list import CheckList
from app.views.parts import button, side_by_side, value_label
from engine.api.jobs import Check

SETTLE_MS = 300
"""How long fields must stand still before the checks are made again."""

TITLE = 40
"""Pixels of the screen that the window's title may take."""


class CheckedSheet(QDialog):
    """Those that stand on it make their fields, lay them out with `_lay_out`, and call `_change`.

    `run` accepts the sheet; `again` makes checks that could not be made once more.
    """

    def __init__(self, act: str, tip: str, parent: QWidget | None = None) -> None:
        """`act` and `tip` are those of `run`."""
        super().__init__(parent)
        self._tip = tip
        self._asked = 0
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        self.checks = CheckList()
        self.reason = value_label(f"Why {act} cannot be used")
        self.again = button("Check again", "Make the checks again")
        self.cancel = button("Cancel", "Close the sheet; nothing is written")
        self.run = button(act, "")
        self.run.setAutoDefault(True)
        self.run.setDefault(True)
        self.again.clicked.connect(self._ask)
        self.cancel.clicked.connect(self.reject)
        self.run.clicked.connect(self.accept)

    # ------------------------------------------------------------------- what a sheet says itself

    def _wrong(self) -> str:
        """Why what the fields say need not even be checked, a sentence; empty where it is worth it."""
        raise NotImplementedError

    def _check(self, then: Callable[[list[Check]], None], failed: Callable[[str], None]) -> None:
        """Ask the engine."""
        raise NotImplementedError

    def _remember(self) -> None:
        """Keep the choices for the next time."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------- inside

    def _lay_out(self, form: QFormLayout) -> None:
        """A small screen scrolls; the buttons stay in sight."""
        form.setHorizontalSpacing(4 * theme.SPACE)
        form.setVerticalSpacing(3 * theme.SPACE)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._page = QWidget()
        page = QVBoxLayout(self._page)
        page.setContentsMargins(*[4 * theme.SPACE] * 4)
        page.addLayout(form)
        page.addStretch()
        scroll = QScrollArea()
        scroll.setAccessibleName("What will be written, and how")
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidgetResizable(True)
        scroll.setWidget(self._page)
        self._buttons = side_by_side(self.reason, self.again, self.cancel, self.run)
        self._buttons.setContentsMargins(*[4 * theme.SPACE] * 4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(scroll, 1)
        layout.addLayout(self._buttons)

    def _change(self) -> None:
        """A field is another one now: what was checked holds no more."""
        self._asked += 1
        wrong = self._wrong()
        self._refuse(wrong or "The checks are being made.")
        self.again.hide()
        if wrong:
            self._settle.stop()
            self.checks.clear()
        else:
            self.checks.show_waiting()
            self._settle.start()

    def _ask(self) -> None:
        self._asked += 1
        asked = self._asked
        self.again.hide()
        self.checks.show_waiting()
        self._refuse("The checks are being made.")

        def take(checks: list[Check]) -> None:
            if asked == self._asked:
                self._take_checks(checks)

        def fail(sentence: str) -> None:
            if asked == self._asked:
                self.checks.show_failure(sentence)
                self._fit()
                self.again.show()
                self._refuse("The checks could not be made.")

        self._check(take, fail)

    def _take_checks(self, checks: list[Check]) -> None:
        self.checks.show_checks(checks)
        self._fit()
        failed = list(dict.fromkeys(check.name for check in checks if check.passed is False))
        if failed:
            self._refuse(f"Not passed: {', '.join(failed)}.")
        else:
            self._allow()

    def _allow(self) -> None:
        self.run.setEnabled(True)
        self.run.setToolTip(f"{self._tip} (Enter)")
        self.reason.setText("")

    def _refuse(self, reason: str) -> None:
        self.run.setEnabled(False)
        self.run.setToolTip(f"{self._tip}: not now. {reason}")
        self.reason.setText(reason)

    def _fit(self) -> None:
        """As high as the wrapped lines need, and the screen allows."""
        page = self._page.layout()
        assert page is not None
        page.activate()
        needed = page.totalHeightForWidth(self.width()) + self._buttons.sizeHint().height()
        room = self.screen().availableGeometry()
        self.resize(self.width(), min(needed, room.height() - TITLE))
        if self.isVisible() and self.geometry().bottom() > room.bottom():
            self.move(self.x(), max(room.top(), room.bottom() - self.frameGeometry().height()))

    def accept(self) -> None:
        """Nothing is accepted that is not checked."""
        if self.run.isEnabled():
            self._remember()
            super().accept()

    def done(self, result: int) -> None:
        """What comes later comes too late."""
        self._asked += 1
        self._settle.stop()
        super().done(result)
