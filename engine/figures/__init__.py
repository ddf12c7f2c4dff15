"""What one can look at of a model, as figures: `figures` draws any `View`, better and better."""

from collections.abc import Iterator

from engine.api.views import ErrorOf, HistogramOf, OutliersOf, PictureOf, View
from engine.checkpoint import Checkpoint
from engine.figures.activation_error import activation_error
from engine.figures.activation_picture import activation_picture
from engine.figures.drawn import Drawn, Wanted
from engine.figures.error import error_of
from engine.figures.histogram import histogram_of
from engine.figures.outliers import outliers_of
from engine.figures.picture import picture_of

__all__ = ["Drawn", "figures"]


def figures(checkpoint: Checkpoint, view: View, wanted: Wanted = lambda: True) -> Iterator[Drawn]:
    """`view` as soon as anything can be shown, then better; it ends with the last one.

    It ends earlier when the figure is no longer `wanted`, asked between pieces of work. Raises
    `FigureError`, and what reading, planning and encoding raise.
    """
    match view:
        case HistogramOf():
            return histogram_of(checkpoint, view, wanted)
        case OutliersOf():
            return outliers_of(checkpoint, view, wanted)
        case PictureOf(source="activations"):
            return activation_picture(checkpoint, view, wanted)
        case PictureOf():
            return picture_of(checkpoint, view, wanted)
        case ErrorOf(source="activations"):
            return activation_error(checkpoint, view, wanted)
        case ErrorOf():
            return error_of(checkpoint, view, wanted)
