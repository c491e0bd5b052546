"""Maps of attention as layers: where their cells lie, what their colours mean, and the marks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt._napari_io.origin import COMPUTED_KEY, Computed
from napari_medt.core import AttentionMap, Geometry
from napari_medt.widgets import texts
from napari_medt.widgets.layers import FRAME_COLOUR, OurLayers, geometry_of, spatial_shape_of, spatial_state

if TYPE_CHECKING:
    from napari.layers import Image, Layer

UP_TO_ONE = ("gate", "guided", "agreement")
"""Kinds of maps that are shown from 0 to 1."""

ARROW_COLOUR = "#7fdbff"

ARROWS = 5
"""Places that arrows point to, at most."""

HALF_A_VOXEL = 0.5

METADATA = "napari_medt_attention"
"""Under this name a map's layer says what it is."""

Points = npt.NDArray[np.float64]


def place_map(image: Layer, found: AttentionMap, picture: Geometry) -> tuple[np.ndarray, dict[str, Any]]:
    """Data and place of a map whose grid is coarser than the picture's, and whose axes may be in another order.

    Parameters
    ----------
    image
        The layer the map belongs to.
    found
        In the world of `picture`, its axes along those of the picture.
    picture
        Geometry under which the picture was sent.

    Returns
    -------
    tuple
        The map with its axes as the picture has them, and the spatial state that lays its cells exactly over the pixels.

    Raises
    ------
    ValueError
        If the map is turned against the picture.
    """
    from napari.utils.transforms import Affine

    cells = np.linalg.solve(picture.affine, found.geometry.affine)
    turn, offset = cells[:-1, :-1], cells[:-1, -1]
    order = np.abs(turn).argmax(axis=1)
    rows = np.arange(len(order))
    straight = np.zeros_like(turn)
    straight[rows, order] = turn[rows, order]
    aside = np.abs(turn - straight) @ found.data.shape  # in voxels of the picture
    if len(set(order.tolist())) < len(order) or aside.max() > HALF_A_VOXEL:
        raise ValueError("the map is turned against the picture")
    data, steps = found.data.transpose(order), turn[rows, order]
    flips = steps < 0
    offset = offset + np.where(flips, steps * (np.array(data.shape) - 1), 0)
    data = data[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    state = spatial_state(image)
    inner = Affine(
        scale=state["scale"],
        translate=state["translate"],
        rotate=state["rotate"],
        shear=state["shear"],
        ndim=image.ndim,
    )
    state["translate"] = np.asarray(inner(offset))
    state["scale"] = np.asarray(state["scale"]) * np.abs(steps)
    return data, state


def limits_of(found: AttentionMap) -> tuple[float, float]:
    """From where to where the colours of a map run: on a scale of few steps, so that maps alike have the same."""
    if found.kind in UP_TO_ONE:
        return 0.0, 1.0
    values = found.times_even
    if found.kind == "difference":
        high = rounded_up(float(np.percentile(np.abs(values), 99.5)))
        return -high, high
    high = np.percentile(values, 98)
    most = values[values > high]
    if most.sum() > values.sum() / 2:  # most attention lies on so few cells; the others would be as bright as they
        high = np.median(most)
    return 0.0, rounded_up(float(high) or float(values.max()))


def rounded_up(value: float) -> float:
    """The next of ... 0.5, 1, 2, 5, 10 ... that is not below."""
    if not value > 0:
        return 1.0
    decade = 10.0 ** np.floor(np.log10(value))
    return float(next(step * decade for step in (1, 2, 5, 10) if step * decade >= value * (1 - 1e-9)))


def show_map(
    ours: OurLayers,
    image: Image,
    found: AttentionMap,
    picture: Geometry,
    *,
    limits: tuple[float, float],
    heads: int,
    **facts: Any,
) -> Any:
    """Lay a map over the picture in place of the one before; `facts` go into the metadata of its layer.

    `heads` is how many its source has.
    """
    values = found.times_even
    data, state = place_map(image, replace(found, data=values), picture)
    layer = ours.show_map(
        image,
        "attention",
        data,
        state,
        name=texts.map_name(found.source, found.kind, found.head, heads),
        colormap="inferno",
        limits=limits,
        framed=not _needs_no_frame(found, picture, spatial_shape_of(image)),
        both_ways=found.kind == "difference",
    )
    exact, place = found.extras.get("on_scan", found), geometry_of(layer, data.ndim)
    computed = values if exact is found else exact.times_even
    layer.metadata[COMPUTED_KEY] = Computed(computed, exact.geometry, layer.data, place)
    layer.metadata[METADATA] = {
        "source": found.source,
        "kind": found.kind,
        "head": found.head,
        "query": found.query,
        "caption": found.caption,
        "unit": texts.unit_of_map(found.kind, found.even is not None),
        **facts,
    }
    return layer


def show_marks(ours: OurLayers, image: Image, found: AttentionMap, *, arrows: bool = True) -> None:
    """Mark the point asked about, the window it was seen in, and by arrows, if wanted, what was looked at most there."""
    at, window = found.query, found.extras.get("window")
    if at is None:
        if ours.find(image, "point") is not None:
            clear_marks(ours, image)
        return
    lines = nothing = np.zeros((0, 2, image.ndim))
    whole = np.array([[-0.5] * image.ndim, np.array(spatial_shape_of(image)) - 0.5])
    if window is not None and not np.allclose(np.clip(window, *whole), whole, atol=HALF_A_VOXEL):
        lines = frame_lines(window, at)
    wanted = arrows and found.even is not None
    ways = arrow_lines(at, found.extras["targets"], found.extras["shares"], found.even) if wanted else nothing
    _mark(ours, image, at, lines, ways)


def remove(ours: OurLayers, image: Image) -> None:
    """Take a map and its marks out of the viewer."""
    for role in ("attention", "point", "window", "arrows"):
        ours.remove(image, role)


def clear_marks(ours: OurLayers, image: Image) -> None:
    """Have the marks there, but not to be seen, so that a click only has to move them."""
    nothing = np.zeros((0, 2, image.ndim))
    _mark(ours, image, None, nothing, nothing)


def _mark(ours: OurLayers, image: Image, at: Sequence[float] | None, lines: Points, arrows: Points) -> None:
    thick = max(0.25, 0.002 * max(spatial_shape_of(image)[-2:]))
    look = {"vector_style": "line", "edge_color": FRAME_COLOUR, "edge_width": thick}
    ours.show_vectors(image, "window", lines, name=texts.WINDOW_LAYER, **look)
    look = {"vector_style": "arrow", "edge_color": ARROW_COLOUR, "edge_width": 2 * thick}
    ours.show_vectors(image, "arrows", arrows, name=texts.ARROWS_LAYER, **look)
    ours.show_point(image, at, name=texts.POINT_LAYER)


def frame_lines(window: npt.ArrayLike, at: Sequence[float]) -> Points:
    """Edges `(k, 2, n)` of a window in the planes through a point: one rectangle in 2D, three in 3D."""
    low, high = np.asarray(window, dtype=float)
    middle = np.clip(np.asarray(at, dtype=float), low, high)
    lines = []
    for one, other in ((a, b) for a, b in product(range(len(low)), repeat=2) if a < b):
        corner = middle.copy()
        corner[[one, other]] = low[[one, other]]
        along, across = np.zeros(len(low)), np.zeros(len(low))
        along[one], across[other] = high[one] - low[one], high[other] - low[other]
        lines += [(corner, along), (corner, across), (corner + across, along), (corner + along, across)]
    return np.array(lines)


def arrow_lines(at: Sequence[float], targets: Points, shares: npt.ArrayLike, even: float | None) -> Points:
    """Arrows `(k, 2, n)` from a point to what it looked at more than evenly, the strongest first; none to itself."""
    start, shares = np.asarray(at, dtype=float), np.asarray(shares)
    wanted = [
        (start, target - start)
        for target, share in zip(targets, shares, strict=True)
        if np.abs(target - start).max() > 1 and (even is None or share > even)
    ]
    return np.array(wanted[:ARROWS]) if wanted else np.zeros((0, 2, len(start)))


def arrows_elsewhere(found: AttentionMap, picture: Geometry, axis: int) -> tuple[int, int]:
    """How many arrows lead to cells that the slice of the point, across an axis of the picture, does not cut; and all."""
    if found.query is None or not found.even:
        return 0, 0
    arrows = arrow_lines(found.query, found.extras["targets"], found.extras["shares"], found.even)
    cell = np.abs(np.linalg.solve(picture.affine, found.geometry.affine)[axis, :-1]).max()
    return int((np.abs(arrows[:, 1, axis]) > max(cell, 1) / 2 + 1e-6).sum()), len(arrows)


def _needs_no_frame(found: AttentionMap, picture: Geometry, shape: tuple[int, ...]) -> bool:
    """Whether the border of a map can be seen without a frame: it covers the whole picture, or all of a window that is framed."""
    ends = np.array(list(product(*((-0.5, n - 0.5) for n in found.data.shape))))
    at = picture.index(found.geometry.position(ends))
    low, high = at.min(axis=0), at.max(axis=0)
    if (low < 0.51).all() and (high > np.array(shape) - 1.51).all():
        return True
    cell = (high - low) / np.array(found.data.shape)
    window = None if found.query is None else found.extras.get("window")
    return window is not None and bool((np.abs(np.array([low, high]) - window) < np.maximum(cell, 1)).all())
