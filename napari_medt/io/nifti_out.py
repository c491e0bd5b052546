"""Images and masks to NIfTI; the header by nibabel."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from napari_medt.core import BadImage, Geometry, MedtError, Volume
from napari_medt.io.contents import Contents, slabs, value_type
from napari_medt.io.kinds import FORMATS, ending_of
from napari_medt.io.nifti import open_nifti
from napari_medt.io.nifti_words import Words
from napari_medt.io.picture import RGB

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int64", "uint64")
_VECTOR = 1007
_LONGEST = 32767  # of a side in NIfTI-1
_COMMENT = 6
_SCANNER = 1


def encode_nifti(file: BinaryIO, contents: Contents, *, name: str, source: Volume | None = None) -> None:
    """Write an image or a mask into an open file.

    Parameters
    ----------
    file
        Open for writing.
    contents
        An image of several channels, and masks that overlap, become a file of five axes, or of colours where it is red, green
        and blue of 8 bits. Dask arrays are computed slab by slab.
    name
        Of the file; one that ends in `.gz` is packed.
    source
        The image that the mask belongs to: where it was read from a NIfTI, its codes are taken over.

    Notes
    -----
    Both forms are written where the axes are at right angles, else the sform alone. A geometry outside a patient gets no
    form unless it is turned or moved; names of labels and channels, which NIfTI has no place for, and geometries outside a
    patient are kept in a comment extension, which other programs skip.
    """
    array, geometry = contents.array, contents.geometry
    colour = contents.channel_names == RGB and array.dtype == np.uint8
    dtype = value_type(array, allowed=_TYPES, name=name)
    header = _header(array.shape, geometry, dtype, colour=colour)
    _place(header, geometry, _codes_of(source, geometry))
    words = Words(
        {value: text for table in contents.names for value, text in table.items()},
        {value: shade for table in contents.colours for value, shade in table.items()},
        contents.channel_names if len(array) > 1 and not colour else (),
        None if geometry.frame == "patient" else geometry,
        _values_by_mask(contents, name),
    )
    if said := bytes(words):
        header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, said))
    # Neither the name nor the time of the file goes into the packed one: names may tell whose it is.
    packed = gzip.GzipFile("", "wb", 4, file, mtime=0) if name.lower().endswith(".gz") else None
    stream = packed or file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.write_to(stream)
    stream.write(bytes(int(header["vox_offset"]) - stream.tell()))
    for slab in slabs(_moved(array) if colour else array, dtype):
        stream.write(slab.data)
    if packed:
        packed.close()


def _values_by_mask(contents: Contents, name: str) -> tuple[tuple[int, ...], ...]:
    """Which labels each of several masks has, so that they are masks to a reader and not an image."""
    if not contents.labels or len(contents.array) == 1:
        return ()
    values = tuple(
        tuple(sorted({int(value) for value in np.unique(array)} - {0} | set(names)))
        for array, names in zip(contents.array, contents.names, strict=True)
    )
    if sum(map(len, values)) > len(set().union(*values)):
        raise BadImage(
            f"Masks that overlap need labels of their own in NIfTI ({name})",
            remedy="number them anew, or use .seg.nrrd",
        )
    return values


def _moved(array: Any) -> Any:
    """Bring the channels to the end."""
    return array.transpose(*range(1, array.ndim), 0)


def _header(shape: tuple[int, ...], geometry: Geometry, dtype: np.dtype[Any], *, colour: bool) -> Any:
    kind: Any = nib.nifti1.Nifti1Header if max(shape) <= _LONGEST else nib.nifti2.Nifti2Header
    header = kind()
    spatial = tuple(reversed(shape[1:]))
    channels = shape[0]
    if channels == 1 or colour:
        header.set_data_shape(spatial)
    else:
        header.set_data_shape((*spatial, *(1,) * (4 - len(spatial)), channels))
        header.set_intent(_VECTOR, allow_unknown=True)
    header.set_data_dtype("RGB" if colour else dtype)
    header.set_slope_inter(1, 0)
    if geometry.units != "px":
        header.set_xyzt_units("micron" if _has_no_form(geometry) and geometry.units == "um" else "mm")
    return header


def _has_no_form(geometry: Geometry) -> bool:
    """Whether a size for each axis says all there is."""
    plain = Geometry.from_spacing(geometry.spacing)
    return geometry.frame == "image" and np.allclose(geometry.affine, plain.affine, atol=1e-9)


def _place(header: Any, geometry: Geometry, codes: tuple[int, int]) -> None:
    sizes = [1.0] * (len(header.get_data_shape()) - geometry.ndim)
    if _has_no_form(geometry):
        header.set_zooms([*reversed(geometry.spacing), *sizes])
        return
    affine = geometry.to_nifti()
    header.set_zooms([*np.linalg.norm(affine[:3, : geometry.ndim], axis=0), *sizes])
    straight = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(straight.T @ straight, np.eye(3), atol=1e-5):
        header.set_qform(affine, codes[0])
    header.set_sform(affine, codes[1])


def _codes_of(source: Volume | None, geometry: Geometry) -> tuple[int, int]:
    """Return codes for qform and sform: those of the NIfTI an image was read from where it still lies there, else 1."""
    given = Path(source.source) if source is not None and source.source else None
    if given is None or ending_of(given) not in FORMATS["NIfTI"] or not given.is_file():
        return _SCANNER, _SCANNER
    try:
        header = open_nifti(given).header
        found = {form: int(header[f"{form}_code"]) for form in ("qform", "sform")}
        meant = [
            code
            for form, code in found.items()
            if code > 0 and np.allclose(getattr(header, f"get_{form}")(), geometry.to_nifti(), rtol=1e-4, atol=1e-2)
        ]
    except (MedtError, OSError, ValueError, EOFError, KeyError, nib.spatialimages.HeaderDataError):
        return _SCANNER, _SCANNER  # it is no longer there, or was never a good one: nothing to take over
    return (meant[0], meant[-1]) if meant else (_SCANNER, _SCANNER)
