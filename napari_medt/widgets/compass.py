"""Where the patient's right, front and head are on the canvas, and the canvas turned as radiologists look at it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from napari_medt._napari_io.origin import origin_of
from napari_medt.widgets._compat import drop_edge_texts, edge_texts, scene_camera

TOWARDS, FROM = "SPL", "IAR"  # of the world's z, y, x
UP, DOWN = ("up", "right"), ("down", "right")


def edges(displayed: Sequence[int], *, upwards: bool = False) -> tuple[str, str, str, str]:
    """Letters at the top, left, right and bottom of the canvas.

    Parameters
    ----------
    displayed
        The two axes of the world, 0 to 2, that are shown: down, then across.
    upwards
        Whether the first of them runs up.
    """
    down, across = displayed
    top, bottom = (TOWARDS[down], FROM[down]) if upwards else (FROM[down], TOWARDS[down])
    return top, FROM[across], TOWARDS[across], bottom


class Compass:
    """Shows the letters at the edges of the canvas while the chosen picture lies in a patient."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._image: Any = None
        dims = viewer.dims.events
        self._emitters = (dims.order, dims.ndisplay, dims.ndim)
        for emitter in self._emitters:
            emitter.connect(self._turned)

    def follow(self, image: Any) -> None:
        """Look after another picture."""
        self._image = image
        self._turned()

    def close(self) -> None:
        """Take the letters away."""
        for emitter in self._emitters:
            with suppress(ValueError, RuntimeError):
                emitter.disconnect(self._turned)
        drop_edge_texts(self._viewer)

    def _turned(self, event: Any = None) -> None:
        displayed = self._displayed()
        if displayed is None:
            drop_edge_texts(self._viewer)
            return
        upwards = displayed[0] == 0  # heads are up
        camera, wanted = scene_camera(self._viewer), UP if upwards else DOWN
        if hasattr(camera, "orientation2d") and tuple(map(str, camera.orientation2d)) != wanted:
            camera.orientation2d = wanted
        letters = dict(zip(("top", "left", "right", "bottom"), edges(displayed, upwards=upwards), strict=True))
        for edge, text in edge_texts(self._viewer).items():
            text.text = letters[edge]
            text.visible = True

    def _displayed(self) -> tuple[int, ...] | None:
        """The axes of the world that are shown, down, then across; None where nobody lies there."""
        origin = None if self._image is None else origin_of(self._image.metadata)
        dims = self._viewer.dims
        if origin is None or origin.shown.frame != "patient" or dims.ndisplay != 2 or dims.ndim < 3:
            return None
        displayed = tuple(int(axis) - (dims.ndim - 3) for axis in dims.displayed)
        return displayed if min(displayed) >= 0 else None
