"""A scan as a 2D model goes through it: how it is cut into slices, and one of them as an image of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medt.core import AxisMap, Geometry, Volume

if TYPE_CHECKING:
    from napari_medt.engine.planes import Plane
    from napari_medt.zoo import ModelCard


def slicing(volume: Volume, card: ModelCard, plane: Plane | None = None) -> AxisMap | None:
    """How the axes of a scan are rearranged for a 2D model, slices first; `None` where the model sees the image as a whole.

    Without a plane the slices are those of a run that nobody asked for another plane.
    """
    from napari_medt.engine.planes import plane_axes
    from napari_medt.engine.prepare import axes_for

    if volume.geometry.ndim in (2, card.spatial_dims):
        return None
    return axes_for(volume, card)[0] if plane is None else plane_axes(volume.geometry, plane)


def one_slice(volume: Volume, axes: AxisMap, number: int) -> Volume:
    """Return a slice of a scan as a 2D image.

    Parameters
    ----------
    volume
        The scan.
    axes
        As of `slicing`.
    number
        Of the slice, along the first of the rearranged axes.
    """
    spacing = [volume.geometry.spacing[old] for old in axes.order[1:]]
    return Volume(
        axes.apply(volume.array)[:, number],
        Geometry.from_spacing(spacing, units=volume.geometry.units),
        volume.channel_names,
        volume.source,
        acquisition=volume.acquisition,
    )
