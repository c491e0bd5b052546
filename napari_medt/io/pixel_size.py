"""Pixel sizes as files give them, in mm or um, or none: a printer's density is not the size of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_medt.core import Geometry

# In mm; the names that ImageJ, OME and their users write.
_UNITS_MM = {
    "pm": 1e-9,
    "Å": 1e-7,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "um": 1e-3,
    "µm": 1e-3,  # micro sign
    "μm": 1e-3,  # Greek mu
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "dm": 100.0,
    "m": 1000.0,
    "meter": 1000.0,
    "metre": 1000.0,
    "inch": 25.4,
    "in": 25.4,
}
_SMALLEST_MM = 0.05  # below this, a length is told in um
_PRINT_DPI = 1270.0  # 20 um a pixel: finer than what is put into files for printers and screens


def unit_in_mm(unit: str) -> float | None:
    """Return the length of a unit in mm; None for pixels and names nobody knows."""
    name = unit.strip().strip('"').replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return _UNITS_MM.get(name, _UNITS_MM.get(name.lower()))


def geometry_of(sizes_mm: Sequence[float], *, origin_mm: Sequence[float] | None = None, units: str = "") -> Geometry:
    """Build a geometry from sizes in mm.

    Parameters
    ----------
    sizes_mm
        One per axis; if one is not positive and finite, all are taken as unknown.
    origin_mm
        Position of the first sample.
    units
        `"mm"` or `"um"` where the file's own unit is one of them; else whichever reads better.
    """
    if not all(math.isfinite(size) and size > 0 for size in sizes_mm):
        return Geometry.from_spacing((1.0,) * len(sizes_mm))
    if units not in ("mm", "um"):
        units = "um" if min(sizes_mm) < _SMALLEST_MM else "mm"
    scale = 1000.0 if units == "um" else 1.0
    origin = None if origin_mm is None else [_tidy(value * scale) for value in origin_mm]
    return Geometry.from_spacing([_tidy(size * scale) for size in sizes_mm], origin=origin, units=units)


def _tidy(value: float) -> float:
    """Take away what the change of unit added in the last digits."""
    return float(f"{value:.14g}")


def geometry_from_dpi(down: float, across: float) -> Geometry:
    """Build a geometry from pixels an inch along y and x, if they are finer than any printer's.

    Programs write 72, 96, 300 or 1200 without having measured anything; that must not become millimetres.
    """
    if not all(math.isfinite(dpi) and dpi > _PRINT_DPI for dpi in (down, across)):
        return Geometry.from_spacing((1.0, 1.0))
    return geometry_of((25.4 / down, 25.4 / across))


def geometry_from_resolution(down: float, across: float, unit: int) -> Geometry:
    """Build a geometry from TIFF's resolution tags.

    Parameters
    ----------
    down, across
        Pixels per unit along y and x.
    unit
        1 none, 2 inch, 3 centimetre. Inches are believed only beyond a printer's density; centimetres, which
        microscopes write, unless they are such a density turned into centimetres, or 1.
    """
    nothing = Geometry.from_spacing((1.0, 1.0))
    if unit not in (2, 3) or not all(math.isfinite(value) and value > 0 for value in (down, across)):
        return nothing
    if unit == 2:
        return geometry_from_dpi(down, across)
    if any(value == 1 or _is_print_density(value * 2.54) for value in (down, across)):
        return nothing
    return geometry_of((10 / down, 10 / across))


def _is_print_density(dpi: float) -> bool:
    usual = (72, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 360, 400, 600, 720, 1200, 1440, 2400)
    return any(abs(dpi - value) < 0.02 * value / 72 for value in usual)
