"""What there is to know about a case, found by reading it once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from napari_medt.core import BadImage, Geometry, LabelMap, MedtError, Volume
from napari_medt.core.axes import AxisMap
from napari_medt.engine.channels import Channels
from napari_medt.engine.foreground import foreground_box
from napari_medt.io import read, read_segmentation
from napari_medt.io.resampling import on_grid_of
from napari_medt.training.datasets import Case, MaskRule, apply_rule, read_image
from napari_medt.training.modality import Kind, kind_of

Array = npt.NDArray[Any]
QUANTILES = 500  # by which the values of a structure are remembered
DISTINCT = 1000  # different values that are counted
_SAMPLE = 1_000_000


class Trouble(BaseModel):
    """Why a file cannot be used, as `MedtError` says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    remedy: str = ""


class CaseFacts(BaseModel):
    """What one case is like; where its image cannot be read, only `name` and `image_trouble` are known.

    Attributes
    ----------
    name
        Of the case.
    image_trouble, mask_trouble
        Why the image, or the mask, cannot be used.
    shape, affine, units, frame
        Of the image's spatial axes, as in `Geometry`.
    channels, dtype, kind
        Names of the channels, type of the values, kind of image.
    ranges
        Lowest and highest finite value of each channel.
    finite
        Share of the values that are finite.
    distinct
        Number of different values, up to `DISTINCT`, in a sample; 0 where they are not whole numbers.
    body
        Shape of the box around what is not air or empty.
    digest
        Of the values, so that the same image is known again.
    mask_is_picture
        Whether what should be a mask can only be read as an image.
    mask_is_image
        Whether the mask holds the values of the image, so that the one was taken for the other.
    mask_shape
        Of the mask as stored.
    apart_mm
        How far the mask's corners are from the image's, if both say where they lie and are of one shape.
    covers
        Whether a mask on another grid covers the image.
    values
        Number of voxels by label value, after the rule of the data set.
    stored
        Different values as they are stored, the first `DISTINCT`, and the highest.
    inside
        For each channel, `QUANTILES` values of the voxels that are not background, ascending; empty for an empty mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    image_trouble: Trouble | None = None
    mask_trouble: Trouble | None = None
    shape: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    units: str = "px"
    frame: str = "image"
    channels: tuple[str, ...] = ()
    dtype: str = ""
    kind: Kind = ""
    ranges: tuple[tuple[float, float], ...] = ()
    finite: float = 1.0
    distinct: int = 0
    body: tuple[int, ...] = ()
    digest: str = ""
    mask_is_picture: bool = False
    mask_is_image: bool = False
    mask_shape: tuple[int, ...] = ()
    apart_mm: float | None = None
    covers: bool = True
    values: dict[int, int] = {}
    stored: tuple[int, ...] = ()
    inside: tuple[tuple[float, ...], ...] = ()

    @property
    def usable(self) -> bool:
        """Whether image and mask could be read and fit each other."""
        return self.image_trouble is None and self.mask_trouble is None

    @property
    def geometry(self) -> Geometry:
        """Of the image."""
        return Geometry(np.array(self.affine), self.units, self.frame)  # type: ignore[arg-type]

    @property
    def foreground(self) -> int:
        """Voxels that are not background."""
        return sum(count for value, count in self.values.items() if value)


def look_at(case: Case, *, rule: MaskRule = "classes") -> CaseFacts:
    """Read one case and note what it is like; what cannot be read is noted too."""
    try:
        volume = read_image(case)
        found = _of_image(volume)
    except MedtError as error:
        return CaseFacts(name=case.name, image_trouble=Trouble(what=error.what, remedy=error.remedy))
    except MemoryError:
        trouble = Trouble(what="The image does not fit into the memory", remedy="crop it or scale it down")
        return CaseFacts(name=case.name, image_trouble=trouble)
    try:
        found |= _of_mask(_only(read_segmentation(case.labels), case), volume, rule)
    except MedtError as error:
        found["mask_trouble"] = Trouble(what=error.what, remedy=error.remedy)
        with suppress(MedtError):
            found["mask_is_picture"] = bool(read(case.labels).array.size)
    return CaseFacts(name=case.name, **found)


# --------------------------------------------------------------------------------------------------------------- image


def _of_image(volume: Volume) -> dict[str, Any]:
    array = np.asarray(volume.array)
    finite = array if array.dtype.kind != "f" else array[np.isfinite(array)]
    if not finite.size:
        raise BadImage("The image holds no number, only NaN or infinity", remedy="check how the image was made")
    whole = Volume(array, volume.geometry, volume.channel_names, volume.source, volume.acquisition)
    return {
        "shape": volume.spatial_shape,
        "affine": tuple(map(tuple, volume.geometry.affine.tolist())),
        "units": volume.geometry.units,
        "frame": volume.geometry.frame,
        "channels": volume.channel_names,
        "dtype": array.dtype.name,
        "kind": kind_of(whole),
        "ranges": tuple(_range(channel) for channel in array),
        "finite": finite.size / array.size,
        "distinct": _distinct(array),
        "body": _body(whole),
        "digest": _digest(array),
    }


def _range(channel: Array) -> tuple[float, float]:
    values = channel if channel.dtype.kind != "f" else channel[np.isfinite(channel)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _distinct(array: Array) -> int:
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLE)]
    if sample.dtype.kind == "f" and not np.array_equal(sample, np.rint(sample)):
        return 0
    return min(len(np.unique(sample)), DISTINCT)


def _body(volume: Volume) -> tuple[int, ...]:
    if volume.geometry.ndim != 3:
        return volume.spatial_shape
    axes = AxisMap((0, 1, 2), (False,) * 3)
    box = foreground_box(volume.array, volume, Channels(tuple(range(len(volume.array)))), axes)
    return volume.spatial_shape if box is None else tuple(part.stop - part.start for part in box)


def _digest(array: Array) -> str:
    digest = hashlib.blake2b(f"{array.shape} {array.dtype.kind}".encode(), digest_size=16)
    for channel in array:
        little = np.ascontiguousarray(channel, dtype=channel.dtype.newbyteorder("<"))
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------- mask


def _only(masks: Sequence[LabelMap], case: Case) -> LabelMap:
    if len(masks) > 1 or masks[0].fraction:
        what = "fractions" if masks[0].fraction else f"{len(masks)} masks that may overlap"
        raise BadImage(f"{case.labels.name} holds {what}", remedy="give one mask with a number for each class")
    return masks[0]


def _of_mask(mask: LabelMap, volume: Volume, rule: MaskRule) -> dict[str, Any]:
    stored = np.asarray(mask.array)
    numbers = np.unique(stored)
    found: dict[str, Any] = {
        "mask_shape": stored.shape,
        "stored": tuple(int(value) for value in (*numbers[:DISTINCT], *numbers[DISTINCT:][-1:])),
        "mask_is_image": any(np.array_equal(stored, channel) for channel in volume.array),
    }
    if mask.geometry.frame == volume.geometry.frame and mask.geometry.units == volume.geometry.units != "px":
        if stored.shape == volume.spatial_shape:
            found["apart_mm"] = _apart(mask, volume)
        elif stored.ndim == volume.geometry.ndim:
            found["covers"] = _covers(mask, volume)
    try:
        labels = apply_rule(np.asarray(on_grid_of(mask, volume).array), rule)
    except MedtError as error:
        return found | {"mask_trouble": Trouble(what=error.what, remedy=error.remedy)}
    values, counts = np.unique(labels, return_counts=True)
    inside = labels > 0
    found["values"] = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    found["inside"] = tuple(_quantiles(np.asarray(channel)[inside]) for channel in volume.array)
    return found


def _corners(shape: Sequence[int]) -> Array:
    return np.stack(np.meshgrid(*((0, size - 1) for size in shape), indexing="ij"), -1).reshape(-1, len(shape))


def _apart(mask: LabelMap, volume: Volume) -> float:
    """Largest distance between the same corners of both, in mm."""
    corners = _corners(volume.spatial_shape)
    between = mask.geometry.position(corners) - volume.geometry.position(corners)
    return float(np.linalg.norm(between, axis=-1).max()) * (1e-3 if volume.geometry.units == "um" else 1.0)


def _covers(mask: LabelMap, volume: Volume) -> bool:
    """Whether the centre of the image lies inside the mask's grid, and half of its corners at least."""
    shape = np.array(mask.array.shape)
    corners = _corners(volume.spatial_shape)
    inside = [
        ((index > -1) & (index < shape)).all(-1)
        for places in (corners, corners.mean(0, keepdims=True))
        for index in [mask.geometry.index(volume.geometry.position(places))]
    ]
    return bool(inside[1].all() and inside[0].mean() >= 0.5)


def _quantiles(values: Array) -> tuple[float, ...]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return ()
    steps = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return tuple(float(f"{value:.6g}") for value in np.quantile(values, steps, method="nearest"))
