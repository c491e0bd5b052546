"""Makes the pictures of docs/attention-gallery.md from the bundled samples: `python scripts/pictures.py [NAME ...]`.

Needs a display; `scripts/on-display.sh .venv/bin/python scripts/pictures.py` gives it a virtual one. The pictures of the docs
are made again by this when the dock or a model changes, so that they show what a user sees.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    structure
        Whether all of the first structure of the mask is asked about.
    ndisplay
        Whether a volume is shown slice by slice, or in 3D.
    of
        What the picture shows: the window, the table of all heads, or a figure for print.
    """

    sample: str
    model: str
    source: str
    at: tuple[int, ...] = ()
    part: str = ""
    structure: bool = False
    ndisplay: int = 2
    of: Literal["window", "heads", "figure"] = "window"


BESIDE_A_CELL, ORGAN = (140, 118), (20, 60, 60)
ANGLES = (0.0, 25.0, 60.0)
SHOTS = {
    "attention-medt-point": Shot("fluorescence", "medt-nuclei", "global.layer2.1", BESIDE_A_CELL),
    "attention-medt-structure": Shot("fluorescence", "medt-nuclei", "global.layer2.1", structure=True),
    "attention-gate": Shot("fluorescence", "attention-unet-nuclei", "level0"),
    "attention-cross": Shot("fluorescence", "u-transformer-nuclei", "cross.2", BESIDE_A_CELL),
    "attention-self": Shot("fluorescence", "u-transformer-nuclei", "self", BESIDE_A_CELL),
    "attention-guided": Shot("fluorescence", "guided-attention-nuclei", "step2.scale3.position", BESIDE_A_CELL),
    "attention-unetr-point": Shot("ct_phantom", "unetr-headneck", "rollout", ORGAN),
    "attention-unetr-3d": Shot("ct_phantom", "unetr-headneck", "rollout", ORGAN, ndisplay=3),
    "attention-fine": Shot("ct_phantom", "fine-headneck", "encoder.2.block1.composed", ORGAN, part="in its window"),
    "attention-glam": Shot("ct_phantom", "glam-headneck", "encoder.2.block0.window", ORGAN),
    "attention-heads": Shot("fluorescence", "medt-nuclei", "global.layer2.1", of="heads"),
    "attention-figure": Shot("fluorescence", "medt-nuclei", "global.layer2.1", BESIDE_A_CELL, of="figure"),
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
    _look(dock, shot)
    path = FOLDER / f"{name}.png"
    if shot.of == "figure":
        dock.look_step.more.save_figure(path)
        dock.wait()
    elif shot.of == "heads":
        dock.look_step.more.heads_button.click()
        _settle(dock)
        dock.look_step.more.table.grab().save(str(path))
    else:
        path.write_bytes(window_picture(viewer, SIZE))
    viewer.close()


def _look(dock: Any, shot: Shot) -> None:
    """Have the map of a shot shown, and the place it is about."""
    from napari_medt.widgets._compat import scene_camera

    step, viewer, image = dock.look_step, dock.viewer, dock.review.image
    dock.look(shot.source, at=shot.at or None)
    dock.wait()
    if shot.structure:
        step.more_button.click()
        step.more.structure_box.setCurrentIndex(1)
        step.more.structure_button.click()
        dock.wait()
    if shot.at:
        viewer.dims.set_point(range(image.ndim), image.data_to_world(shot.at))
    if shot.part:
        step.part_box.setCurrentIndex(step.part_box.findData(shot.part))
    if shot.ndisplay == 3:
        viewer.dims.ndisplay = 3
        viewer.reset_view()
        scene_camera(viewer).angles = ANGLES
    _settle(dock)


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
