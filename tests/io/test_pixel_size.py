from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_medt.core import Geometry
from napari_medt.io import read


def geometry(path: Path, data: bytes) -> Geometry:
    path.write_bytes(data)
    return read(path).geometry


STACK = np.zeros((4, 6, 8), np.uint8)


@pytest.mark.parametrize(
    ("unit", "spacing", "units"),
    [
        ("um", (2.0, 0.5, 0.25), "um"),
        ("micron", (2.0, 0.5, 0.25), "um"),
        ("\\u00B5m", (2.0, 0.5, 0.25), "um"),
        ("mm", (2.0, 0.5, 0.25), "mm"),
        ("cm", (20.0, 5.0, 2.5), "mm"),
        ("nm", (0.002, 0.0005, 0.00025), "um"),
        ("inch", (50.8, 12.7, 6.35), "mm"),
        ("pixel", (1.0, 1.0, 1.0), "px"),
        ("furlong", (1.0, 1.0, 1.0), "px"),
    ],
)
def test_imagej(tmp_path, files, unit, spacing, units):
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": unit}
    found = geometry(tmp_path / "a.tif", files.tiff(STACK, imagej=True, resolution=(4, 2), metadata=metadata))
    assert found.spacing == pytest.approx(spacing, rel=1e-12)
    assert found.units == units


def test_imagej_leaves_out_a_distance_of_one(tmp_path, files):
    data = files.tiff(STACK, imagej=True, resolution=(4, 4), metadata={"axes": "ZYX", "unit": "um"})
    assert geometry(tmp_path / "a.tif", data).spacing == (1.0, 0.25, 0.25)


def test_ome(tmp_path, files):
    sizes = {"PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.65, "PhysicalSizeZ": 0.002}
    metadata = {"axes": "ZYX", **sizes, "PhysicalSizeZUnit": "mm"}
    found = geometry(tmp_path / "a.tif", files.tiff(STACK, ome=True, photometric="minisblack", metadata=metadata))
    assert found.units == "um"
    assert found.spacing == pytest.approx((2.0, 0.65, 0.325), rel=1e-12)


def test_ome_without_sizes_is_pixels(tmp_path, files):
    data = files.tiff(STACK, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    assert geometry(tmp_path / "a.tif", data) == Geometry.from_spacing((1, 1, 1))


@pytest.mark.parametrize(
    ("resolution", "unit", "spacing", "units"),
    [
        ((20000, 20000), "centimeter", (0.5, 0.5), "um"),
        ((50, 25), "centimeter", (0.4, 0.2), "mm"),
        ((50800, 50800), "inch", (0.5, 0.5), "um"),
        ((72, 72), "inch", (1, 1), "px"),
        ((300, 300), "inch", (1, 1), "px"),
        ((118.11, 118.11), "centimeter", (1, 1), "px"),  # 300 dpi
        ((1, 1), "centimeter", (1, 1), "px"),
        ((4, 4), "none", (1, 1), "px"),
        ((0, 0), "centimeter", (1, 1), "px"),
    ],
)
def test_resolution_tags_unless_they_are_a_printers(tmp_path, files, resolution, unit, spacing, units):
    data = files.tiff(STACK[0], resolution=resolution, resolutionunit=unit, metadata=None)
    found = geometry(tmp_path / "a.tif", data)
    assert found.units == units
    assert found.spacing == pytest.approx(spacing, rel=1e-9)


def test_png_density_of_a_screen_is_no_pixel_size(tmp_path, files):
    assert geometry(tmp_path / "a.png", files.pillow(STACK[0], "PNG", dpi=(96, 96))).units == "px"
    fine = geometry(tmp_path / "b.png", files.pillow(STACK[0], "PNG", dpi=(50800, 50800)))
    assert fine.units == "um"
    assert fine.spacing == pytest.approx((0.5, 0.5), rel=1e-6)
