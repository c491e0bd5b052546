"""What is to be written, whatever it was given as: one array with its geometry and its names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Geometry, LabelMap, Prediction, Volume
from napari_medt.core.volume import Array
from napari_medt.io.label_values import label_dtype, label_values
from napari_medt.io.masks_in import smallest_dtype

_SLAB_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class Contents:
    """What goes into a file.

    Attributes
    ----------
    array
        `(c, *spatial)`, in memory or a Dask array. Masks: uint8, uint16 or uint32, one channel for each mask that may
        overlap the others; maps: float32.
    geometry
        Of the spatial axes.
    labels, fraction
        Whether the values are labels, or shares of one structure for each channel.
    channel_names
        Of an image.
    names, colours
        By channel, by label value; for masks.
    """

    array: Any
    geometry: Geometry
    labels: bool = False
    fraction: bool = False
    channel_names: tuple[str, ...] = ()
    names: tuple[Mapping[int, str], ...] = ({},)
    colours: tuple[Mapping[int, tuple[float, float, float]], ...] = field(default=({},))

    @property
    def flat(self) -> Any:
        """`(*spatial)` of what has one channel."""
        return self.array[0]


def contents_of(
    what: Prediction | LabelMap | Volume | Sequence[LabelMap] | npt.ArrayLike,
    name: str,
    *,
    geometry: Geometry | None = None,
    names: Mapping[int, str] | None = None,
    several: bool = True,
) -> Contents:
    """Bring what is to be written into one form.

    Parameters
    ----------
    what
        As for `write`.
    name
        Of the file, for messages.
    geometry, names
        Instead of what `what` itself says.
    several
        Whether structures of a prediction that overlap become a mask each; else its labels are the one mask.

    Raises
    ------
    BadImage
        If it is no image, mask or map, or does not fit the geometry.
    """
    if isinstance(what, Volume):
        found = Contents(what.array, geometry or what.geometry, channel_names=what.channel_names)
    elif isinstance(what, Prediction):
        masks = (what if several else replace(what, structures=None)).masks()
        if names is not None:
            kept = [set(mask.names) if len(masks) > 1 else set(names) - {0} for mask in masks]
            tables = [{value: text for value, text in names.items() if value in some} for some in kept]
            masks = tuple(replace(mask, names=table) for mask, table in zip(masks, tables, strict=True))
        found = _of_masks(masks, name, geometry, None)
    elif isinstance(what, LabelMap):
        found = _of_masks((what,), name, geometry, names)
    elif isinstance(what, Sequence) and what and all(isinstance(one, LabelMap) for one in what):
        found = _of_masks([one for one in what if isinstance(one, LabelMap)], name, geometry, names)
    else:
        array = _kept(what if hasattr(what, "dask") else np.asarray(what), name)
        place = geometry or Geometry.from_spacing((1.0,) * array.ndim)
        found = Contents(array[None], place, labels=array.dtype.kind == "u", names=(names or {},))
    if found.geometry.ndim != found.array.ndim - 1:
        raise BadImage(
            f"The {'mask' if found.labels else 'image'} of shape {tuple(found.array.shape[1:])} does not fit a geometry "
            f"of {found.geometry.ndim} axes",
            remedy="give the geometry of the same image",
        )
    return found


def _of_masks(
    masks: Sequence[LabelMap], name: str, geometry: Geometry | None, names: Mapping[int, str] | None
) -> Contents:
    arrays = [_kept(mask.array, name) for mask in masks]
    place = geometry or masks[0].geometry
    alike = all(geometry or mask.geometry.close_to(place, shape=mask.array.shape) for mask in masks)
    if not alike or len({array.shape for array in arrays}) > 1:
        raise BadImage(f"The masks for {name} do not lie on the same grid", remedy="write each to a file of its own")
    stacked = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
    tables = tuple(mask.names if names is None else names for mask in masks)
    colours = tuple(mask.colours for mask in masks)
    fraction = any(mask.fraction for mask in masks)
    return Contents(stacked, place, labels=not fraction, fraction=fraction, names=tables, colours=colours)


def _kept(array: Any, name: str) -> Any:
    """Return a Dask array lazily, and others as `storable` does."""
    if not hasattr(array, "dask") or array.dtype.kind == "f":
        return storable(np.asarray(array), name)
    dtype = label_dtype(array, name)
    return array.map_blocks(label_values, dtype=dtype, to=dtype, name_of_file=name)


def storable(array: Array, name: str) -> Array:
    """Return an array as uint8, uint16, uint32 or float32.

    Raises
    ------
    BadImage
        If it has other than two or three axes, no values, negative labels or labels too large; `name` is the file's.
    """
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadImage(f"An array of shape {array.shape} cannot be written to {name}", remedy="give a 2D or 3D mask")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind not in "ui":
        raise BadImage(f"Values of type {array.dtype} are neither labels nor numbers", remedy="give a mask")
    if array.dtype.kind == "i" and array.min() < 0:
        raise BadImage(f"The mask for {name} holds negative labels", remedy="number the labels from 0 up")
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(smallest_dtype(int(array.max()), f"The mask for {name}"))
    return np.ascontiguousarray(array)


def value_type(array: Any, *, allowed: Sequence[str], name: str) -> np.dtype[Any]:
    """Choose a type of a file that holds all values an array can have, or, of whole numbers of 64 bits, all it has.

    Parameters
    ----------
    array
        In memory, or a Dask array, which is only computed to look at whole numbers of 64 bits.
    allowed
        Types the format has.
    name
        Of the file, for messages.

    Raises
    ------
    BadImage
        If none does.
    """
    wanted = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    if wanted.name in allowed:
        return wanted
    if wanted.kind in "iu" and wanted.itemsize == 8:  # float64, which is said to be safe, does not hold them all
        low, high = int(array.min()), int(array.max())
        for kept in allowed:
            if np.dtype(kept).kind in "iu" and np.iinfo(kept).min <= low and high <= np.iinfo(kept).max:
                return np.dtype(kept)
        raise BadImage(
            f"The whole numbers for {name} reach from {low} to {high}, which it does not hold", remedy="use .nrrd"
        )
    for kept in allowed:
        if np.can_cast(wanted, kept, "safe"):
            return np.dtype(kept)
    raise BadImage(f"Values of type {array.dtype} cannot be written to {name}", remedy="convert them to float32 first")


def slabs(array: Any, dtype: npt.DTypeLike) -> Iterator[Array]:
    """Yield an array part by part along its first axes, so that the parts one after the other are the whole.

    Parameters
    ----------
    array
        In memory, or a Dask array, of which about one block in height is computed at a time.
    dtype
        Of what is yielded.
    """
    if array.ndim > 3 and array[0].nbytes > _SLAB_BYTES:
        for part in array:
            yield from slabs(part, dtype)
        return
    row_bytes = max(1, array.nbytes // array.shape[0])
    step = max(1, _SLAB_BYTES // row_bytes)
    if hasattr(array, "dask"):
        step = max(1, min(step, max(array.chunks[0])))
    for start in range(0, array.shape[0], step):
        yield np.ascontiguousarray(np.asarray(array[start : start + step]), dtype=dtype)
