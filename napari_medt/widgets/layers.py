"""The layers the dock makes: where they lie, whose they are, and how they are replaced rather than multiplied."""

from __future__ import annotations

import hashlib
import pickle
import uuid
import weakref
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt._napari_io.as_layers import CLASS_COLOURS
from napari_medt._napari_io.origin import FILE_KEY, origin_of
from napari_medt.core import Acquisition, BadImage, Geometry, Volume
from napari_medt.core.geometry import unit_of
from napari_medt.widgets.refilled import PLACE, differing, fill

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

KEY = "napari_medt"
"""Under this name our layers, and the images they belong to, carry an identity in `layer.metadata`."""

OUTLINE_VOXELS = 4_000_000
"""Above this size outlines take too long to draw."""

WHOLE_BYTES = 64 * 2**20
"""Up to this size images that are loaded lazily are read as a whole."""

FILLED, OUTLINED = 0.45, 0.9
"""Opacity of masks: the picture is seen through an area, and beside a line."""

FRAME_COLOUR = "#ffb000"

TOGETHER = ("attention", "window", "arrows", "point")
"""Roles of layers that lie over everything else, in this order; napari has no groups of layers."""

PREVIEW_COLOURS = {1: "#00e5ff", 2: "#ff4df0", 3: "#ffe600"}
"""Of what a tool would add, remove, or give to another structure; told apart with every common form of colour blindness."""


def spatial_state(layer: Layer) -> dict[str, Any]:
    """Everything that says where a layer lies; copied together, or napari drops the units of all layers."""
    return {name: getattr(layer, name) for name in PLACE if hasattr(layer, name)}


def even_state(layer: Layer) -> tuple[dict[str, Any], np.ndarray]:
    """Place of a layer whose lines are as thick along all axes, and by what array coordinates are multiplied for it."""
    state = spatial_state(layer)
    scale = np.asarray(state["scale"], dtype=float)
    step = float(np.abs(scale).min())
    state["scale"] = np.full(len(scale), step)
    return state, scale / step


def units_of(layer: Layer) -> str:
    """Unit of a layer as `Geometry` names it: px, mm or um."""
    return unit_of(getattr(layer, "units", None))


def geometry_of(layer: Layer, ndim: int) -> Geometry:
    """Where a layer's last axes lie; in a patient where the file it came from says so.

    Raises
    ------
    BadImage
        If its transform cannot be undone.
    """
    origin = origin_of(layer.metadata)
    frame = "image" if origin is None else origin.shown.frame
    return Geometry.from_layer(spatial_state(layer), ndim=ndim, frame=frame)


