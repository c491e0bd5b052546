"""From an image as it was read to what a network wants: its channels, on its grid, on its scale of intensities.

Nothing of a large image is converted at once: `fit` looks at the image and remembers what is to be done, `Prepared.window`
does it for one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import AxisMap, Geometry, Volume
from napari_medt.engine.channels import Channels, fit_channels
from napari_medt.engine.foreground import foreground_box
from napari_medt.engine.grid import Grid, resample
from napari_medt.engine.intensity import Scale, find_scale
from napari_medt.engine.planes import acquired_plane, no_turn, plane_axes
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from napari_medt.zoo.card import Intensity, ModelCard

__all__ = ["Channels", "Prepared", "Scale", "axes_for", "fit", "normalise", "prepare"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
TOGETHER = 2**25  # values of the image that are converted at once


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready to be cut into windows, converted only window by window.

    Attributes
    ----------
    array
        `(c, *spatial)` as read, its axes rearranged as `grid.axes` says; anything that can be sliced like an array.
    channels
        Which of its channels are taken.
    scale
        Of their intensities.
    grid
        How its samples and those of the model lie in one another.
    geometry
        Of the model's grid.
    crop
        The box of `array` outside of which there is nothing to segment; `None` where all is to be segmented.
    notes
        Sentences for the user about what was done to the image.
    """

    array: Array
    channels: Channels
    scale: Scale
    grid: Grid
    geometry: Geometry
    crop: Box | None = None
    notes: tuple[str, ...] = ()

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of the model's grid, without channels."""
        return self.grid.shape_model

    def window(self, where: Sequence[slice]) -> Floats:
        """A window of the model's grid, slices with explicit ends: `(c, *window)` float32, not to be written to."""
        needed, changes = list(where), {}
        for axis, (line, part) in enumerate(zip(self.grid.lines, where, strict=True)):
            if not line.same:
                needed[axis], index, weights = line.weights(part)
                changes[axis + 1] = index, weights
        read = np.asarray(self.array[(slice(None), *needed)])
        if 1 not in changes:
            return self.channels.spread(self._sampled(read, changes))
        # Band by band, since what a window of a much coarser grid is made of is much larger than it.
        index, weights = changes[1]
        each = max(1, len(index) * TOGETHER // read.size)
        bands = []
        for start in range(0, len(index), each):
            here = index[start : start + each]
            low, high = int(here.min()), int(here.max())
            some = changes | {1: (here - low, weights[start : start + each])}
            bands.append(self._sampled(read[:, low : high + 1], some))
        return self.channels.spread(bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1))

    def _sampled(self, read: Array, changes: dict[int, tuple[Array, Array]]) -> Floats:
        """Values of the image on the model's scale and grid; `changes` by axis, index and weights as of `resample`."""
        found = self.scale.apply(self.channels.pick(read))
        # What makes the window smaller comes first, so that there is less to do for the rest.
        for axis in sorted(changes, key=lambda axis: len(changes[axis][0]) / read.shape[axis]):
            found = resample(found, axis, *changes[axis])
        return found

    def whole(self) -> Floats:
        """The whole image on the model's grid."""
        return np.ascontiguousarray(self.window(tuple(slice(0, size) for size in self.spatial_shape)))


def fit(volume: Volume, card: ModelCard, *, axes: AxisMap | None = None, scale: Scale | None = None) -> Prepared:
    """Fit an image to a model without converting it yet.

    Parameters
    ----------
    volume, card
        Of the image and the model.
    axes
        How its axes are rearranged, for slices in a chosen plane; by default towards the orientation of the card.
    scale
        That of the scan a slice belongs to, if it is one.

    Raises
    ------
    BadImage
        If the channels cannot be fitted or no value is finite.
    """
    channels, notes = fit_channels(volume, card)
    if axes is None:
        axes, more = axes_for(volume, card)
        notes += more
    if card.spacing is not None and volume.geometry.units == "px":
        notes += ("The file does not say how far apart its samples are, so they were taken as the model wants them.",)
    grid = Grid.of(volume.geometry, volume.spatial_shape, axes=axes, spacing=card.spacing)
    array = volume.array if axes.is_identity else axes.apply(volume.array)
    if scale is None:
        scale, more = find_scale(array, card.intensity, channels)
        notes += more
    crop = None
    if card.crop == "foreground":
        crop = foreground_box(array, volume, channels, axes)
    return Prepared(array, channels, scale, grid, grid.geometry(volume.geometry), crop, notes)


def prepare(volume: Volume, card: ModelCard, *, scale: Scale | None = None) -> tuple[Floats, tuple[str, ...]]:
    """The whole image as a network wants it, `(c, *spatial)` float32, and notes for the user; `scale` as in `fit`."""
    prepared = fit(volume, card, scale=scale)
    return prepared.whole(), prepared.notes


def normalise(array: Array, intensity: Intensity) -> Floats:
    """Intensity treatment of `(c, *spatial)` alone, as float32."""
    return find_scale(array, intensity, Channels(tuple(range(array.shape[0]))))[0].apply(array)


def axes_for(volume: Volume, card: ModelCard) -> tuple[AxisMap, tuple[str, ...]]:
    """How axes are rearranged towards the orientation a model wants, and a note where that is not known.

    A 2D model that does not say gets the slices of a scan as radiologists look at them, however the file holds them.
    """
    stay = no_turn(volume.geometry.ndim)
    if volume.geometry.ndim != 3:
        return stay, ()
    if not card.orientation:
        slices = card.spatial_dims == 2 and volume.geometry.frame == "patient"
        return plane_axes(volume.geometry, acquired_plane(volume.geometry)) if slices else stay, ()
    if volume.geometry.frame != "patient":
        return stay, ("The file does not say how the patient lies, so the axes were taken as the model wants them.",)
    return volume.geometry.axes_towards(card.orientation), ()
