"""Makes most pictures of docs/attention-gallery.md from the bundled samples: `python scripts/pictures.py [NAME ...]`.

Needs a display; `scripts/on-display.sh .venv/bin/python scripts/pictures.py` gives it a virtual one. The pictures of the docs
are made again by this when the dock or a model changes, so that they show what a user sees.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE = (1440, 900)


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes
    ----------
    sample
        Name of the sample that is opened.
    model
        Which model is run on it.
    source
        The block whose attention is shown.
    at
        The place asked about, in array indices; without one the map is that of the whole picture.
    part
        Of a map in several parts, the kind that is shown.
    """

    sample: str
    model: str
    source: str
    at: tuple[int, ...] = ()
    part: str = ""


CELL, ORGAN = (140, 118), (20, 60, 60)
SHOTS = {
    "attention-medt-point": Shot("fluorescence", "medt-nuclei", "global.layer2.1", CELL),
    "attention-gate": Shot("fluorescence", "attention-unet-nuclei", "level0"),
    "attention-cross": Shot("fluorescence", "u-transformer-nuclei", "cross.2", CELL),
    "attention-self": Shot("fluorescence", "u-transformer-nuclei", "self", CELL),
    "attention-guided": Shot("fluorescence", "guided-attention-nuclei", "step2.scale3.position", CELL),
    "attention-fine": Shot("ct_phantom", "fine-headneck", "encoder.2.block0.window", ORGAN),
    "attention-glam": Shot("ct_phantom", "glam-headneck", "encoder.2.block0.window", ORGAN),
}


def take(name: str, shot: Shot) -> None:
    """Make one picture in a window of its own."""
    import napari
    from napari.layers import Layer

    from napari_medt import sample_data
    from napari_medt.widgets import ReviewDock
    from napari_medt.widgets._compat import window_picture

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    for layer in getattr(sample_data, shot.sample)():
        if layer[2] == "image":
            viewer.add_layer(Layer.create(*layer))
    dock = ReviewDock(viewer)
    viewer.window.add_dock_widget(dock, name="MedT Review", area="right")
    dock.wait()
    dock.run(shot.model)
    dock.wait()
    dock.look(shot.source, at=shot.at or None)
    dock.wait()
    image = dock.review.image
    if shot.at:
        viewer.dims.set_point(range(image.ndim), image.data_to_world(shot.at))
    if shot.part:
        dock.look_step.part_box.setCurrentIndex(dock.look_step.part_box.findData(shot.part))
    _settle(dock)
    (FOLDER / f"{name}.png").write_bytes(window_picture(viewer, SIZE))
    viewer.close()


def _settle(dock: Any) -> None:
    from qtpy.QtTest import QTest

    dock.wait()
    QTest.qWait(1500)


def main(names: list[str]) -> None:
    """Make the pictures of these names, or all."""
    for name in names or SHOTS:
        with tempfile.TemporaryDirectory() as home:  # no cases of a former picture
            os.environ["NAPARI_MEDT_HOME"] = home
            take(name, SHOTS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
