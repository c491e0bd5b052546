from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medt.core import Acquisition, BadImage, Geometry, LabelMap, Volume
from napari_medt.io import read_segmentation, resample, write

STRAIGHT = Geometry.from_spacing((2, 0.7, 0.9), origin=(-10, 4, 30), units="mm", frame="patient")


def turned(degrees: tuple[float, float, float], spacing: tuple[float, float, float], origin=(-8, 6, 33)) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    return Geometry(affine, "mm", "patient")


def by_itk(volume: Volume, geometry: Geometry, shape: tuple[int, ...], *, nearest: bool) -> np.ndarray:
    """What SimpleITK gives in one piece, in the words of a patient."""

    def image_of(array: np.ndarray, place: Geometry) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        spacing, origin, direction = place.to_itk()
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        return image

    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    grid = image_of(np.zeros(shape, np.float32), geometry)
    moved = sitk.Resample(image_of(volume.array[0], volume.geometry), grid, sitk.Transform(), method, 0.0)
    return sitk.GetArrayFromImage(moved)


@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "lazy"])
@pytest.mark.parametrize("nearest", [False, True], ids=["linear", "nearest"])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -8, 5), (90, 0, 0), (170, 30, -60)])
def test_slab_by_slab_is_the_same_as_at_once(rng, monkeypatch, degrees, nearest, lazy):
    monkeypatch.setattr("napari_medt.io.resampling._SLAB_BYTES", 6000)  # many parts, cut along every axis
    array = rng.random((1, 14, 15, 16)).astype(np.float32)
    geometry, shape = turned(degrees, (1.1, 1.3, 0.8)), (13, 17, 19)
    volume = Volume(da.from_array(array, chunks=(1, 4, 5, 6)) if lazy else array, STRAIGHT)
    found = resample(volume, geometry, shape, nearest=nearest).array[0]
    wanted = by_itk(Volume(array, STRAIGHT), geometry, shape, nearest=nearest)
    assert (wanted != 0).mean() > 0.05
    if nearest:  # samples that lie exactly between two may fall to either
        assert (found != wanted).mean() < 1e-3
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@settings(max_examples=40)
@given(
    start=st.tuples(*[st.integers(-3, 4)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]),
    nearest=st.booleans(),
)
def test_a_part_of_the_same_grid_is_exact_and_outside_is_nothing(start, shape, dtype, nearest):
    array = (np.random.default_rng(7).random((2, 5, 6, 7)) * 90 + 5).astype(dtype)
    moved = resample(Volume(array, STRAIGHT), STRAIGHT.part(start), shape, nearest=nearest)
    assert moved.array.dtype == dtype
    padded = np.pad(array, [(0, 0), *[(20, 20)] * 3])
    where = tuple(slice(20 + at, 20 + at + size) for at, size in zip(start, shape, strict=True))
    np.testing.assert_allclose(moved.array, padded[(slice(None), *where)], rtol=1e-6)


def test_a_ramp_stays_a_ramp(rng):
    z, y, x = np.indices((12, 13, 14))
    place = STRAIGHT.position(np.stack([z, y, x], -1))
    ramp = Volume((place @ (3.0, -2.0, 5.0))[None], STRAIGHT)
    grid = turned((5, 4, -3), (0.9, 0.5, 0.6), origin=(-2, 6, 34))
    moved = resample(ramp, grid, (6, 7, 8)).array[0]
    wanted = grid.position(np.stack(np.indices((6, 7, 8)), -1)) @ (3.0, -2.0, 5.0)
    np.testing.assert_allclose(moved, wanted, atol=1e-6)


def test_whole_numbers_are_rounded_and_air_is_air():
    ramp = np.tile(np.arange(0, 40, 4, dtype=np.int16), (1, 4, 5, 1))
    volume = Volume(ramp, STRAIGHT, acquisition=Acquisition("CT", "HU"))
    moved = resample(volume, STRAIGHT.part((0, 0, 0), step=(1, 1, 0.3)), (4, 5, 40)).array
    np.testing.assert_array_equal(moved[0, 0, 0, :31], np.rint(np.arange(31) * 1.2))
    assert (moved[0, 0, 0, 33:] == -1024).all()
    assert (resample(Volume(ramp, STRAIGHT), STRAIGHT.part((90, 0, 0)), (2, 2, 2)).array == 0).all()


