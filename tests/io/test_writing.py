from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_medt.core import BadImage, Geometry, LabelMap, MedtError, Prediction, StorageError, Volume
from napari_medt.io import list_series, read, read_labels, read_segmentation, write
from napari_medt.io.writing import ENDINGS

SPACING = st.floats(1e-3, 1e3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# ------------------------------------------------------------------------------------------------------- every format

SCAN = Geometry(np.diag([2.5, -0.5, 0.25, 1]), "mm", "patient")
HOLD_SCANS = [ending for ending in ENDINGS if ending not in (".dcm", ".png")]


@pytest.mark.parametrize("ending", HOLD_SCANS)
def test_lazy_masks_are_written_part_by_part(tmp_path, rng, ending):
    labels = rng.integers(0, 300, (9, 40, 50)).astype(np.uint16)
    mask = LabelMap(da.from_array(labels, chunks=(2, 16, 50)), SCAN)
    (found,) = read_segmentation(write(mask, tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(np.asarray(found.array), labels)
    assert found.array.dtype == np.uint16
    assert found.geometry.close_to(SCAN, shape=labels.shape)


@pytest.mark.parametrize("ending", [ending for ending in HOLD_SCANS if ending != ".zarr"])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    def fail(block: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    path = write(np.ones((3, 4, 5), np.uint8), tmp_path / f"a{ending}", geometry=SCAN)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    broken = da.zeros((3, 4, 5), dtype=np.uint8, chunks=(1, 4, 5)).map_blocks(fail, dtype=np.uint8)
    with pytest.raises(StorageError, match="disk is full"):
        write(LabelMap(broken, SCAN), path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("ending", [".seg.nrrd", ".ome.zarr", ".nii.gz"])
def test_names_and_colours_stay_with_their_labels(tmp_path, ending):
    mask = LabelMap(np.eye(3, dtype=np.uint8)[None] * 4, SCAN, {4: "Milz"}, {4: (1.0, 0.0, 0.2)})
    (found,) = read_segmentation(write(mask, tmp_path / f"a{ending}"))
    assert found.names == {4: "Milz"}
    assert found.colours == {4: (1.0, 0.0, 0.2)}


@pytest.mark.parametrize(
    ("what", "name", "said"),
    [
        (Volume(np.zeros((1, 2, 3, 4), np.int16), SCAN), "a.seg.nrrd", "holds masks, but this is none"),
        (Volume(np.zeros((1, 2, 3, 4), np.int16), SCAN), "a.dcm", "is written for masks"),
        (Volume(np.zeros((2, 3, 4), np.uint8), Geometry.from_spacing((1, 1))), "a.png", "has 2 channels"),
        (LabelMap(np.zeros((2, 3, 4), np.uint8), SCAN), "a.dcm", "refers to the DICOM files of its image"),
        ([LabelMap(np.zeros((2, 3, 4), np.uint8), g) for g in (SCAN, SCAN.part((1, 0, 0)))], "a.seg.nrrd", "same grid"),
    ],
)
def test_what_a_format_does_not_hold_is_said(tmp_path, what, name, said):
    with pytest.raises(BadImage, match=said):
        write(what, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_colour_picture_as_png(tmp_path, colour):
    volume = Volume(np.moveaxis(colour, -1, 0), Geometry.from_spacing((1, 1)), ("red", "green", "blue"))
    np.testing.assert_array_equal(np.asarray(Image.open(write(volume, tmp_path / "a.png"))), colour)


def test_a_mask_of_a_dicom_series_goes_there_and_back(data_folder, tmp_path):
    folder = data_folder / "formats" / "dicom_seg_dcmqi" / "ct-3slice"
    if not folder.is_dir():
        pytest.skip("needs the DICOM files of dcmqi")
    (series,) = list_series(folder)
    image = read(folder, choose=series.uid)
    labels = (image.array[0] > 100).astype(np.uint8)
    prediction = Prediction(labels, image.geometry, ("background", "bone"), model="medt@1.2")
    path = write(prediction, tmp_path / "mask.dcm", source=image)
    (found,) = read_segmentation(path, like=image)
    np.testing.assert_array_equal(found.array, labels)
    assert found.names == {1: "bone"}
    nifti = read(write(image, tmp_path / "image.nii.gz"))
    np.testing.assert_array_equal(nifti.array, image.array)
    assert nifti.geometry.close_to(image.geometry, shape=labels.shape)


@pytest.mark.parametrize("ending", [".ome.tif", ".mha", ".nrrd", ".nii.gz"])
def test_whole_numbers_of_64_bits_are_never_rounded(tmp_path, ending):
    for top in (1000, 2**53 + 1):
        volume = Volume(np.full((1, 2, 3, 4), top, np.int64), SCAN)
        if top > 1000 and ending == ".ome.tif":
            with pytest.raises(BadImage, match="which it does not hold"):
                write(volume, tmp_path / f"a{ending}")
        else:
            assert int(read(write(volume, tmp_path / f"a{ending}")).array.max()) == top


def test_a_name_that_is_none(tmp_path):
    with pytest.raises(BadImage, match="not a valid name"):
        write(np.ones((2, 3), np.uint8), f"{tmp_path}/a\0.tif")


@pytest.mark.parametrize(("ending", "module"), [(".nii", "nibabel"), (".ome.zarr", "zarr"), (".dcm", "highdicom")])
def test_a_missing_library_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch, ending, module):
    monkeypatch.setattr("napari_medt.io.needs.find_spec", lambda name: None if name == module else name)
    with pytest.raises(MedtError, match=rf"needs {module}; pip install 'napari-medt\[(volumes|lazy)\]'\."):
        write(np.ones((2, 3, 4), np.uint8), tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []
