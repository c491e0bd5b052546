"""A prediction of structures that overlap goes out with each of them, and comes back so."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_medt.core import BadImage, Geometry, LabelMap, Prediction
from napari_medt.io import read_segmentation, write
from napari_medt.io.dicom_in import read_dicom
from napari_medt.io.dicom_seg_in import read_dicom_seg
from tests.io import dicom_made as made

NAMES = ("background", "whole", "core", "never there")
PLACE = Geometry(np.array([[3.0, 0, 0, -4], [0, 0.9, 0, 8], [0, 0, -0.9, 2], [0, 0, 0, 1]]), "mm", "patient")


def prediction(rng, geometry=PLACE):
    inside = rng.random((3, 6, 5, 7)) > 0.4
    inside[2] = False
    labels = np.where(inside[1], 2, inside[0]).astype(np.uint8)
    return Prediction(labels, geometry, NAMES, structures=inside, model="made@1")


@pytest.mark.parametrize("name", ["m.nii.gz", "m.nii", "m.seg.nrrd"])
def test_every_structure_comes_back(name, rng, tmp_path):
    given = prediction(rng)
    masks = read_segmentation(write(given, tmp_path / name))
    assert len(masks) == 3
    for value, mask in enumerate(masks, start=1):
        assert mask.names == {value: NAMES[value]}
        assert np.array_equal(mask.array, given.structures[value - 1] * value)
        assert mask.geometry.close_to(PLACE, shape=mask.array.shape)


def test_others_find_a_channel_for_each_in_nifti(rng, tmp_path):
    given = prediction(rng)
    seen = np.asarray(nib.load(write(given, tmp_path / "m.nii.gz")).dataobj)
    assert seen.shape == (7, 5, 6, 1, 3)
    assert np.array_equal(seen[..., 0, :].T > 0, given.structures)


@pytest.mark.parametrize("name", ["m.tif", "m.mha", "m.nrrd", "m.ome.zarr"])
def test_where_one_label_fits_it_is_the_painted_one(name, rng, tmp_path):
    given = prediction(rng)
    (mask,) = read_segmentation(write(given, tmp_path / name))
    assert np.array_equal(mask.array, given.labels)


def test_a_segment_for_each_in_dicom(rng, tmp_path):
    made.make_series(tmp_path / "s", np.zeros((6, 5, 7), np.int16), made.positions(6))
    source = read_dicom(tmp_path / "s")
    given = prediction(rng, source.geometry)
    masks = read_dicom_seg(write(given, tmp_path / "m.dcm", source=source), like=source)
    by_name = {name: mask.array == value for mask in masks for value, name in mask.names.items()}
    assert np.array_equal(by_name["whole"], given.structures[0])
    assert np.array_equal(by_name["core"], given.structures[1])


def test_masks_with_the_same_label_are_told_apart_or_refused(rng, tmp_path):
    one = LabelMap((rng.random((6, 5, 7)) > 0.5).astype(np.uint8), PLACE, {1: "a"})
    with pytest.raises(BadImage, match="need labels of their own in NIfTI"):
        write([one, LabelMap(one.array, PLACE, {1: "b"})], tmp_path / "m.nii.gz")
