"""How quickly a click in the dock is answered, model by model: until the map lies in the viewer, and until it is drawn.

python -m benchmarks.dock_pick_speed

In a real window with the real calculation process; needs a display. Processor time of both processes, so that what else the
computer does counts little: the median of clicks all over the picture, after the run has prepared it. Each bundled model that
shows its attention, on a picture of 256 x 256 or a scan of 40 x 56 x 40, the size of a hippocampus, in its best block.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from scipy import ndimage

SHAPES = {2: (256, 256), 3: (40, 56, 40)}
CLICKS = 15
Spent = tuple[float, float, float]
"""Seconds of the window until the answer, of the calculation, and of the window until it is drawn."""


def until(app: object, check: Callable[[], bool], limit_s: float = 300.0) -> None:
    """Keep the window alive until something holds."""
    limit = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > limit:
            raise TimeoutError("the dock did not answer")
        app.processEvents()  # type: ignore[attr-defined]
        time.sleep(0.001)


def clicks(key: str, dims: int) -> list[Spent]:
    """Open the dock on a picture, run a model, and click about."""
    import napari

    from napari_medt.widgets import ReviewDock

    rng = np.random.default_rng(0)
    shape = SHAPES[dims]
    picture = ndimage.gaussian_filter(rng.random(shape), 4)
    viewer, app = napari.Viewer(show=True), napari.qt.get_qapp()
    viewer.window.resize(1100, 760)
    viewer.add_image(((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8))
    dock = ReviewDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.wait().run(key)
    dock.wait()
    look = dock.look_step
    until(app, lambda: look.ready)
    look.pick_button.click()
    child = psutil.Process(dock.review.client.worker.pid)  # type: ignore[attr-defined]
    found = []
    for query in rng.integers(0, shape, (CLICKS + 1, dims)).tolist():
        calculated, start = sum(child.cpu_times()[:2]), time.process_time()
        look.pick(tuple(query))
        until(app, lambda query=query: look.answered_query == tuple(query))  # type: ignore[misc]
        answered = time.process_time()
        calculated = sum(child.cpu_times()[:2]) - calculated
        for _ in range(10):
            app.processEvents()
        found.append((answered - start, calculated, time.process_time() - start))
    viewer.close()
    until(app, lambda: dock.review.closed)
    return found[1:]  # the first draws layers that were never seen


def main() -> None:
    """Print the table."""
    from napari_medt.attention import list_sources
    from napari_medt.zoo import list_models, load_model

    heads = ["window, ms", "calculation, ms", "answered, ms", "drawn too, ms"]
    table = Table("model", *heads, title="A click in the dock, in processor time")
    for card in list_models():
        if not list_sources(load_model(card.key, device="cpu").net):
            continue
        with tempfile.TemporaryDirectory() as home:
            os.environ["NAPARI_MEDT_HOME"] = home  # what is done here is nobody's review
            window, calculated, drawn = zip(*clicks(card.key, card.spatial_dims), strict=True)
        answered, seen = (
            statistics.median(a + b for a, b in zip(one, calculated, strict=True)) for one in (window, drawn)
        )
        # The system counts the other process in steps of 10 ms, so that its share is told as a mean.
        figures = statistics.median(window), statistics.mean(calculated), answered, seen
        table.add_row(f"{card.title}, {card.spatial_dims}D", *(f"{1000 * value:.0f}" for value in figures))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
