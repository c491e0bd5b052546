"""Where the voxels of a NIfTI lie: its two forms, its units, and what is said when they contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

from napari_medt.core import AmbiguousImage, BadImage, Choice, Geometry
from napari_medt.core.volume import Array

TO_MM = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}
# Forms that differ by less are rounded, not different: a quaternion in 32 bits is good to about 3e-4 near a half turn.
_VOXEL_SHARE, _ROUNDING = 0.1, 5e-4
_CODES = {
    1: "as the scanner measured it",
    2: "aligned to another scan",
    3: "in the space of the Talairach atlas",
    4: "in the space of the MNI brain",
    5: "in the space of a template",
}
_ANYHOW = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1)}  # how a file without a form may be meant to lie


def nifti_geometry(
    header: Any, shape: Sequence[int], choose: Sequence[str], name: str
) -> tuple[Geometry, tuple[str, ...]]:
    """Read where the voxels lie.

    Parameters
    ----------
    header
        nibabel's, of NIfTI or Analyze.
    shape
        `(z, y, x)`, or `(y, x)` for a file of two axes.
    choose
        `"sform"` or `"qform"` where both are there and differ; `"RAS"` or `"LAS"` where there is none.
    name
        Of the file, for messages.

    Returns
    -------
    geometry
        Of three axes in the frame of the patient, in mm, where the file has a form; a file of two axes gets two where it
        lies in an axial plane. Without a form in the frame of the image.
    notes
        What is odd.

    Raises
    ------
    AmbiguousImage
        If both forms are there and differ by more than a tenth of a voxel, beyond what rounding explains.
    BadImage
        If no form can be used.
    """
    unit = _unit(header)
    scale = np.diag([TO_MM.get(unit, 1.0)] * 3 + [1.0])
    forms = _forms(header, scale)
    notes: tuple[str, ...] = ()
    usable = {form: _geometry(affine) for form, (affine, _) in forms.items()}
    places = {form: geometry for form, geometry in usable.items() if geometry is not None}
    if forms and not places:
        raise BadImage(
            f"The position of {name} in the patient is not finite or flat, so it cannot be computed",
            remedy="export it again",
        )
    if not places:
        return _without_form(header, shape, unit, choose)
    if len(places) < len(forms):
        notes = (f"Only the {next(iter(places))} of the file can be used; its other form is damaged",)
    form = next(iter(places))
    if len(places) == 2:
        form = _chosen_form(places, forms, shape, choose, name)
    geometry = places[form]
    return (_in_plane(geometry) if len(shape) == 2 else geometry), notes


def _unit(header: Any) -> str:
    try:
        unit: str = header.get_xyzt_units()[0]
    except (KeyError, AttributeError):  # Analyze has none
        unit = "unknown"
    return unit


def _forms(header: Any, scale: Array) -> dict[str, tuple[Array, int]]:
    """Affines in mm by form, with their code; a form that cannot be computed is NaN."""
    found: dict[str, tuple[Array, int]] = {}
    for form in ("sform", "qform"):
        try:
            code = int(header[f"{form}_code"])
        except (KeyError, ValueError):  # Analyze
            continue
        if code <= 0:
            continue
        try:
            affine = np.asarray(getattr(header, f"get_{form}")(), np.float64)
        except (HeaderDataError, ValueError):
            affine = np.full((4, 4), np.nan)
        found[form] = (scale @ affine if np.isfinite(affine).all() else np.full((4, 4), np.nan), code)
    return found


def _geometry(affine: Array) -> Geometry | None:
    try:
        return Geometry.from_nifti(affine)
    except BadImage:
        return None


def _chosen_form(
    places: dict[str, Geometry],
    forms: dict[str, tuple[Array, int]],
    shape: Sequence[int],
    choose: Sequence[str],
    name: str,
) -> str:
    for form in places:
        if form in choose:
            return form
    full = (1,) * (3 - len(shape)) + tuple(shape)
    corners = np.stack(np.meshgrid(*((0, size - 1) for size in full), indexing="ij"), -1).reshape(-1, 3)
    ends, others = (places[form].position(corners) for form in ("sform", "qform"))
    apart = np.linalg.norm(ends - others, axis=1).max()
    if apart <= _VOXEL_SHARE * min(places["sform"].spacing) + _ROUNDING * np.linalg.norm(np.ptp(ends, axis=0)):
        return "sform"
    raise AmbiguousImage(
        f"{name} says in two ways where it lies, up to {apart:.3g} mm apart",
        [
            Choice(form, f"{_CODES.get(code, 'of unknown meaning')}, axes {places[form].orientation}")
            for form, (_, code) in forms.items()
        ],
    )


def _in_plane(geometry: Geometry) -> Geometry:
    """Return a geometry of two axes for one that lies in an axial plane; else as it is, of one slice."""
    affine = geometry.affine
    if affine[1:3, 0].any() or affine[0, 1:3].any():
        return geometry
    return Geometry(affine[1:, 1:], "mm", "image")


def _without_form(
    header: Any, shape: Sequence[int], unit: str, choose: Sequence[str]
) -> tuple[Geometry, tuple[str, ...]]:
    sizes = [abs(float(size)) for size in header["pixdim"][1 : len(shape) + 1]]
    notes: tuple[str, ...] = ()
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        sizes, unit = [1.0] * len(sizes), "unknown"
        notes = ("The file gives no size of its voxels that can be used",)
    known = unit in TO_MM
    if not known and any(size != 1 for size in sizes):
        notes = ("The file gives the size of its voxels without a unit; mm is taken",)
        known = True
    for key, signs in _ANYHOW.items():
        if key in choose and len(shape) == 3:
            diagonal = [sign * size * TO_MM.get(unit, 1.0) for sign, size in zip(signs, sizes, strict=True)]
            return Geometry.from_nifti(np.diag([*diagonal, 1.0])), notes
    if len(shape) == 3:
        notes += ("The file does not say how it lies in the patient: which side is left is unknown",)
    micron = unit == "micron"
    factor = 1.0 if micron else TO_MM.get(unit, 1.0)
    units = "um" if micron else "mm" if known else "px"
    return Geometry.from_spacing([size * factor for size in reversed(sizes)], units=units), notes
