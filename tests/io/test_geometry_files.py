"""The same place in every format: written by us and read by others, written by others and read by us."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from napari_medt.core import Geometry, LabelMap, Volume
from napari_medt.io import read, read_segmentation, write

SHAPE = (5, 6, 7)
MARKS = {1: (0, 3, 3), 2: (2, 0, 3), 3: (2, 3, 6), 4: (4, 5, 1)}  # no two alike under any turn or mirror
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
TILT = Rotation.from_euler("zyx", (11, -7, 5), degrees=True).as_matrix()
FORMATS = ["a.nii", "a.nii.gz", "a.nrrd", "a.seg.nrrd", "a.mha", "a.mhd", "a.ome.tif", "a.tif", "a.ome.zarr"]


def geometry_of(order: tuple[int, ...], signs: tuple[int, ...], *, oblique: bool) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * signs * (2.5, 0.7, 1.1)
    if oblique:
        affine[:3, :3] = TILT @ affine[:3, :3]
    affine[:3, 3] = -31.5, 12.25, 80.75
    return Geometry(affine, "mm", "patient")


def phantom() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    for value, index in MARKS.items():
        array[index] = value
    return array


def lps_of(geometry: Geometry, index: tuple[int, ...]) -> np.ndarray:
    return geometry.position(index)[::-1]


def marks_by_nibabel(path: Path) -> dict[int, np.ndarray]:
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    return {value: (image.affine @ [*np.argwhere(values == value)[0], 1])[:3] * (-1, -1, 1) for value in MARKS}


def marks_by_itk(path: Path) -> dict[int, np.ndarray]:
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    return {
        value: np.array(image.TransformIndexToPhysicalPoint([int(i) for i in np.argwhere(values == value)[0][::-1]]))
        for value in MARKS
    }


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", FORMATS)
def test_marks_lie_where_they_were_in_every_orientation(tmp_path, name, oblique):
    step = 5 if "zarr" in name else 1  # a folder takes its time; every order of axes still comes
    for number, (order, signs) in enumerate(ORIENTATIONS[::step]):
        geometry = geometry_of(order, signs, oblique=oblique)
        path = write(LabelMap(phantom(), geometry, {1: "left"}), tmp_path / f"{number}{name}")
        (found,) = read_segmentation(path)
        np.testing.assert_array_equal(found.array, phantom())
        assert found.geometry.close_to(geometry, shape=SHAPE, tolerance=1e-4)
        assert found.geometry.orientation == geometry.orientation
        others = []
        if ".nii" in name:
            others.append(marks_by_nibabel(path))
        if ".nii" in name or name[-4:] in ("nrrd", ".mha", ".mhd"):
            others.append(marks_by_itk(path))
        for marks in others:
            for value, index in MARKS.items():
                np.testing.assert_allclose(marks[value], lps_of(geometry, index), atol=1e-4)


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_images_that_itk_wrote_lie_where_itk_says(tmp_path, name, oblique):
    for number, (order, signs) in enumerate(ORIENTATIONS):
        geometry = geometry_of(order, signs, oblique=oblique)
        image = sitk.GetImageFromArray(phantom().astype(np.int16))
        spacing, origin, direction = geometry.to_itk()
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        path = tmp_path / f"{number}{name}"
        sitk.WriteImage(image, str(path))
        volume = read(path)
        assert volume.notes == ()
        assert volume.geometry.frame == "patient"
        np.testing.assert_array_equal(volume.array[0], phantom())
        assert volume.geometry.close_to(geometry, shape=SHAPE, tolerance=1e-4)


@pytest.mark.parametrize("form", ["sform", "qform", "both"])
def test_scans_that_nibabel_wrote_lie_where_nibabel_says(tmp_path, form):
    for number, (order, signs) in enumerate(ORIENTATIONS):
        geometry = geometry_of(order, signs, oblique=True)
        image = nib.Nifti1Image(phantom().T, geometry.to_nifti())
        image.set_qform(geometry.to_nifti(), int(form != "sform"))
        image.set_sform(geometry.to_nifti(), int(form != "qform"))
        path = tmp_path / f"{number}.nii"
        nib.save(image, path)
        volume = read(path)
        assert volume.notes == ()
        np.testing.assert_array_equal(volume.array[0], phantom())
        assert volume.geometry.close_to(geometry, shape=SHAPE, tolerance=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "float32"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.ome.tif", "a.tif"])
def test_images_of_every_type_and_of_several_channels_come_back(tmp_path, rng, name, dtype):
    geometry = geometry_of((2, 0, 1), (1, -1, 1), oblique=True)
    for channels in (1, 2, 3):
        array = rng.random((channels, *SHAPE)) * 30_000 % np.iinfo("uint8" if dtype == "uint8" else "int16").max
        array = array.astype(dtype)
        volume = read(write(Volume(array, geometry, tuple("abc"[:channels])), tmp_path / f"{channels}{name}"))
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, array)
        assert volume.geometry.close_to(geometry, shape=SHAPE, tolerance=1e-4)
        if channels == 2 and ".nii" in name:
            assert volume.channel_names == ("a", "b")


@pytest.mark.parametrize("units", ["px", "um", "mm"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_pictures_outside_a_patient_stay_outside(tmp_path, name, units, turned):
    affine = np.diag([1.0, 1, 1, 1]) if units == "px" else np.diag([2.0, 0.5, 0.25, 1])
    if turned:
        affine[:3, :3] = TILT @ affine[:3, :3]
        affine[:3, 3] = 3, -4, 5
    geometry = Geometry(affine, units, "image")
    (found,) = read_segmentation(write(LabelMap(phantom(), geometry), tmp_path / name))
    np.testing.assert_array_equal(found.array, phantom())
    assert found.geometry.units == units
    assert found.geometry.frame == "image"
    assert found.geometry.close_to(geometry, shape=SHAPE, tolerance=1e-4)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif", "a.ome.zarr"])
def test_masks_of_two_axes_stay_of_two_axes(tmp_path, name):
    geometry = Geometry.from_spacing((0.5, 0.25), origin=(3, 4), units="mm")
    array = np.arange(42, dtype=np.uint8).reshape(6, 7)
    (found,) = read_segmentation(write(LabelMap(array, geometry), tmp_path / name))
    np.testing.assert_array_equal(found.array, array)
    assert found.geometry.close_to(geometry, shape=(6, 7), tolerance=1e-4)
