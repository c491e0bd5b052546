"""`Volume`, `LabelMap`, `Prediction`, `AttentionMap` and `HeadRow`: the nouns every room speaks.

Arrays are channels first, `(c, y, x)` or `(c, z, y, x)`; geometry speaks of the spatial axes only, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core.errors import BadImage
from napari_medt.core.geometry import Geometry

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Acquisition:
    """What a file says about how an image was made; nothing in it names the patient.

    Attributes
    ----------
    modality
        DICOM's short name, `"CT"`, `"MR"`, `"PT"`, `"SM"` ...; empty where the file does not say.
    value_unit
        Of the values, `"HU"` or `"SUV"`; empty where there is none.
    windows
        Centre and width of the display windows the file suggests, in the unit of the values.
    series_uid
        Of a DICOM series.
    files
        Paths of a DICOM series in the order of its slices, so that a mask can refer to them.
    patient
        A digest of DICOM's patient ID, or of the study's UID where there is none, that tells whose images belong together;
        for this computer alone, as whoever knows the ID can make it too.
    """

    modality: str = ""
    value_unit: str = ""
    windows: tuple[tuple[float, float], ...] = ()
    series_uid: str = ""
    files: tuple[str, ...] = ()
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its geometry.

    Attributes
    ----------
    array
        `(c, y, x)` or `(c, z, y, x)`, any numeric dtype, as read: no normalisation, NaN left in place. A large image may be
        loaded lazily, as a Dask array.
    geometry
        Of the spatial axes.
    channel_names
        One per channel; `("red", "green", "blue")` for colour, `("grey",)` for a single channel.
    source
        Where it came from (a path or a layer's name), for messages; may be empty.
    acquisition
        How it was made, as far as the file says.
    notes
        Sentences about what is odd in the file, for the user.
    levels
        Coarser copies of the same image, finest first, as slides have them; each `(c, *spatial)`, possibly lazily loaded.
    """

    array: Array
    geometry: Geometry
    channel_names: tuple[str, ...] = ()
    source: str = ""
    acquisition: Acquisition = Acquisition()
    notes: tuple[str, ...] = ()
    levels: tuple[Array, ...] = ()

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
    return ("red", "green", "blue") if count == 3 else numbered_channel_names(count)


def numbered_channel_names(count: int) -> tuple[str, ...]:
    """Names of channels that are no colours: grey for a single one, else numbered."""
    return ("grey",) if count == 1 else tuple(f"channel {i + 1}" for i in range(count))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A mask with its geometry and what its labels mean.

    Attributes
    ----------
    array
        `(y, x)` or `(z, y, x)`, unsigned integers, 0 background; or float32 in [0, 1] where `fraction`.
    geometry
        Of its axes.
    names
        By label value, as far as the file names them.
    colours
        By label value: red, green, blue in [0, 1].
    fraction
        Whether the values are probabilities or occupied shares of one structure, instead of labels.
    source, notes
        As for `Volume`.
    """

    array: Array
    geometry: Geometry
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    fraction: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a volume, in the volume's geometry.

    Attributes
    ----------
    labels
        `(y, x)` or `(z, y, x)`, uint8 (uint16 above 256 classes): the argmax over classes, 0 background. Where structures
        overlap, the last of them in the order of the classes.
    geometry
        That of the volume.
    classes
        Names by label value, background first.
    probabilities
        `(k, *spatial)` float16, softmax over classes, or of each structure on its own where these overlap; only on request.
    uncertainty
        `(*spatial)` float16 in [0, 1]: entropy of the class probabilities over its maximum; only on request.
    structures
        `(k, *spatial)` bool: where each class beside the background is, if these overlap; else `None`, since `labels` say it.
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
    structures: Array | None = None
    notes: tuple[str, ...] = ()
    model: str = ""

    def masks(self) -> tuple[LabelMap, ...]:
        """The labels as one mask; where structures overlap, a mask for each, with the value it has in `labels`."""
        names = dict(enumerate(self.classes[1:], start=1))
        if self.structures is None:
            return (LabelMap(self.labels, self.geometry, names),)
        dtype = self.labels.dtype.type
        return tuple(
            LabelMap(inside * dtype(value), self.geometry, {value: name})
            for (value, name), inside in zip(names.items(), self.structures, strict=True)
        )


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
    even
        The value that every place would have if attention were even, so that `data / even` can be compared between maps;
        `None` where there is no such value, as for a gate.
    extras
        Beside the map, in array indices of the image: `"window"` `(2, n)`, the first and the last edge of the window that the
        network saw; `"targets"` `(k, n)`, the places that were looked at most, and `"shares"` `(k,)`, their values. Of a map
        that is the same for every structure, `"inside"`, its mean in the one asked about.
    """

    data: Array
    geometry: Geometry
    source: str
    kind: str
    head: int | None = None
    query: tuple[int, ...] | None = None
    caption: str = ""
    even: float | None = None
    extras: dict[str, Array] = field(default_factory=dict)

    @property
    def times_even(self) -> Array:
        """Its values in times even attention, as maps are compared, shown and written; as they are where there is no such thing."""
        return self.data if self.even is None else self.data / np.float32(self.even)


@dataclass(frozen=True)
class HeadRow:
    """One head of one attention source, on average over places spread evenly over the image.

    Attributes
    ----------
    source, kind, level
        Of the source: as of an `AttentionMap`, and how deep in the network it lies.
    head
        Counted from 0.
    entropy
        Of its attention over the greatest it could be: 0 where it looks at one place, 1 where at all alike; None for gates.
    distance
        From the place that looks to what it looks at, in `unit`; None where nothing is looked at, as by a gate.
    unit
        `"mm"`, or `"px"` where the image does not say its spacing.
    """

    source: str
    kind: str
    level: int
    head: int
    entropy: float | None
    distance: float | None
    unit: str
