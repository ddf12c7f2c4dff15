"""The tabs that look into an open model, beside the table of its layers: there as long as there is one."""

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QTabWidget

from app.session import Session
from app.views.errors import ErrorsView
from app.views.histograms import HistogramsView
from app.views.outliers import OutliersView
from app.views.picture import PictureView


class InspectingViews(QObject):
    """Stand in `tabs` behind the first one, in this order."""

    layers_wanted = Signal()

    def __init__(self, session: Session, tabs: QTabWidget) -> None:
        super().__init__(tabs)
        self._state, self._tabs = session.state, tabs
        state, reader, desk = session.state, session.figures, session.activations
        self.histograms = HistogramsView(state, reader, desk)
        self.outliers = OutliersView(state, reader, desk)
        self.picture = PictureView(state, reader, desk)
        self.errors = ErrorsView(state, reader, desk)
        self.titles = {
            self.histograms: "Histograms",
            self.outliers: "Outliers",
            self.picture: "Weights",
            self.errors: "Error",
        }
        for view in self.titles:
            view.setParent(tabs)
            view.hide()
        for tensor_view in (self.histograms, self.picture, self.errors):
            tensor_view.layers_wanted.connect(self.layers_wanted)

    def follow_model(self) -> None:
        """With a model the tabs come, without one they go."""
        there = self._tabs.indexOf(self.histograms) >= 0
        wanted = self._state.phase != "empty"
        if there == wanted:
            return
        if not wanted and self._tabs.currentWidget() in self.titles:
            self._tabs.setCurrentIndex(0)
        for place, (view, title) in enumerate(self.titles.items()):
            if wanted:
                self._tabs.insertTab(1 + place, view, title)
            else:
                self._tabs.removeTab(self._tabs.indexOf(view))
