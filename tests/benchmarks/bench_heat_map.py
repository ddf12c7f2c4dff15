"""The heat map: pictures a second while 80 layers x 14,336 channels are moved and zoomed, CPU of each.

`python -m tests.benchmarks.bench_heat_map`. Without a display; every picture is painted in full.
"""

import os
import time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QPointF
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QApplication

from app import theme
from app.views.heat_field import Part
from app.views.heat_map import HeatMapView
from app.views.heat_zoom import around, moved
from engine.api.figures import Axis, HeatMap

WIDTH, HEIGHT = 1200, 640
PICTURES = 120
SHAPES = {"layers x channels": (80, 14336), "one matrix": (4096, 4096)}


def made(height: int, width: int, signed: bool) -> tuple[HeatMap, np.ndarray]:
    values = np.random.default_rng(1).standard_normal((height, width), np.float32)
    figure = HeatMap(
        title="Benchmark",
        x=Axis(name="channel", counts=True),
        y=Axis(name="layer", counts=True),
        z=Axis(name="abs-max"),
        height=height,
        width=width,
        rows=[f"blk.{row}.ffn_down" for row in range(height)],
        signed=signed,
        column_borders=32,
    )
    return figure, values if signed else np.abs(values)


def parts(view: HeatMapView, gesture: str) -> list[Part]:
    """What the pictures of a gesture show, one after the other."""
    assert view.part is not None
    part, found = view.part, []
    middle = (part.height / 2, part.width / 2 + 0.5)
    if gesture == "values":  # so near that each is written
        part = Part(10, 10 + view.cells.height() / 15, 100, 100 + view.cells.width() / 36)
    elif gesture == "move":
        part = Part(part.top, part.bottom, part.left, part.left + part.width / 2)
    for step in range(PICTURES):
        if gesture == "zoom":
            part = around(part, middle, 1.1 if step < PICTURES / 2 else 1 / 1.1, view.cells.size())
        else:
            part = moved(part, 0.0, part.width / 200)
        found.append(part)
    return found


def measure(view: HeatMapView, gesture: str) -> tuple[float, float, float]:
    """Pictures a second; the CPU of one in milliseconds, middle and largest."""
    image = QImage(view.size(), QImage.Format.Format_ARGB32_Premultiplied)
    cpu, began = [], time.perf_counter()
    for part in parts(view, gesture):
        before = time.thread_time()
        view.show_part(part)
        painter = QPainter(image)
        view.render(painter, QPointF().toPoint())
        painter.end()
        cpu.append(1e3 * (time.thread_time() - before))
    return len(cpu) / (time.perf_counter() - began), float(np.median(cpu)), max(cpu)


def main() -> None:
    app = QApplication([])
    theme.apply_theme(app, "light")
    print(f"{'':34}pictures/s   CPU ms each: middle   largest")
    for name, (height, width) in SHAPES.items():
        for signed in (False, True):
            view = HeatMapView()
            view.resize(WIDTH, HEIGHT)
            figure, values = made(height, width, signed)
            began = time.thread_time()
            view.show_figure(figure, values, logarithmic=not signed)
            print(
                f"{name}, {height} x {width}, {'signed' if signed else 'magnitudes'}:"
                f" taken in {1e3 * (time.thread_time() - began):.0f} ms"
            )
            view.show()
            app.processEvents()
            for gesture in ("move", "zoom", "values"):
                rate, middle, largest = measure(view, gesture)
                print(f"  {gesture:32}{rate:8.0f}{middle:24.1f}{largest:10.1f}")
                view.reset()
            view.close()


if __name__ == "__main__":
    main()
