"""Maps against each other, and the parts of a mask whose attention is worth comparing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medt.attention.sources import STILL
from napari_medt.core import AttentionMap, BadImage, Geometry

Mask = npt.NDArray[np.bool_]


def difference(a: AttentionMap, b: AttentionMap) -> AttentionMap:
    """How much more one map says than another: `a - b` on the finer of their two grids.

    Both are put in units of even attention where they have such a value. A place beyond the window of a pick was not looked at,
    so it counts as 0; where a map of the whole image says nothing, the difference is 0.

    Parameters
    ----------
    a, b
        Of two models, before and after learning, of two structures ...; over one image.

    Returns
    -------
    AttentionMap
        Above 0 where `a` has more.

    Raises
    ------
    BadImage
        If the maps do not lie in the same world, or their values cannot be compared.
    """
    if a.geometry.ndim != b.geometry.ndim or a.geometry.units != b.geometry.units:
        raise BadImage("These maps belong to different images", remedy="compare maps of one image")
    if (a.even is None) != (b.even is None):
        raise BadImage(
            f"A map of the kind {a.kind!r} cannot be compared with one of the kind {b.kind!r}",
            remedy="compare two gates, or two maps that are none",
        )
    finer = min(a, b, key=lambda found: abs(float(np.linalg.det(found.geometry.affine))))
    (one, known), (other, too) = (_sampled(found, finer.geometry, finer.data.shape) for found in (a, b))
    found = one - other
    for picked, there in ((a.query is not None, known), (b.query is not None, too)):
        if not picked:
            found[~there] = 0
    unit = "" if a.even is None else ", in units of what even attention would give"
    caption = f"Above 0 where {a.source} has more than {b.source}, below 0 where it has less{unit}."
    return AttentionMap(found, finer.geometry, a.source, "difference", a.head, a.query, caption)


def _sampled(found: AttentionMap, geometry: Geometry, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], Mask]:
    """A map at the places of another grid, linearly; and where it says anything."""
    data = found.times_even
    if data.shape == shape and found.geometry.close_to(geometry, shape=shape):
        return data.copy(), np.ones(shape, dtype=bool)
    index = np.moveaxis(np.indices(shape, dtype=np.float32), 0, -1)
    at = np.moveaxis(found.geometry.index(geometry.position(index)), -1, 0)
    ends = np.reshape(data.shape, (-1,) + (1,) * data.ndim)
    known = np.all((at >= -0.5 - 1e-6) & (at <= ends - 0.5 + 1e-6), axis=0)
    values = ndimage.map_coordinates(data, at, order=1, mode="nearest")
    return np.where(known, values, np.float32(0)), np.asarray(known)


def component(labels: npt.NDArray[Any], at: tuple[int, ...]) -> Mask:
    """The connected part of a label that a point lies in, neighbours at corners included.

    Raises
    ------
    BadImage
        If there is only background.
    """
    value = labels[tuple(at)]
    if not value:
        raise BadImage(f"At the point {tuple(at)} there is no structure", remedy="choose a point inside one")
    parts, _ = ndimage.label(labels == value, structure=np.ones((3,) * labels.ndim))
    return np.asarray(parts == parts[tuple(at)])


def right_and_wrong(labels: npt.NDArray[Any], reference: npt.NDArray[Any], value: int) -> tuple[Mask, Mask]:
    """Where a label is as the reference has it, and where it is missing or too much; both are masks for `structure`."""
    drawn, meant = labels == value, reference == value
    return drawn & meant, drawn ^ meant


def wrong_against_right(right: AttentionMap, wrong: AttentionMap) -> list[AttentionMap]:
    """What the model looked at for what it drew rightly and wrongly, of which both maps are, as of `AttentionExplorer.structure`.

    Returns
    -------
    list of AttentionMap
        How much more it looked somewhere for what is wrong, then both maps themselves. Of a source whose map is the same for
        every structure that map alone, with its mean where the mask is right and where it is wrong.
    """
    if right.kind in STILL:
        means = f"{right.extras['inside']:.2f} where the mask is right, {wrong.extras['inside']:.2f} where it is wrong"
        return [replace(right, caption=f"{right.caption} It is {means}.")]
    more = replace(
        difference(wrong, right),
        caption="Above 0 where the model looked more for what it drew wrongly than for what it drew rightly, below 0 where "
        "less, in units of what even attention would give.",
    )
    said = (
        (right, "right", "What is drawn as the reference has it"),
        (wrong, "wrong", "What is missing or too much against the reference"),
    )
    return [more, *(replace(found, kind=kind, caption=f"{what}. {found.caption}") for found, kind, what in said)]
