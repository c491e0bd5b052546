from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_medt.core import BadImage, Geometry, Prediction, StorageError
from napari_medt.io import read, read_labels, write

SPACING = st.floats(1e-3, 1e3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple),
    dtype=st.sampled_from(["bool", "uint8", "uint16", "uint32", "int64", "float32"]),
    spacing=st.tuples(SPACING, SPACING, SPACING),
    origin=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
    units=st.sampled_from(["px", "um", "mm"]),
    seed=st.integers(0, 999),
)
def test_values_type_spacing_origin_and_unit_come_back(tmp_path, shape, dtype, spacing, origin, units, seed):
    array = (np.random.default_rng(seed).random(shape) * 300).astype(dtype)
    if dtype == "uint32":
        array.flat[0] = 70_000
    geometry = Geometry.from_spacing(spacing[-array.ndim :], origin=origin[-array.ndim :], units=units)
    path = write(array, tmp_path / "a.tif", geometry=geometry)
    if dtype == "float32":
        volume = read(path)
        values, found = volume.array[0], volume.geometry
    else:
        values, found = read_labels(path)
    assert values.shape == shape
    np.testing.assert_array_equal(values, array)
    np.testing.assert_allclose(found.affine, geometry.affine, rtol=1e-9, atol=1e-9)
    assert found.units == units


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_imagej_and_other_readers_see_the_same(tmp_path, rng, dtype):
    array = (rng.random((4, 30, 40)) * 200).astype(dtype)
    path = write(array, tmp_path / "a.tif", geometry=Geometry.from_spacing((2.5, 0.5, 0.25), units="um"))
    np.testing.assert_array_equal(tifffile.imread(path), array)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_imagej
        assert tiff.series[0].axes == "ZYX"
        assert tiff.imagej_metadata["spacing"] == 2.5
        assert tiff.imagej_metadata["unit"] == "um"
        assert tiff.pages[0].tags["XResolution"].value == (4, 1)
        assert tiff.pages[0].tags["YResolution"].value == (2, 1)
        assert tiff.pages[0].compression.name == "ADOBE_DEFLATE"


def test_a_slice_three_pixels_wide_is_not_taken_for_colour(tmp_path):
    array = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(tifffile.imread(write(array, tmp_path / "a.tif")), array)


def test_many_labels_go_into_an_ome_file_others_can_read(tmp_path):
    array = np.arange(70_000 * 2, dtype=np.int64).reshape(2, 700, 100)
    path = write(array, tmp_path / "a.tif", geometry=Geometry.from_spacing((2, 0.5, 0.5), units="mm"))
    np.testing.assert_array_equal(tifffile.imread(path), array)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert 'PhysicalSizeZ="2.0"' in tiff.ome_metadata


def test_a_prediction_takes_its_geometry_with_it(tmp_path):
    geometry = Geometry.from_spacing((0.3, 0.4), units="um")
    prediction = Prediction(np.eye(4, dtype=np.uint8), geometry, ("background", "nucleus"))
    labels, found = read_labels(write(prediction, tmp_path / "a.tif"))
    np.testing.assert_array_equal(labels, np.eye(4))
    assert found.spacing == pytest.approx((0.3, 0.4))
    assert found.units == "um"


@pytest.mark.parametrize("highest", [1, 200, 60_000])
def test_png(tmp_path, highest):
    array = np.array([[0, highest], [1, 0]], np.int32)
    geometry = Geometry.from_spacing((0.8, 0.7), origin=(3, -4), units="mm")
    path = write(array, tmp_path / "a.PNG", geometry=geometry)
    labels, found = read_labels(path)
    np.testing.assert_array_equal(labels, array)
    assert found == geometry
    assert np.asarray(Image.open(path)).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("array", "name", "said"),
    [
        (np.zeros((2, 3, 4), np.uint8), "a.png", "PNG holds one slice"),
        (np.zeros((3, 4), np.float32), "a.png", "whole numbers only"),
        (np.full((3, 4), 70_000), "a.png", "up to 65535 only"),
        (np.zeros((3, 4), np.uint8), "a.jpg", "cannot be written as .jpg"),
        (np.zeros((3, 4), np.uint8), "a", "a file without an ending"),
        (np.full((3, 4), -1), "a.tif", "negative"),
        (np.full((3, 4), 2**40), "a.tif", "more than fits"),
        (np.zeros((1, 2, 3, 4), np.uint8), "a.tif", "cannot be written"),
        (np.zeros((0, 4), np.uint8), "a.tif", "cannot be written"),
        (np.zeros((3, 4), complex), "a.tif", "neither labels nor numbers"),
    ],
)
def test_what_a_file_cannot_hold_is_said_before_anything_is_written(tmp_path, array, name, said):
    with pytest.raises(BadImage, match=said):
        write(array, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_geometry_of_other_axes_is_refused(tmp_path):
    with pytest.raises(BadImage, match="does not fit a geometry of 3 axes"):
        write(np.zeros((3, 4), np.uint8), tmp_path / "a.tif", geometry=Geometry.from_spacing((1, 1, 1)))


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(StorageError, match=r"could not be written: the folder does not exist; choose another folder\."):
        write(np.zeros((3, 4), np.uint8), tmp_path / "no" / "a.tif")
