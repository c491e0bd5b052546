"""The demonstration: napari with a sample, the dock, a finished run and an attention map; or a picture of all that."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_S = 300
SIZE = (1440, 900)
MODEL = "medt-nuclei"


class Demo:
    """Leads the dock through a run and a question, as a user would, without ever stopping the window."""

    def __init__(self, viewer: Any, dock: Any, finished: Callable[[str], None]) -> None:
        from qtpy.QtCore import QTimer

        self._viewer, self._dock, self._finished = viewer, dock, finished
        self._step: Callable[[], str | None] = self._ready
        self._left = LIMIT_S * 10
        self._timer = QTimer(dock)
        self._timer.setInterval(100)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def _look(self) -> None:
        """Go on as soon as the present step is done; a sentence ends the demonstration."""
        self._left -= 1
        problem = self._step() if self._left > 0 else f"The demonstration did not end within {LIMIT_S} s."
        if problem is not None:
            self._timer.stop()
            self._finished(problem)

    def _ready(self) -> str | None:
        run = self._dock.run_step
        if run.message.kind == "error":
            return str(run.message.text)
        if self._dock.review.models_listed and not self._dock.review.cards:
            return "There is no model to show: the one that comes with napari-medt is missing; install it again."
        if run.run_button.isEnabled() and not run.choosing:
            self._dock.run(MODEL)
            self._step = self._ran
        return None

    def _ran(self) -> str | None:
        run, look = self._dock.run_step, self._dock.look_step
        if run.message.kind == "error":
            return str(run.message.text)
        if self._dock.review.busy or not self._dock.review.work.model_key:
            return None
        if look.pick_button.isEnabled():
            look.pick_button.setChecked(True)
            look.pick(self._telling_point())
            self._step = self._looked
        return None

    def _looked(self) -> str | None:
        look = self._dock.look_step
        if look.message.kind == "error":
            return str(look.message.text)
        if look.answered_query is not None:
            self._step = self._settled
            self._left = min(self._left, 15)
        return None

    def _settled(self) -> str | None:
        """Wait until everything was drawn."""
        return "" if self._left <= 5 else None

    def _telling_point(self) -> tuple[int, ...]:
        """Choose a point inside the object nearest to the middle, else the middle."""
        labels = self._dock.review.work.snapshot()
        middle = np.array(labels.shape) // 2
        found = np.argwhere(labels > 0)
        if len(found):
            middle = found[np.argmin(np.abs(found - middle).sum(axis=1))]
        return tuple(int(i) for i in middle)


def sample_layers() -> list[Any]:
    """Return the picture of the fluorescence sample; its mask stays out, so that the model has something to show."""
    from napari_medt.sample_data import fluorescence

    return [layer for layer in fluorescence() if layer[2] == "image"]


def main(arguments: list[str] | None = None) -> int:
    """Open the demonstration; returns 0 when all went well."""
    parser = argparse.ArgumentParser(description="Show a sample, a model's mask and its attention in napari.")
    parser.add_argument("--screenshot", type=Path, metavar="PNG", help="write the finished window to this file and end")
    options = parser.parse_args(arguments)
    if options.screenshot is not None and not options.screenshot.absolute().parent.is_dir():
        sys.stderr.write(f"{options.screenshot} cannot be written: the folder does not exist; make it first.\n")
        return 1
    try:
        import napari
        from napari.layers import Layer
        from qtpy.QtCore import QTimer

        from napari_medt.widgets.dock import ReviewDock
    except ImportError as error:
        sys.stderr.write(f"The window needs napari and Qt ({error}); install them with pip install napari-medt[all].\n")
        return 1
    viewer = napari.Viewer(title="napari-medt", show=True)
    viewer.window.resize(*SIZE)
    for layer in sample_layers():
        viewer.add_layer(Layer.create(*layer))
    dock = ReviewDock(viewer)
    viewer.window.add_dock_widget(dock, name="MedT Review", area="right")
    QTimer.singleShot(0, viewer.reset_view)
    outcome = [0]

    def finished(problem: str) -> None:
        if options.screenshot is not None:
            problem = problem or take_screenshot(viewer, options.screenshot)
            QTimer.singleShot(0, viewer.close)
        if problem:
            sys.stderr.write(problem + "\n")
            outcome[0] = 1

    demo = Demo(viewer, dock, finished)
    napari.run()
    del demo
    return outcome[0]


def take_screenshot(viewer: Any, path: Path) -> str:
    """Write the window to a PNG file; returns a sentence if that failed."""
    from napari_medt.core import MedtError
    from napari_medt.io.atomic import atomic_write
    from napari_medt.widgets._compat import window_picture

    try:
        atomic_write(path, window_picture(viewer, SIZE))
    except MedtError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
