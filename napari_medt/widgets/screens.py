"""How a case is shown: which layers, how bright, where the camera looks, which step; to be found again so."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_medt.cases import Screen
from napari_medt.widgets._compat import scene_camera

if TYPE_CHECKING:
    from napari_medt.widgets.review import Review


def screen_of(review: Review) -> Screen:
    """Note how the viewer shows the present case."""
    viewer = review.viewer
    camera, dims = scene_camera(viewer), viewer.dims
    contrast = {
        str(layer.name): (float(layer.contrast_limits[0]), float(layer.contrast_limits[1]))
        for layer in viewer.layers
        if hasattr(layer, "contrast_limits") and not getattr(layer, "rgb", False)
    }
    return Screen(
        layers=tuple(str(layer.name) for layer in viewer.layers if layer.visible),
        camera={
            "center": [float(value) for value in camera.center],
            "zoom": float(camera.zoom),
            "angles": [float(value) for value in camera.angles],
            "point": [float(value) for value in dims.point],
            "order": [int(axis) for axis in dims.order],
            "ndisplay": int(dims.ndisplay),
        },
        contrast=contrast,
        model=review.model_key,
        step=review.stage,
    )


def show_as(review: Review, screen: Screen) -> None:
    """Show the present case as it was shown before, as far as it still fits."""
    viewer, kept = review.viewer, screen.camera
    there = {str(layer.name): layer for layer in viewer.layers}
    for name in screen.contrast.keys() & there.keys():
        if hasattr(there[name], "contrast_limits"):
            with suppress(ValueError):
                there[name].contrast_limits = screen.contrast[name]
    pictures = {name: layer for name, layer in there.items() if not name.startswith("Mask")}
    if pictures.keys() & set(screen.layers):  # a case is never shown without its picture, as if there were none
        for name, layer in pictures.items():
            layer.visible = name in screen.layers
    order, point = _numbers(kept, "order"), _numbers(kept, "point")
    if len(order) == viewer.dims.ndim == len(point):
        viewer.dims.ndisplay = 3 if kept.get("ndisplay") == 3 else 2
        viewer.dims.order = tuple(int(axis) for axis in order)
        viewer.dims.point = tuple(point)
    camera = scene_camera(viewer)
    for name in ("center", "angles"):
        if len(_numbers(kept, name)) == 3:
            setattr(camera, name, tuple(_numbers(kept, name)))
    if isinstance(kept.get("zoom"), float) and kept["zoom"] > 0:
        camera.zoom = kept["zoom"]


def _numbers(kept: dict[str, Any], name: str) -> list[float]:
    found = kept.get(name)
    whole = isinstance(found, list) and all(isinstance(value, int | float) for value in found)
    return [float(value) for value in found] if whole else []