def level_0(layer: Layer) -> Any:
    """Return the full resolution of a layer, lazily loaded or not."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def signature(layer: Layer) -> tuple[Any, ...]:
    """Tell cheaply whether a layer still shows the same picture: type, shape and a sum over scattered samples."""
    data = level_0(layer)
    shape = tuple(int(n) for n in data.shape)
    if not isinstance(data, np.ndarray) or data.size == 0:
        return (id(data), shape, str(data.dtype))
    steps = tuple(slice(n // 97 // 2, None, max(1, n // 97)) for n in shape)
    return (id(data), shape, str(data.dtype), zlib.crc32(np.ascontiguousarray(data[steps])))


@dataclass(frozen=True, eq=False)
class Picture:
    """An image layer as it was when a job began."""

    layer: weakref.ref[Image]
    token: str
    signature: tuple[Any, ...]
    spatial_shape: tuple[int, ...]
    geometry: Geometry
    load: Callable[[], Volume]
    fixes: tuple[Any, ...] = ()
    scan: Volume | None = None
    """As it lies in the file, where the layer shows a copy turned straight."""

    def still_there(self, viewer: Any) -> Image | None:
        """Return the layer if it is still in the viewer and shows the same picture."""
        layer = self.layer()
        if layer is None or layer not in viewer.layers or signature(layer) != self.signature:
            return None
        return layer


def spatial_shape_of(layer: Image) -> tuple[int, ...]:
    """Shape of the mask that fits an image layer, `(y, x)` or `(z, y, x)`; leading axes of length 1 stay.

    Raises
    ------
    BadImage
        If the layer has more than three axes, or no pixels.
    """
    shape = tuple(int(n) for n in level_0(layer).shape)
    if layer.rgb:
        shape = shape[:-1]
    if 0 in shape:
        raise BadImage(f"The image {layer.name!r} has no pixels", remedy="choose an image with pixels in it")
    if len(shape) not in (2, 3):
        raise BadImage(
            f"The image {layer.name!r} has {len(shape)} axes, and only 2D pictures and 3D scans can be segmented",
            remedy="choose one time point or channel, for example with right click, Split Stack",
        )
    return shape


def stays_on_disk(data: Any) -> bool:
    """Whether an image is handed over as the place it is read from: lazily loaded, large, and readable by another process."""
    if not hasattr(data, "dask") or data.nbytes <= WHOLE_BYTES:
        return False
    try:
        pickle.dumps(data)
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True


def take(layer: Image) -> Picture:
    """Note what is needed to work on an image layer; its pixels are read by `Picture.load`, off the window's thread."""
    shape = spatial_shape_of(layer)
    geometry = geometry_of(layer, len(shape))
    origin = origin_of(layer.metadata)
    acquisition = Acquisition() if origin is None else origin.acquisition
    data, rgb, name = level_0(layer), bool(layer.rgb), str(layer.name)
    known = signature(layer)

    def load() -> Volume:
        if stays_on_disk(data):
            array = data[..., :3].transpose(data.ndim - 1, *range(data.ndim - 1)) if rgb else data[None]
            return Volume(array, geometry, source=name, acquisition=acquisition)
        volume = Volume.from_array(np.asarray(data), rgb=rgb, geometry=geometry, source=name)
        return replace(volume, acquisition=acquisition)

    name_of_layer = identity(layer)
    fixes = tuple(layer.metadata[KEY].get("fixes", ()))
    where = geometry.affine.tobytes() + f"{geometry.units} {fixes}".encode()
    place = hashlib.blake2b(where, digest_size=8).hexdigest()
    token = f"{name_of_layer}-{abs(hash(known)):x}-{place}"
    turned = origin is not None and data is origin.copy and origin.still_holds(spatial_state(layer), shape)
    scan = origin.scan if origin is not None and turned else None
    return Picture(weakref.ref(layer), token, known, shape, geometry, load, fixes, scan)


def identity(layer: Layer) -> str:
    """Return the layer's own name for life, which renaming does not change."""
    mark = layer.metadata.get(KEY)
    if not isinstance(mark, dict) or mark.get("owner") != id(layer):
        # A duplicated layer copies the metadata of the first; `owner` tells them apart.
        mark = {"id": uuid.uuid4().hex, "owner": id(layer)}
        layer.metadata[KEY] = mark
    return str(mark["id"])


def add_fixes(layer: Layer, fixes: Sequence[Any]) -> None:
    """Note what is to be done about a picture before a model sees it, each once; the layer itself is left as it is."""
    identity(layer)
    mark = layer.metadata[KEY]
    known = [(fix.fix, fix.values) for fix in mark.get("fixes", ())]
    new = [fix for fix in fixes if (fix.fix, fix.values) not in known]
    mark["fixes"] = (*mark.get("fixes", ()), *new)


def made_of(mask: Layer, exact: np.ndarray | None) -> None:
    """Note which labels on the grid of the scan a mask over its straight copy was made of.

    Parameters
    ----------
    mask
        Over a picture from a file.
    exact
        Labels on the scan's grid, axes as in `Picture.scan`; `None` where there is no other grid.
    """
    origin = origin_of(mask.metadata)
    if origin is not None and origin.resampled:
        exact = None if exact is None else origin.axes.inverse.apply(exact)
        mask.metadata[FILE_KEY] = replace(origin, exact=exact)


def is_ours(layer: Layer) -> bool:
    """Whether the dock made this layer."""
    mark = layer.metadata.get(KEY)
    return isinstance(mark, dict) and "role" in mark


def only_over(layer: Layer) -> bool:
    """Whether a layer is a map or a mark of ours over a picture, and not a mask on its grid."""
    return is_ours(layer) and layer.metadata[KEY]["role"] != "mask"


@contextmanager
def keeping_selection(viewer: Any) -> Iterator[None]:
    """Add layers without changing which one is active."""
    active = viewer.layers.selection.active
    yield
    if active is not None and active in viewer.layers and viewer.layers.selection.active is not active:
        viewer.layers.selection.active = active


