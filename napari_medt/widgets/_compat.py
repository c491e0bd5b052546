"""What moved between napari's minor versions, and what its public objects tell only indirectly."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """Colours and font size of napari's present theme, as `#rrggbb` and points."""

    background: str
    raised: str
    control: str
    hover: str
    text: str
    accent: str
    warning: str
    error: str
    dark: bool
    font_pt: float


def look_of(viewer: Any) -> Look:
    """Read the colours of the theme the viewer uses."""
    from napari.utils.theme import get_theme

    theme = get_theme(viewer.theme)
    return Look(
        background=_hex(theme.background),
        raised=_hex(theme.foreground),
        control=_hex(theme.primary),
        hover=_hex(theme.highlight),
        text=_hex(theme.text),
        accent=_hex(theme.current),
        warning=_hex(theme.warning),
        error=_hex(theme.error),
        dark=sum(theme.background.as_rgb_tuple()[:3]) < 384,
        font_pt=_points(getattr(theme, "font_size", "9pt")),
    )


def _hex(colour: Any) -> str:
    red, green, blue = colour.as_rgb_tuple()[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _points(size: Any) -> float:
    digits = "".join(c for c in str(size) if c.isdigit() or c == ".")
    from napari.settings import get_settings

    chosen = getattr(get_settings().appearance, "font_size", None)
    return float(chosen or digits or 9)


def on_look_changed(viewer: Any, callback: Any) -> Any:
    """Call `callback()` when the theme or the font size changes; returns a function that stops it."""
    from napari.settings import get_settings

    def changed(event: Any = None) -> None:
        callback()

    appearance = get_settings().appearance.events
    emitters = [
        viewer.events.theme,
        *(getattr(appearance, name) for name in ("font_size",) if hasattr(appearance, name)),
    ]
    for emitter in emitters:
        emitter.connect(changed)

    def stop() -> None:
        for emitter in emitters:
            with suppress(ValueError, RuntimeError):
                emitter.disconnect(changed)

    return stop


def forget_history(layer: Any) -> None:
    """Empty napari's own undo history of a labels layer.

    napari offers no such function, but drops the history of a layer that stops being editable; the chosen tool is kept.
    """
    mode, editable = layer.mode, layer.editable
    layer.editable = False
    layer.editable = True
    if editable:
        layer.mode = mode
    else:
        layer.editable = False


def reset_view(viewer: Any) -> None:
    """Fit everything into the canvas."""
    viewer.reset_view()


def scene_camera(viewer: Any) -> Any:
    """Return the camera, which moved to `viewer.scene` in napari 0.9."""
    scene = getattr(viewer, "scene", None)
    return scene.camera if scene is not None else viewer.camera


def scene_grid(viewer: Any) -> Any:
    """Return how layers are laid out side by side, which moved to `viewer.canvas` in napari 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return canvas.grid if canvas is not None else viewer.grid


def canvas_edge(viewer: Any) -> float:
    """Return the shorter edge of the canvas in pixels, which `viewer.canvas` tells from napari 0.9 on."""
    return float(min(getattr(getattr(viewer, "canvas", None), "size", (600, 600))))


def make_current(widget: Any) -> None:
    """Make the OpenGL context of the canvas in a widget the current one, before layers are taken out of it.

    napari 0.9 frees what a layer was drawn with as soon as it goes, in whichever context is current. In that of another window or
    canvas the next drawing may crash.
    """
    from qtpy.QtOpenGLWidgets import QOpenGLWidget

    for canvas in widget.findChildren(QOpenGLWidget):
        canvas.makeCurrent()


def edge_texts(viewer: Any) -> dict[str, Any]:
    """Return a text for each edge of the canvas, by `top`, `left`, `right`, `bottom`; none before napari 0.9."""
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
    if overlays is None:
        return {}
    from napari.components.overlays import TextOverlay

    places = {"top": "top_center", "left": "middle_left", "right": "middle_right", "bottom": "bottom_center"}
    for edge, place in places.items():
        if f"medt_{edge}" not in overlays:
            overlays[f"medt_{edge}"] = TextOverlay(position=place, visible=False, font_size=13, box=False)
    return {edge: overlays[f"medt_{edge}"] for edge in places}


def drop_edge_texts(viewer: Any) -> None:
    """Take the texts at the edges of the canvas away."""
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", None)
    for name in [name for name in overlays or () if name.startswith("medt_")]:
        del overlays[name]


def window_picture(viewer: Any, size: tuple[int, int]) -> bytes:
    """Return a PNG of the whole window, canvas and docks, at `(width, height)` pixels."""
    import io

    from PIL import Image

    pixels = viewer.window.screenshot(flash=False, canvas_only=False)
    picture = Image.fromarray(pixels).convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, "PNG", optimize=True)
    return target.getvalue()


def remove_together(viewer: Any, layers: Iterable[Any]) -> None:
    """Take several layers out; napari tidies up after each otherwise, which takes a noticeable time."""
    gone = [layer for layer in layers if layer in viewer.layers]
    together = getattr(viewer.layers, "batched_update", nullcontext)
    with together() if len(gone) > 1 else nullcontext():
        for layer in gone:
            if layer in viewer.layers:
                viewer.layers.remove(layer)
