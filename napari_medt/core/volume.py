"""`Volume`, `Geometry`, `Prediction` and `AttentionMap`: the nouns every room speaks.

Arrays are channels first, `(c, y, x)` or `(c, z, y, x)`; geometry speaks of the spatial axes only, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core.errors import BadImage

Array = npt.NDArray[Any]

SPATIAL_AXES = ("z", "y", "x")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the samples of an array lie.

    Attributes
    ----------
    affine
        `(n + 1, n + 1)` float64, from array index in axis order to world position in `units`; `n` spatial axes.
    units
        Unit of the world, `"px"` when the file gives none, else `"mm"` or `"um"`.
    """

    affine: Array
    units: str = "px"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.ndim != 2 or affine.shape[0] != affine.shape[1] or affine.shape[0] not in (3, 4):
            raise BadImage(f"A geometry needs a 3x3 or 4x4 affine, but this one is of shape {affine.shape}")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise BadImage("The affine of this image is singular or not finite, so positions cannot be computed")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(
        cls, spacing: Sequence[float], *, origin: Sequence[float] | None = None, units: str = "px"
    ) -> Geometry:
        """Geometry with axes along the world's axes; `spacing` and `origin` in `units`, one per spatial axis."""
        affine = np.diag([*map(float, spacing), 1.0])
        if origin is not None:
            affine[:-1, -1] = origin
        return cls(affine, units)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return int(self.affine.shape[0]) - 1

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring samples along each axis, in `units`."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def origin(self) -> tuple[float, ...]:
        """World position of the centre of the first sample, in `units`."""
        return tuple(float(o) for o in self.affine[:-1, -1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.units == other.units and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.units, self.affine.tobytes()))


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its geometry.

    Attributes
    ----------
    array
        `(c, y, x)` or `(c, z, y, x)`, any numeric dtype, as read: no normalisation, NaN left in place.
    geometry
        Of the spatial axes.
    channel_names
        One per channel; `("red", "green", "blue")` for colour, `("grey",)` for a single channel.
    source
        Where it came from (a path or a layer's name), for messages; may be empty.
    """

    array: Array
    geometry: Geometry
    channel_names: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        array = self.array
        where = f" {self.source!r}" if self.source else ""
        if array.ndim - 1 != self.geometry.ndim:
            raise BadImage(
                f"The image{where} has shape {array.shape}, which does not fit {self.geometry.ndim} spatial axes"
            )
        if array.size == 0:
            raise BadImage(
                f"The image{where} is empty (shape {array.shape})", remedy="choose an image with pixels in it"
            )
        if array.dtype.kind not in "buif":
            raise BadImage(f"The image{where} holds values of type {array.dtype}, which are not grey or colour values")
        if not self.channel_names:
            object.__setattr__(self, "channel_names", default_channel_names(array.shape[0]))

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike,
        *,
        rgb: bool | None = None,
        geometry: Geometry | None = None,
        source: str = "",
    ) -> Volume:
        """Wrap a plain array.

        Parameters
        ----------
        array
            `(y, x)` grey, `(y, x, 3)` or `(y, x, 4)` colour, or `(z, y, x)` grey. The alpha of RGBA is dropped.
        rgb
            Whether the last axis holds colours; by default it does when it has 3 or 4 entries, the array is
            three-dimensional and the other two axes are longer.
        geometry
            Of the spatial axes; spacing 1 px by default.
        source
            Said in messages.
        """
        values = np.asarray(array)
        if rgb is None:
            rgb = values.ndim == 3 and values.shape[-1] in (3, 4) and min(values.shape[:2]) > 4
        if rgb:
            if values.ndim not in (3, 4) or values.shape[-1] not in (3, 4):
                raise BadImage(
                    f"A colour image must have 3 or 4 values in its last axis, but the shape is {values.shape}"
                )
            values = np.moveaxis(values[..., :3], -1, 0)
        elif values.ndim in (2, 3):
            values = values[None]
        else:
            raise BadImage(
                f"An image of shape {values.shape} is neither a 2D image nor a 3D scan",
                remedy="give one 2D image, one colour image or one 3D scan",
            )
        if geometry is None:
            geometry = Geometry.from_spacing((1.0,) * (values.ndim - 1))
        return cls(values, geometry, source=source)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape without channels, `(y, x)` or `(z, y, x)`."""
        return self.array.shape[1:]

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green, blue."""
        return self.channel_names == ("red", "green", "blue")


def default_channel_names(count: int) -> tuple[str, ...]:
    """Names of channels nobody named: grey, or red, green, blue, or numbered."""
    if count == 1:
        return ("grey",)
    return ("red", "green", "blue") if count == 3 else tuple(f"channel {i + 1}" for i in range(count))


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a volume, in the volume's geometry.

    Attributes
    ----------
    labels
        `(y, x)` or `(z, y, x)`, uint8 (uint16 above 255 classes): the argmax over classes, 0 background.
    geometry
        That of the volume.
    classes
        Names by label value, background first.
    probabilities
        `(k, *spatial)` float16, softmax over classes; only on request.
    uncertainty
        `(*spatial)` float16 in [0, 1]: entropy of the class probabilities over its maximum; only on request.
    notes
        Sentences the user should read, for example that memory ran short and what was done.
    model
        Name of the model with its version.
    """

    labels: Array
    geometry: Geometry
    classes: tuple[str, ...]
    probabilities: Array | None = None
    uncertainty: Array | None = None
    notes: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Attention in image space.

    Attributes
    ----------
    data
        `(*spatial)` float32 on its own, usually coarser, grid; not resampled.
    geometry
        Of that grid, in the same world as the image, so that a viewer lays it exactly over the picture.
    source
        Name of the attention module or block, for example `"global.layer1.0"`.
    kind
        `"row and column"`, `"received"`, `"gate"` ...: what the numbers are.
    head
        Which head, or `None` for the mean over heads.
    query
        Array index of the voxel asked about, or `None` for a map of the whole image.
    caption
        One sentence for the user on how to read it.
    """

    data: Array
    geometry: Geometry
    source: str
    kind: str
    head: int | None = None
    query: tuple[int, ...] | None = None
    caption: str = ""
    extras: dict[str, Array] = field(default_factory=dict)