def class_colormap(count: int) -> Any:
    """Colours of the classes, background clear; labels beyond the classes are white."""
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, Any] = {None: "#ffffff", 0: "transparent"}
    colours.update({label: CLASS_COLOURS[(label - 1) % len(CLASS_COLOURS)] for label in range(1, max(count, 2))})
    return DirectLabelColormap(color_dict=colours)


def warm_up() -> None:
    """Let napari compile how it colours labels, and load what it makes the first layer with, before the window needs it."""
    import pandas  # noqa: F401
    import pint

    class_colormap(2).map(np.zeros((1, 1), np.uint8))
    pint.get_application_registry().Unit("mm")


def names_of_classes(classes: Sequence[str]) -> dict[str, Any]:
    """Names of classes, background first, as a labels layer keeps them; napari shows them beside the pointer."""
    return {"features": {"index": list(range(len(classes))), "name": list(classes)}}


@cache
def clear_where_low(name: str) -> Any:
    """Return napari's colormap of this name, clear at its low end, so that it lies well on dark and bright pictures alike."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    at = np.linspace(0, 1, 64)
    colours = np.array(ensure_colormap(name).map(0.25 + 0.75 * at))
    colours[:, 3] = 0.9 * np.clip(at / 0.65, 0, 1) ** 1.2
    return Colormap(colours, name=f"{name}, clear where low")


@cache
def clear_in_the_middle() -> Any:
    """Blue below, clear in the middle, orange above: also told apart by those who see no red or no green."""
    from napari.utils.colormaps import Colormap

    at = np.linspace(-1, 1, 65)
    colours = np.where(at[:, None] < 0, np.array([[0.25, 0.55, 1.0, 1.0]]), np.array([[1.0, 0.62, 0.1, 1.0]]))
    colours[:, 3] = 0.9 * np.clip(np.abs(at) / 0.8, 0, 1)
    return Colormap(colours, name="less and more, clear between")


class OurLayers:
    """Finds, makes and replaces the dock's layers; each belongs to one image layer and has one role."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._known: dict[tuple[str, str], weakref.ref[Layer]] = {}
        self._spare: dict[str, weakref.ref[Labels]] = {}

    def find(self, image: Layer, role: str) -> Any | None:
        """Return the layer of a role if it is still in the viewer."""
        reference = self._known.get((identity(image), role))
        layer = reference() if reference is not None else None
        return layer if layer is not None and layer in self._viewer.layers else None

    def remove(self, image: Layer, role: str) -> None:
        """Remove the layer of a role, if there is one."""
        layer = self.find(image, role)
        if layer is not None:
            self._viewer.layers.remove(layer)

    def hide(self, image: Layer, role: str) -> None:
        """Put the layer of a role out of sight: napari takes far longer to remove one, and to make it again."""
        layer = self.find(image, role)
        if layer is not None:
            layer.visible = False

    def add_mask(self, image: Image, labels: np.ndarray, *, classes: int) -> Labels:
        """Show the mask over the picture; the active layer stays the same."""
        options = {
            "name": f"Mask of {image.name}",
            "colormap": class_colormap(classes),
            "metadata": _file_of(image),
            **spatial_state(image),
        }
        spare = self._spare.pop(identity(image), lambda: None)()
        if spare is not None and spare in self._viewer.layers and spare.ndim == labels.ndim:
            fill(spare, labels, options)
            spare.mode, spare.selected_label = "pan_zoom", 1
            _draw(spare, outlined=False)
            return self._own(image, "mask", spare)
        return self._add(image, "mask", self._viewer.add_labels, labels, opacity=FILLED, **options)

    def give_on(self, image: Image, data: np.ndarray, options: dict[str, Any]) -> list[Layer]:
        """Put another picture into an image layer; returns what lies over the former one.

        The layer of the mask is not among them: it becomes that of the new picture with `add_mask`.
        """
        former, mask = identity(image), self.find(image, "mask")
        fill(image, data, options)
        if mask is not None:
            self._spare[identity(image)] = weakref.ref(mask)
        return [layer for layer in self.over({former}) if layer is not mask]

    def unused(self) -> list[Layer]:
        """Masks of pictures that gave way to others, and of which `add_mask` made no use."""
        spare, self._spare = self._spare, {}
        return [mask for mask in (reference() for reference in spare.values()) if mask is not None]

    def over(self, owners: Collection[str]) -> list[Layer]:
        """Layers of ours that belong to images of these identities."""
        return [layer for layer in self._viewer.layers if is_ours(layer) and layer.metadata[KEY].get("image") in owners]

    def shown_of(self, image: Layer) -> list[Layer]:
        """Maps and marks of an image, without its mask and without what the user wanted kept."""
        there = self.over({identity(image)})
        return [layer for layer in there if layer.metadata[KEY]["role"] not in ("mask", "kept")]

    def show_map(
        self,
        image: Image,
        role: str,
        data: np.ndarray,
        state: dict[str, Any],
        *,
        name: str,
        colormap: str,
        limits: tuple[float, float],
        framed: bool = False,
        both_ways: bool = False,
    ) -> Any:
        """Show an array over the picture as an image layer, in the one layer of its role; `framed` draws its border.

        `both_ways` is for values above and below 0, of which 0 is clear.
        """
        low, high = limits
        high = high if high > low else low + 1e-6
        colours = clear_in_the_middle() if both_ways else clear_where_low(colormap)
        layer = self.find(image, role)
        if layer is not None:
            moved = differing(layer, state)
            with _unmeasured(layer):
                layer.data = data
            for key, value in moved.items():
                setattr(layer, key, value)
            if tuple(layer.contrast_limits) != (low, high):
                layer.contrast_limits_range = (low, high)
                layer.contrast_limits = (low, high)
            layer.name = name
            layer.bounding_box.visible = framed
            if layer.colormap.name != colours.name:
                layer.colormap = colours
            return layer
        layer = self._add(
            image,
            role,
            self._viewer.add_image,
            data,
            name=name,
            colormap=colours,
            contrast_limits=(low, high),
            interpolation2d="nearest",
            blending="translucent_no_depth",
            rgb=False,
            metadata=_file_of(image),
            **state,
        )
        border = layer.bounding_box
        border.line_color, border.points, border.line_thickness = FRAME_COLOUR, False, 2
        border.visible = framed
        return layer

    def show_labels(
        self, image: Layer, role: str, labels: np.ndarray, *, name: str, colours: dict[int, str], words: Sequence[str]
    ) -> Any:
        """Show labels beside the mask, in the one layer of their role."""
        from napari.utils.colormaps import DirectLabelColormap

        layer = self.find(image, role)
        if layer is not None and layer.data.shape == labels.shape:
            layer.data, layer.name, layer.visible = labels, name, True
            return layer
        self.remove(image, role)
        return self._add(
            image,
            role,
            self._viewer.add_labels,
            labels,
            name=name,
            opacity=0.9,
            colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **colours}),
            metadata=_file_of(image),
            **names_of_classes(words),
            **spatial_state(image),
        )

    def outline(self, image: Layer, wanted: bool) -> None:
        """Draw the mask as lines while something else is to be seen through it, or filled again."""
        mask = self.find(image, "mask")
        if mask is not None and mask.data.size <= OUTLINE_VOXELS:
            _draw(mask, outlined=wanted)

    def show_point(self, image: Image, point: Sequence[float] | None, *, name: str) -> Any:
        """Mark a place given in the picture's array coordinates; without one the mark is there, but not to be seen."""
        layer = self.find(image, "point")
        place = [0.0] * image.ndim if point is None else point
        if layer is None:
            layer = self._add(
                image,
                "point",
                self._viewer.add_points,
                np.asarray([place], dtype=float),
                name=name,
                size=max(1.5, 0.022 * max(spatial_shape_of(image)[-2:])),
                face_color="#ffffff",
                border_color="#000000",
                border_width=0.12,
                symbol="cross",
                **spatial_state(image),
            )
        elif not np.array_equal(layer.data, [place]):
            with _unmeasured(layer):
                layer.data = np.asarray([place], dtype=float)
        # Clear rather than empty: what was drawn once is drawn again within milliseconds.
        _set_opacity(layer, 0.0 if point is None else 1.0)
        return layer

    def show_preview(self, image: Image, mask: Labels, data: np.ndarray, start: Sequence[int]) -> Any:
        """Show what would change in a box of the mask that begins at index `start`, over everything else."""
        from napari.utils.colormaps import DirectLabelColormap
        from napari.utils.transforms import Affine

        state = spatial_state(mask)
        inner = Affine(**{name: state[name] for name in ("scale", "translate", "rotate", "shear")}, ndim=mask.ndim)
        state["translate"] = np.asarray(inner(np.asarray(start, float)))
        layer = self.find(image, "preview")
        if layer is not None:
            layer.data = data
            for key, value in differing(layer, state).items():
                setattr(layer, key, value)
            layer.visible = True
            if self._viewer.layers[-1] is not layer:
                with keeping_selection(self._viewer):
                    self._viewer.layers.move(self._viewer.layers.index(layer), len(self._viewer.layers))
            return layer
        return self._add(
            image,
            "preview",
            self._viewer.add_labels,
            data,
            name=f"Preview on {image.name}",
            opacity=0.8,
            colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **PREVIEW_COLOURS}),
            **state,
        )

    def show_vectors(self, image: Image, role: str, lines: np.ndarray, *, name: str, **look: Any) -> Any:
        """Show lines `(k, 2, n)`, start and way in the picture's array coordinates, in the one layer of their role."""
        layer = self.find(image, role)
        state, wider = even_state(image)
        empty = len(lines) == 0
        data = (np.zeros((1, 2, image.ndim)) if empty else np.asarray(lines, dtype=float)) * wider
        if layer is None:
            layer = self._add(image, role, self._viewer.add_vectors, data, name=name, **look, **state)
        elif not np.array_equal(layer.data, data):
            with _unmeasured(layer):
                layer.data = data
        _set_opacity(layer, 0.0 if empty else 1.0)
        return layer

    def keep(self, image: Layer, layer: Layer) -> Layer:
        """Make a copy of a layer of ours that is not replaced."""
        data, attributes, kind = layer.as_layer_data_tuple()
        attributes |= {"name": f"{layer.name} (kept)", "visible": False}
        with keeping_selection(self._viewer):
            copy = self._viewer.add_layer(type(layer).create(np.array(data), attributes, kind))
        copy.metadata[KEY] = {"id": uuid.uuid4().hex, "owner": id(copy), "role": "kept", "image": identity(image)}
        return copy

    def _add(self, image: Layer, role: str, add: Callable[..., Layer], data: Any, **options: Any) -> Any:
        # Seen as ours from the beginning, so that the sliders are not measured by it.
        options["metadata"] = options.get("metadata", {}) | {KEY: {"role": role}}
        with keeping_selection(self._viewer):
            layer = add(data, **options)
        self._own(image, role, layer)
        if role in TOGETHER:
            self._gather(image)
        return layer

    def _own(self, image: Layer, role: str, layer: Any) -> Any:
        owner = identity(image)
        layer.metadata[KEY] = {"id": uuid.uuid4().hex, "owner": id(layer), "role": role, "image": owner}
        self._known[owner, role] = weakref.ref(layer)
        return layer

    def _gather(self, image: Layer) -> None:
        """Put what belongs together side by side, over everything else."""
        ours = [layer for layer in (self.find(image, role) for role in TOGETHER) if layer is not None]
        layers = self._viewer.layers
        if list(layers[-len(ours) :]) != ours:
            with keeping_selection(self._viewer):
                layers.move_multiple([layers.index(layer) for layer in ours], len(layers))


def _file_of(image: Layer) -> dict[str, Any]:
    """What a layer over a picture takes over from it, so that it is saved on the grid of the same file."""
    origin = origin_of(image.metadata)
    return {} if origin is None else {FILE_KEY: replace(origin, scan=None, copy=None)}


def _unmeasured(layer: Layer) -> Any:
    """Change the data of a layer that stays within the picture: the viewer does not measure its world anew, which is slow."""
    return layer.events.data.blocker()


def _draw(mask: Labels, *, outlined: bool) -> None:
    """Draw a mask as lines, or filled."""
    if mask.contour != int(outlined):
        mask.contour = int(outlined)
        if mask.opacity in (FILLED, OUTLINED):  # not where the user set another
            mask.opacity = OUTLINED if outlined else FILLED


def _set_opacity(layer: Layer, opacity: float) -> None:
    """Set it where it is another; napari draws the layer's small picture anew even where it is not."""
    if layer.opacity != opacity:
        layer.opacity = opacity
