"""Picture, mask, attention and unsure places of one slice side by side, for print."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.io import atomic_write
from napari_medt.io.needs import needs
from napari_medt.widgets import texts
from napari_medt.widgets._compat import scene_camera
from napari_medt.widgets.layers import class_colormap, geometry_of, level_0, spatial_shape_of, units_of
from napari_medt.widgets.map_layers import METADATA, rounded_up
from napari_medt.widgets.slice_shown import index_shown

if TYPE_CHECKING:
    from napari_medt.widgets.review import Review

WIDTH_IN = 7.1  # 180 mm, two columns of a journal
DPI = 300
CAPTION_PT = 6.5
BELOW_IN = 1.2  # room for titles, colour bars, names and the caption
CAPTION_LETTERS = 125  # in a line

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sheet:
    """One layer as it is drawn: its array, where it lies `(n+1, n+1)`, and how values become colours."""

    data: Any
    affine: Array
    limits: tuple[float, float]
    colormap: Any


@dataclass(frozen=True, eq=False)
class Scene:
    """One slice of a picture with what lies over it.

    Attributes
    ----------
    picture
        The picture; `rgb` where its last axis are colours.
    axes
        The rows and the columns that are shown, of the picture's axes.
    at
        Where along the others, in array indices.
    flips
        Whether rows run upwards, columns to the left.
    mask, attention, uncertainty
        What there is of it.
    classes
        Names of the labels, background first.
    point
        The point asked about.
    unit, spacing
        Of the picture.
    map_unit, caption
        Of the attention.
    """

    picture: Sheet
    rgb: bool
    shape: tuple[int, ...]
    axes: tuple[int, int]
    at: tuple[int, ...]
    flips: tuple[bool, bool]
    spacing: tuple[float, ...]
    unit: str
    mask: Sheet | None = None
    attention: Sheet | None = None
    uncertainty: Sheet | None = None
    classes: tuple[str, ...] = ()
    point: tuple[int, ...] | None = None
    map_unit: str = ""
    caption: str = ""


def scene_of(review: Review, image: Any) -> Scene:
    """Note what is shown; quick, on the window's thread."""
    dims, ndim = review.viewer.dims, int(image.ndim)
    first = dims.ndim - ndim
    shown = [axis - first for axis in dims.order[-2:]]
    shape = spatial_shape_of(image)
    at = index_shown(review.viewer, image).clip(0, np.array(shape) - 1)
    vertical, horizontal = map(str, getattr(scene_camera(review.viewer), "orientation2d", ("down", "right")))

    def sheet(layer: Any) -> Sheet | None:
        if layer is None:
            return None
        limits = tuple(float(value) for value in getattr(layer, "contrast_limits", (0, 1)))
        return Sheet(level_0(layer), geometry_of(layer, ndim).affine, (limits[0], limits[1]), layer.colormap)

    ours, work = review.layers, review.work
    attention = ours.find(image, "attention")
    facts = {} if attention is None else attention.metadata.get(METADATA, {})
    caption, belief = facts.get("caption", ""), facts.get("belief", "")
    if belief not in caption:
        caption = f"{caption} {belief}"
    picture = sheet(image)
    assert picture is not None
    return Scene(
        picture,
        bool(image.rgb),
        shape,
        (shown[0], shown[1]),
        tuple(int(i) for i in at),
        (vertical == "up", horizontal == "left"),
        geometry_of(image, ndim).spacing,
        units_of(image),
        mask=sheet(ours.find(image, "mask")),
        attention=sheet(attention) if facts else None,
        uncertainty=sheet(ours.find(image, "uncertainty")),
        classes=() if work is None else tuple(work.classes),
        point=facts.get("query"),
        map_unit=facts.get("unit", ""),
        caption=caption,
    )


