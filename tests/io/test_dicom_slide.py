from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from napari_medt.io.dicom_in import read_dicom  # noqa: E402
from napari_medt.io.dicom_seg_in import read_dicom_seg  # noqa: E402
from napari_medt.io.dicom_seg_out import write_dicom_seg  # noqa: E402
from napari_medt.io.dicom_series import list_series  # noqa: E402


@pytest.fixture(scope="module")
def slides(data_folder: Path) -> Path:
    folder = data_folder / "formats" / "dicom_highdicom"
    if not folder.is_dir():
        pytest.skip("needs formats/dicom_highdicom")
    return folder


@pytest.mark.parametrize(
    "name", ["image", "image_grayscale", "image_grayscale_reversed", "image_jpegls", "image_jpegls_nobot"]
)
def test_tiles_make_the_picture_that_highdicom_makes(name, slides):
    path = slides / f"sm_{name}.dcm"
    volume = read_dicom(path)
    theirs = np.atleast_3d(hd.imread(path).get_total_pixel_matrix(apply_icc_profile=False)).transpose(2, 0, 1)
    assert volume.geometry.units == "um"
    assert volume.geometry.spacing == pytest.approx((0.499, 0.499))
    assert np.array_equal(np.asarray(volume.array), theirs)
    assert np.array_equal(np.asarray(volume.array[:, 13:37:2, 5]), theirs[:, 13:37:2, 5])
    assert np.array_equal(np.asarray(volume.array[..., 9:11, 9:31]), theirs[..., 9:11, 9:31])


def test_levels_lie_under_the_finest_and_the_label_is_left_out(slides, tmp_path):
    whole = pydicom.dcmread(slides / "sm_image.dcm")
    whole.save_as(tmp_path / "b.dcm")
    small = pydicom.dcmread(slides / "sm_image.dcm")
    small.SOPInstanceUID = small.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    small.NumberOfFrames, small.TotalPixelMatrixRows, small.TotalPixelMatrixColumns = 4, 15, 20
    small.PixelData = whole.PixelData[: 4 * 300]
    small.save_as(tmp_path / "a.dcm")
    small.SOPInstanceUID = small.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    small.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    small.save_as(tmp_path / "c.dcm")
    (series,) = list_series(tmp_path)
    assert series.shape == (50, 50)
    volume = read_dicom(tmp_path)
    assert volume.array.shape == (3, 50, 50)
    assert [level.shape for level in volume.levels] == [(3, 15, 20)]
    tiles = np.frombuffer(small.PixelData, np.uint8).reshape(2, 2, 10, 10, 3)
    expected = tiles.transpose(4, 0, 2, 1, 3).reshape(3, 20, 20)[:, :15]
    assert np.array_equal(np.asarray(volume.levels[0]), expected)


def test_a_mask_of_a_slide_comes_back(slides, tmp_path):
    volume = read_dicom(slides / "sm_image.dcm")
    labels = np.zeros((50, 50), np.uint8)
    labels[3:20, 11:43], labels[30:, :9] = 1, 2
    (found,) = read_dicom_seg(write_dicom_seg(labels, tmp_path / "m.dcm", source=volume), like=volume)
    assert np.array_equal(found.array, labels)
    assert found.geometry == volume.geometry
