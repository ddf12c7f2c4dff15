"""Heat maps for tests."""

from engine.api.figures import Axis, HeatMap


def figure(height: int, width: int, **more: object) -> HeatMap:
    return HeatMap(
        title="Outliers",
        x=Axis(name="channel", counts=True),
        y=Axis(name="layer", counts=True),
        z=Axis(name="abs-max"),
        height=height,
        width=width,
        **more,
    )