def test_labels_stay_labels():
    labels = np.zeros((6, 7, 8), np.uint32)
    labels[2:4, 2:5, 3:6] = 70_000
    moved = resample(LabelMap(labels, STRAIGHT, {70_000: "node"}), turned((10, 0, 0), (1, 0.5, 0.5)), (9, 10, 11))
    assert moved.array.dtype == np.uint32
    assert set(np.unique(moved.array)) == {0, 70_000}
    assert moved.names == {70_000: "node"}
    shares = resample(
        LabelMap((labels > 0).astype(np.float32), STRAIGHT, fraction=True), STRAIGHT.part((0.5,) * 3), (4,) * 3
    )
    assert 0 < shares.array[1, 1, 2] < 1


def test_a_small_copy_of_a_large_image_is_made_part_by_part(monkeypatch):
    """What is read at a time must not grow with what one part of the copy stands for."""
    monkeypatch.setattr("napari_medt.io.resampling._SLAB_BYTES", 2**20)
    array = da.ones((1, 64, 64, 64), dtype=np.float32, chunks=(1, 4, 64, 64))
    computed: list[int] = []
    monkeypatch.setattr(
        "napari_medt.io.resampling._by_itk",
        lambda part, between, size, **how: computed.append(part.size) or np.ones(size, np.float32),
    )
    moved = resample(Volume(array, STRAIGHT), STRAIGHT.part((0, 0, 0), step=(8, 8, 8)), (8, 8, 8))
    assert (moved.array == 1).all()
    assert len(computed) > 1
    assert max(computed) * 8 <= 2**20


def test_two_axes_and_other_frames():
    flat = Geometry.from_spacing((0.5, 0.25), units="um")
    picture = Volume(np.arange(20, dtype=np.uint8).reshape(1, 4, 5), flat)
    np.testing.assert_array_equal(resample(picture, flat.part((1, 2)), (2, 2)).array[0], [[7, 8], [12, 13]])
    for other in (Geometry.from_spacing((1, 1)), STRAIGHT):
        with pytest.raises(BadImage, match="cannot be put on a grid"):
            resample(picture, other, (2,) * other.ndim)


# ------------------------------------------------------------------------------------------------- masks of an image


def test_a_mask_on_the_grid_of_its_image_is_left_alone(tmp_path):
    image = Volume(np.zeros((1, 4, 5, 6), np.int16), STRAIGHT)
    mask = LabelMap(np.ones((4, 5, 6), np.uint8), STRAIGHT, {1: "a"})
    (found,) = read_segmentation(write(mask, tmp_path / "m.nii.gz"), like=image)
    np.testing.assert_array_equal(found.array, mask.array)
    assert found.geometry == STRAIGHT  # exactly, not as 32 bits round it
    assert found.notes == ()


def test_a_mask_that_does_not_say_where_it_lies_is_taken_to_fit(tmp_path):
    image = Volume(np.zeros((1, 4, 5, 6), np.int16), STRAIGHT)
    (found,) = read_segmentation(write(np.ones((4, 5, 6), np.uint8), tmp_path / "m.tif"), like=image)
    assert found.geometry == STRAIGHT
    assert "does not say where it lies" in found.notes[0]
    with pytest.raises(BadImage, match="mask of 4 x 5 x 7 voxels does not fit the image of 4 x 5 x 6"):
        read_segmentation(write(np.ones((4, 5, 7), np.uint8), tmp_path / "n.tif"), like=image)


def test_a_mask_of_another_grid_is_put_on_that_of_the_image(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 9
    image = Volume(np.zeros((1, 8, 5, 6), np.int16), STRAIGHT.part((-2, 0, 0)))
    (found,) = read_segmentation(write(LabelMap(labels, STRAIGHT), tmp_path / "m.nrrd"), like=image)
    assert found.array.shape == (8, 5, 6)
    assert np.argwhere(found.array == 9).tolist() == [[3, 2, 3]]
    assert "another grid" in found.notes[-1]
    picture = Volume(np.zeros((1, 5, 6), np.uint8), Geometry.from_spacing((1, 1)))
    with pytest.raises(BadImage, match="does not fit"):
        read_segmentation(tmp_path / "m.nrrd", like=picture)