def draw(scene: Scene, path: Path) -> None:
    """Write the figure; its ending says which format.

    Raises
    ------
    MissingLibrary
        If matplotlib is not installed.
    StorageError
        If the file cannot be written.
    """
    needs("matplotlib", "train", doing="A figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [name for name in texts.PANELS if name == "picture" or getattr(scene, name) is not None]
    rows, columns = (scene.shape[axis] * scene.spacing[axis] for axis in scene.axes)
    each = WIDTH_IN / len(panels)
    height = min(8.0, each * rows / columns)
    figure = Figure(figsize=(WIDTH_IN, height + BELOW_IN), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    pictures, below = figure.subplots(2, len(panels), squeeze=False, height_ratios=(height, 0.07))
    grey = _picture(scene)
    for number, (name, place, bar) in enumerate(zip(panels, pictures, below, strict=True)):
        place.set_title(f"{'abcd'[number]}  {texts.PANELS[name]}", loc="left", fontsize=8)
        place.imshow(grey, interpolation="nearest", aspect=scene.spacing[scene.axes[0]] / scene.spacing[scene.axes[1]])
        place.set_axis_off()
        if name == "mask":
            _draw_mask(scene, place, bar)
        elif name != "picture":
            _draw_map(scene, name, place, bar)
        else:
            _draw_scale(scene, place)
        if name in ("picture", "mask"):
            bar.set_axis_off()
        if scene.flips[0]:
            place.invert_yaxis()
        if scene.flips[1]:
            place.invert_xaxis()
    if scene.caption:
        figure.supxlabel(_wrapped(scene.caption), fontsize=CAPTION_PT, x=0.01, ha="left")
    target = io.BytesIO()
    figure.savefig(target, format=path.suffix.lstrip(".").lower() or "png", dpi=DPI)
    atomic_write(path, target.getvalue())


def sampled(scene: Scene, sheet: Sheet) -> Array:
    """Values of a layer at the pixels of the slice, by the nearest; nan beside it."""
    index = np.empty((*(scene.shape[axis] for axis in scene.axes), len(scene.shape)))
    index[...] = scene.at
    rows, columns = scene.axes
    index[..., rows] = np.arange(scene.shape[rows])[:, None]
    index[..., columns] = np.arange(scene.shape[columns])
    between = np.linalg.solve(sheet.affine, scene.picture.affine)
    place = np.floor(index @ between[:-1, :-1].T + between[:-1, -1] + 0.5 + 1e-6).astype(int)
    shape = np.array(sheet.data.shape[: len(scene.shape)])
    inside = ((place >= 0) & (place < shape)).all(axis=-1)
    found = np.full(inside.shape, np.nan, dtype=np.float32)
    found[inside] = np.asarray(sheet.data)[tuple(place[inside].T)]
    return found


def _picture(scene: Scene) -> Array:
    """The slice as grey or colours, 0 to 1."""
    rows, columns = scene.axes
    where = tuple(slice(None) if axis in scene.axes else place for axis, place in enumerate(scene.at))
    values = np.asarray(scene.picture.data[where], dtype=np.float32)
    if rows > columns:
        values = np.swapaxes(values, 0, 1)
    if scene.rgb:
        top = 255.0 if np.asarray(scene.picture.data[where]).dtype == np.uint8 else 1.0
        return (values[..., :3] / top).clip(0, 1)
    low, high = scene.picture.limits
    grey = ((values - low) / max(high - low, 1e-12)).clip(0, 1)
    return np.repeat(grey[..., None], 3, axis=-1)


def _draw_mask(scene: Scene, place: Any, below: Any) -> None:
    from matplotlib.patches import Patch

    assert scene.mask is not None
    labels = np.nan_to_num(sampled(scene, scene.mask)).astype(int)
    colours = class_colormap(max(len(scene.classes), int(labels.max()) + 1)).color_dict
    over = np.zeros((*labels.shape, 4))
    present = [int(label) for label in np.unique(labels) if label]
    for label in present:
        over[labels == label] = (*np.asarray(colours[label])[:3], 0.55)
    place.imshow(over, interpolation="nearest", aspect=place.get_aspect())
    named = [(label, scene.classes[label]) for label in present if label < len(scene.classes)]
    if named:
        patches = [Patch(color=np.asarray(colours[label])[:3], label=name) for label, name in named]
        below.legend(
            handles=patches,
            fontsize=CAPTION_PT,
            loc="upper center",
            borderaxespad=0,
            frameon=False,
            handlelength=1,
        )


def _draw_map(scene: Scene, name: str, place: Any, below: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    sheet: Sheet = getattr(scene, name)
    values = sampled(scene, sheet)
    low, high = sheet.limits
    shares = ((values - low) / max(high - low, 1e-12)).clip(0, 1)
    over = np.asarray(sheet.colormap.map(np.nan_to_num(shares).ravel())).reshape((*shares.shape, 4)).copy()
    over[np.isnan(shares)] = 0
    place.imshow(over, interpolation="nearest", aspect=place.get_aspect())
    colours = np.asarray(sheet.colormap.map(np.linspace(0, 1, 256)))
    solid = colours[:, :3] * colours[:, 3:] + 0.25 * (1 - colours[:, 3:])  # over a dark picture
    colours_of = ScalarMappable(Normalize(low, high), ListedColormap(solid))
    bar = place.figure.colorbar(colours_of, cax=below, orientation="horizontal")
    bar.ax.tick_params(labelsize=CAPTION_PT - 1, length=2)
    bar.set_label(scene.map_unit if name == "attention" else texts.UNSURE_UNIT, fontsize=CAPTION_PT)
    if name == "attention" and scene.point is not None and _in_slice(scene, scene.point):
        rows, columns = scene.axes
        for colour, size in (("black", 7), ("white", 5)):
            place.plot(
                scene.point[columns], scene.point[rows], "+", color=colour, ms=size, mew=1.6 if size > 5 else 0.8
            )


def _draw_scale(scene: Scene, place: Any) -> None:
    """A line of a round length, where the picture says how large its pixels are."""
    if scene.unit == "px":
        return
    rows, columns = (scene.shape[axis] for axis in scene.axes)
    step = scene.spacing[scene.axes[1]]
    length = rounded_up(columns * step / 8)
    start = columns * 0.05
    y = rows * (0.06 if scene.flips[0] else 0.94)
    ends = [start, start + length / step]
    if scene.flips[1]:
        ends = [columns - end for end in ends]
    place.plot(ends, [y, y], color="white", lw=2, solid_capstyle="butt")
    name = {"um": "µm"}.get(scene.unit, scene.unit)
    place.annotate(
        f"{length:g} {name}",
        (sum(ends) / 2, y),
        (0, 3),
        textcoords="offset points",
        color="white",
        fontsize=6,
        ha="center",
    )


def _in_slice(scene: Scene, point: Sequence[int]) -> bool:
    return all(point[axis] == scene.at[axis] for axis in range(len(scene.shape)) if axis not in scene.axes)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, CAPTION_LETTERS))
