"""`Origin`: where a layer's samples came from, so that a mask goes back to exactly the place of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_medt.core import Acquisition, AxisMap, Geometry, LabelMap, Volume
from napari_medt.core.geometry import unit_of
from napari_medt.core.volume import Array

FILE_KEY = "napari_medt_file"
"""Under this name layers that were opened from files, and masks over them, carry their `Origin` in `layer.metadata`."""


COMPUTED_KEY = "napari_medt_computed"
"""Under this name a layer of values that were calculated carries them as they were: its `Computed`."""


@dataclass(frozen=True, eq=False)
class Computed:
    """Values on the grid on which they were calculated, and the layer that shows them, whose axes or grid may be others.

    Attributes
    ----------
    array, geometry
        As calculated.
    shown, place
        The array of the layer, and where it lay when it was made.
    """

    array: Array
    geometry: Geometry
    shown: Array
    place: Geometry

    def still_holds(self, layer: Mapping[str, Any], data: Array) -> bool:
        """Whether a layer of these attributes and this array still shows the values, where they were laid."""
        if data.shape != self.shown.shape:
            return False
        here = Geometry.from_layer(layer, ndim=data.ndim, frame=self.place.frame)
        if here.units != self.place.units or not here.close_to(self.place, shape=data.shape):
            return False
        return data is self.shown or np.array_equal(data, self.shown, equal_nan=True)


@dataclass(frozen=True, eq=False)
class Origin:
    """How an image of a file is shown in the viewer.

    Attributes
    ----------
    source
        Path of the file or folder.
    geometry, shape
        Of the file's spatial axes.
    axes
        From the file's axes to those shown, which run towards head, back and left of a patient, or along the axes of the
        world: a view.
    shown, shown_shape
        Geometry and shape in the viewer.
    resampled
        Whether the axes of the file are at an angle to the patient, so that a copy on a straight grid is shown.
    acquisition
        What the file says about how the image was made.
    notes
        Sentences about what is odd in the file, or in how it is shown.
    scan, copy
        Of a layer that shows a copy on a straight grid: the image as it lies in the file, its axes rearranged by `axes`,
        and the array that is shown of it.
    exact
        Of a mask over such a copy: labels on the file's grid that it was made of, so that they are saved as they are
        wherever the mask still shows them.
    """

    source: str
    geometry: Geometry
    shape: tuple[int, ...]
    axes: AxisMap
    shown: Geometry
    shown_shape: tuple[int, ...]
    resampled: bool = False
    acquisition: Acquisition = field(default_factory=Acquisition)
    notes: tuple[str, ...] = ()
    scan: Volume | None = None
    copy: Any = None
    exact: Array | None = None

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        shape: Sequence[int],
        *,
        source: str = "",
        acquisition: Acquisition | None = None,
        straighten: bool = True,
    ) -> Origin:
        """Plan how an image is shown; `straighten` allows a copy on a straight grid."""
        axes = geometry.axes_towards()
        shown = geometry.rearranged(axes, shape)
        shown_shape = tuple(int(shape[axis]) for axis in axes.order)
        resampled = straighten and geometry.ndim == 3 and geometry.is_oblique
        if resampled:
            shown, shown_shape = straight_grid(shown, shown_shape)
        return cls(
            source,
            geometry,
            tuple(int(n) for n in shape),
            axes,
            shown,
            shown_shape,
            resampled,
            acquisition or Acquisition(),
        )

    def still_holds(self, layer: Mapping[str, Any], shape: Sequence[int]) -> bool:
        """Whether a layer of these attributes and spatial shape lies where the image of the file is shown."""
        if tuple(shape) != self.shown_shape:
            return False
        if self.shown.units != unit_of(layer.get("units")):
            return False
        here = Geometry.from_layer(layer, ndim=len(shape), frame=self.shown.frame)
        return here.close_to(self.shown, shape=shape)

    def back(self, mask: LabelMap) -> LabelMap:
        """Put a mask that lies where the image is shown on the file's own grid: exactly, or by the nearest label."""
        if not self.resampled:
            return replace(mask, array=self.axes.inverse.apply(mask.array), geometry=self.geometry)
        from napari_medt.io import resample

        found = resample(mask, self.geometry, self.shape, nearest=True)
        if self.exact is None:
            return found
        before = self.forth(replace(mask, array=self.exact, geometry=self.geometry))
        changed = replace(mask, array=(mask.array != before.array).astype(np.uint8))
        changed = resample(changed, self.geometry, self.shape, nearest=True)
        return replace(found, array=np.where(changed.array > 0, found.array, self.exact))

    def forth(self, mask: LabelMap) -> LabelMap:
        """Put a mask that lies on the file's own grid where the image is shown."""
        if not self.resampled:
            return replace(mask, array=self.axes.apply(mask.array), geometry=self.shown)
        from napari_medt.io import resample

        return resample(mask, self.shown, self.shown_shape, nearest=True)

    def stand_in(self) -> Volume:
        """Return the image of the file without its values, as the source a mask refers to."""
        nothing = np.broadcast_to(np.zeros((), np.uint8), (1, *self.shape))
        return Volume(nothing, self.geometry, source=self.source, acquisition=self.acquisition)


def origin_of(metadata: Mapping[str, Any] | None) -> Origin | None:
    """Return the origin in a layer's metadata."""
    found = (metadata or {}).get(FILE_KEY)
    return found if isinstance(found, Origin) else None


def straight_grid(geometry: Geometry, shape: Sequence[int]) -> tuple[Geometry, tuple[int, ...]]:
    """The grid along the axes of the world, of the same spacing, that holds an array whose axes run nearly as these.

    Parameters
    ----------
    geometry, shape
        Of an array rearranged by `axes_towards()`.
    """
    corners = np.stack(np.meshgrid(*((0, size - 1) for size in shape), indexing="ij"), -1)
    places = geometry.position(corners.reshape(-1, len(shape)))
    low, high = places.min(axis=0), places.max(axis=0)
    square = np.allclose(geometry.direction.T @ geometry.direction, np.eye(geometry.ndim), atol=1e-4)
    # A sheared axis, of a tilted gantry, is longer than the way it goes along the world's.
    steps = np.asarray(geometry.spacing) if square else np.abs(np.diagonal(geometry.affine)[:-1])
    size = tuple(int(n) for n in np.floor((high - low) / steps + 1e-6) + 2)
    return Geometry.from_spacing(steps.tolist(), origin=low.tolist(), units=geometry.units, frame=geometry.frame), size
