from __future__ import annotations

import contextlib
import logging
import os
import shutil
import traceback
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
sitk = pytest.importorskip("SimpleITK")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import MPEG4HP41, HTJ2KLossless, JPEG2000Lossless, JPEGLossless, JPEGLSLossless, RLELossless  # noqa: E402

from napari_medt.core import AmbiguousImage, BadImage, Cancel, Cancelled, MedtError, Volume  # noqa: E402
from napari_medt.io.dicom_in import read_dicom  # noqa: E402
from napari_medt.io.dicom_series import list_series  # noqa: E402
from napari_medt.io.kinds import kind_of  # noqa: E402
from tests.io import dicom_made as made  # noqa: E402

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
ORIENTATIONS = {
    "axial": (made.AXIAL, "SPL"),
    "coronal": (made.CORONAL, "PIL"),
    "sagittal": (made.SAGITTAL, "RIP"),
    "turned": (made.TURNED, "SAR"),
    "oblique": (made.OBLIQUE, "SPL"),
}


@pytest.fixture
def block(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3000, (6, 5, 7)).astype(np.int16)


def value_at(volume: Volume, lps: np.ndarray) -> float:
    index = volume.geometry.index(np.asarray(lps)[::-1])
    assert np.abs(index - np.rint(index)).max() < 1e-4
    return float(volume.array[(0, *np.rint(index).astype(int))])


def lps_of(place: np.ndarray, orientation: tuple[float, ...], row: int, column: int) -> np.ndarray:
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    return np.asarray(place) + across * column * 0.9 + down * row * 0.7


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_lies_where_its_file_says_in_any_order_of_files(name, block, tmp_path, rng):
    orientation, letters = ORIENTATIONS[name]
    places = made.positions(6, orientation=orientation)
    made.make_series(tmp_path / "s", block, places, orientation=orientation, order=rng.permutation(6))
    volume = read_dicom(tmp_path / "s")
    assert volume.array.dtype == np.int16
    assert volume.geometry.orientation == letters
    assert volume.geometry.frame == "patient"
    assert volume.acquisition.value_unit == "HU"
    for k in range(6):
        for row, column in ((0, 0), (4, 6), (2, 3)):
            assert value_at(volume, lps_of(places[k], orientation, row, column)) == block[k, row, column] - 1024


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_gdcm_finds_the_same_value_at_the_same_millimetre(name, block, tmp_path):
    orientation, _ = ORIENTATIONS[name]
    made.make_series(tmp_path, block, made.positions(6, orientation=orientation), orientation=orientation)
    ours = read_dicom(tmp_path)
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    for index in np.ndindex(6, 5, 7):
        lps = ours.geometry.position(index)[::-1]
        assert theirs[theirs.TransformPhysicalPointToIndex(lps.tolist())] == ours.array[(0, *index)]


def test_files_are_told_in_the_order_of_the_slices(block, tmp_path):
    paths = made.make_series(tmp_path, block, made.positions(6), order=[5, 4, 3, 2, 1, 0])
    assert read_dicom(tmp_path).acquisition.files == tuple(map(str, reversed(paths)))


def test_marks_left_behind_and_above_are_found_there(tmp_path):
    block = np.zeros((4, 9, 9), np.int16)
    block[1, 4, 8], block[1, 8, 4], block[3, 4, 4] = 1, 2, 3  # towards left, back, head of an axial scan
    made.make_series(tmp_path, block, made.positions(4), modality="MR")
    volume = read_dicom(tmp_path)
    centre = volume.geometry.position([1, 4, 4])
    for value, axis in ((1, 2), (2, 1), (3, 0)):
        apart = volume.geometry.position(np.argwhere(volume.array[0] == value)[0]) - centre
        assert apart[axis] > 0
        assert np.count_nonzero(np.abs(apart) > 1e-6) == 1


def test_a_tilted_gantry_gives_a_sheared_geometry_and_a_note(block, tmp_path):
    places = made.positions(6, step=(0, -0.8, 3))
    made.make_series(tmp_path, block, places)
    volume = read_dicom(tmp_path)
    assert any("tilted by 14.9°" in note for note in volume.notes)
    for k in range(6):
        assert value_at(volume, lps_of(places[k], made.AXIAL, 3, 2)) == block[k, 3, 2] - 1024


def test_missing_slices_are_asked_about_and_can_be_filled_or_left(block, tmp_path):
    paths = made.make_series(tmp_path, block, made.positions(6))
    paths[2].unlink()
    with pytest.raises(AmbiguousImage, match="lacks 1 slice;") as caught:
        read_dicom(tmp_path)
    assert [choice.key for choice in caught.value.choices] == ["fill gaps", "largest run"]
    filled = read_dicom(tmp_path, choose=["fill gaps"])
    assert filled.spatial_shape == (6, 5, 7)
    assert np.array_equal(filled.array[0, [0, 1, 3, 4, 5]], block[[0, 1, 3, 4, 5]] - 1024)
    assert np.array_equal(filled.array[0, 2], np.rint((block[1].astype(float) + block[3]) / 2) - 1024)
    assert len(filled.acquisition.files) == 5
    part = read_dicom(tmp_path, choose=["largest run"])
    assert np.array_equal(part.array[0], block[3:] - 1024)
    assert any("3 of 5 slices" in note for note in part.notes)
    assert any("lacks 1 slice" in odd for odd in list_series(tmp_path)[0].odd)


def test_unequal_distances_are_asked_about_and_interpolated(tmp_path):
    heights = np.array([0, 2, 4, 6, 9.0])
    ramp = np.broadcast_to((heights * 10)[:, None, None], (5, 4, 4)).astype(np.int16)
    made.make_series(tmp_path, ramp, np.stack([0 * heights, 0 * heights, heights], 1), modality="MR")
    with pytest.raises(AmbiguousImage, match="unequally far apart, 2 to 3 mm"):
        read_dicom(tmp_path)
    volume = read_dicom(tmp_path, choose=["fill gaps"])
    assert volume.geometry.spacing[0] == pytest.approx(2)
    assert volume.array[0, :, 0, 0].tolist() == [0, 20, 40, 60, 80]


def test_two_series_and_a_localiser_are_asked_about(block, tmp_path):
    made.make_series(tmp_path / "a", block, made.positions(6), series="1.2.3")
    made.make_series(tmp_path / "b", block[:, :4], made.positions(6), series="1.2.9", modality="MR")
    made.make_series(
        tmp_path / "c", block[:1], made.positions(1), series="1.2.9", orientation=made.CORONAL, modality="MR"
    )
    (tmp_path / "DICOMDIR").write_bytes(b"")
    (tmp_path / "read me.txt").write_text("not a scan")
    series = list_series(tmp_path)
    assert [one.uid for one in series] == ["1.2.3", "1.2.9#1", "1.2.9#2"]
    assert [one.shape for one in series] == [(6, 5, 7), (6, 4, 7), (1, 5, 7)]
    assert series[0].spacing == pytest.approx((3, 0.7, 0.9))
    assert "1 file in the folder is no DICOM and is left out" in series[0].odd
    assert any("several stacks" in odd for odd in series[1].odd)
    with pytest.raises(AmbiguousImage) as caught:
        read_dicom(tmp_path)
    assert [choice.key for choice in caught.value.choices] == [one.uid for one in series]
    assert read_dicom(tmp_path, choose=["1.2.9#1"]).array.shape == (1, 6, 4, 7)


def test_listing_tells_how_far_it_is_and_stops_when_asked(block, tmp_path):
    made.make_series(tmp_path, block, made.positions(6))
    told: list[tuple[int, int]] = []
    list_series(tmp_path, progress=lambda done, total, message="": told.append((done, total)))
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        list_series(tmp_path, cancel=cancel)


@pytest.mark.parametrize(
    ("keyword", "values", "keys"),
    [
        ("EchoTime", (4.6, 9.2), ["echo=4.6", "echo=9.2"]),
        ("DiffusionBValue", (0.0, 1000.0), ["b=0", "b=1000"]),
        ("TemporalPositionIdentifier", (1, 2), ["t=0", "t=1"]),
        ("AcquisitionTime", ("101010.5", "101020.5"), ["t=0", "t=1"]),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), None),
        ("PatientComments", ("a", "b"), ["copy=1", "copy=2"]),
    ],
)
def test_several_images_of_one_place_are_asked_about(keyword, values, keys, block, tmp_path):
    for run, value in enumerate(values):

        def change(data: Dataset, index: int, value: object = value, run: int = run) -> None:
            setattr(data, keyword, value)
            data.InstanceNumber = 100 * run + index

        made.make_series(tmp_path, block + run, made.positions(6), series="1.2.3", modality="MR", change=change)
        for path in list(tmp_path.glob("*-*")):
            path.rename(path.with_name(f"{run}{path.name.replace('-', '')}"))
    with pytest.raises(AmbiguousImage, match="2 images of one place") as caught:
        read_dicom(tmp_path)
    found = [choice.key for choice in caught.value.choices]
    assert keys is None or found == keys
    for run, key in enumerate(found):
        assert np.array_equal(read_dicom(tmp_path, choose=[key]).array[0], block + run)


def test_a_file_that_is_there_twice_is_read_once(block, tmp_path):
    paths = made.make_series(tmp_path, block, made.positions(6))
    shutil.copy(paths[0], tmp_path / "copy")
    volume = read_dicom(tmp_path)
    assert volume.array.shape == (1, 6, 5, 7)
    assert "1 slice is there twice and read once" in volume.notes


def test_a_single_slice_takes_its_thickness_and_a_slice_without_a_place_is_in_no_patient(block, tmp_path):
    made.make_series(tmp_path / "a", block[:1], made.positions(1))
    volume = read_dicom(tmp_path / "a")
    assert volume.geometry.spacing == pytest.approx((3, 0.7, 0.9))
    assert any("single slice" in note for note in volume.notes)
    made.make_series(tmp_path / "b", block, None, modality="MR")
    lost = read_dicom(tmp_path / "b")
    assert lost.geometry.frame == "image"
    assert lost.geometry.units == "mm"
    assert np.array_equal(lost.array[0], block)
    assert any("does not say where" in note for note in lost.notes)


def test_enhanced_files_are_read_frame_by_frame(block, tmp_path):
    places = made.positions(6, orientation=made.OBLIQUE)
    shuffled = [3, 1, 0, 5, 4, 2]
    path = made.make_enhanced(tmp_path / "e.dcm", block[shuffled], places[shuffled], orientations=[made.OBLIQUE] * 6)
    volume = read_dicom(path)
    assert volume.array.dtype == np.float32
    for k in range(6):
        assert value_at(volume, lps_of(places[k], made.OBLIQUE, 4, 1)) == block[k, 4, 1] * 2 + 10
    assert volume.acquisition.files == (str(path),)


def test_stacks_mixed_in_one_enhanced_file_are_asked_about(block, tmp_path):
    places = np.concatenate([made.positions(4), made.positions(2, orientation=made.CORONAL)])
    path = made.make_enhanced(tmp_path / "e.dcm", block, places, orientations=[made.AXIAL] * 4 + [made.CORONAL] * 2)
    with pytest.raises(AmbiguousImage, match="2 images") as caught:
        read_dicom(path)
    assert [read_dicom(path, choose=[choice.key]).geometry.orientation for choice in caught.value.choices] == [
        "SPL",
        "PIL",
    ]


def test_echoes_in_one_enhanced_file_are_asked_about(block, tmp_path):
    places = np.repeat(made.positions(3), 2, axis=0)
    path = made.make_enhanced(
        tmp_path / "e.dcm", block, places, orientations=[made.AXIAL] * 6, echoes=[3, 6, 3, 6, 3, 6]
    )
    assert np.array_equal(read_dicom(path, choose=["echo=6"]).array[0], block[1::2] * 2 + 10)


# --------------------------------------------------------------------------------------------------------------- values


def test_slopes_differ_by_slice_and_windows_come_along(block, tmp_path):
    def change(data: Dataset, index: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 0.5 + index, 7
        data.WindowCenter, data.WindowWidth = [40, 300], [400, 1500]
        data.PixelPaddingValue = -2000

    made.make_series(tmp_path, block, made.positions(6), modality="PT", change=change)
    volume = read_dicom(tmp_path)
    slopes = 0.5 + np.arange(6)[:, None, None]
    assert np.allclose(volume.array[0], block * slopes + 7)
    assert volume.acquisition.windows == ((40, 400), (300, 1500))
    assert any("holds -993" in note for note in volume.notes)


def test_values_beyond_16_bits_are_kept(tmp_path):
    block = np.full((2, 4, 4), -32768, np.int16)
    block[1] = 32767
    made.make_series(tmp_path, block, made.positions(2))
    volume = read_dicom(tmp_path)
    assert volume.array.min() == -32768 - 1024
    assert volume.array.max() == 32767 - 1024


def test_white_is_zero_is_turned_with_its_window(tmp_path):
    def change(data: Dataset, index: int) -> None:
        data.PhotometricInterpretation, data.PixelRepresentation, data.BitsStored, data.HighBit = (
            "MONOCHROME1",
            0,
            12,
            11,
        )
        data.WindowCenter, data.WindowWidth = 100, 50
        data.ImagerPixelSpacing = [0.2, 0.3]
        del data.PixelSpacing

    block = np.arange(20, dtype=np.int16).reshape(1, 4, 5)
    made.make_series(tmp_path, block, None, modality="DX", change=change)
    volume = read_dicom(tmp_path)
    assert np.array_equal(volume.array[0], 4095 - block[0])
    assert volume.geometry.spacing == (0.2, 0.3)
    assert volume.acquisition.windows == ((3995, 50),)
    assert any("at the detector" in note for note in volume.notes)
    assert any("turned" in note for note in volume.notes)


def _pet(data: Dataset, index: int) -> None:
    data.Units, data.DecayCorrection, data.CorrectedImage = "BQML", "START", ["ATTN", "DECY", "SCAT"]
    data.PatientWeight, data.SeriesDate, data.SeriesTime = 70, "20240203", "110000"
    data.AcquisitionDate, data.AcquisitionTime = "20240203", "110500"
    data.RescaleSlope, data.RescaleIntercept = 100, 0
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 350e6, 6586.2
    drug.RadiopharmaceuticalStartTime = "100000"
    data.RadiopharmaceuticalInformationSequence = [drug]


def test_uptake_is_computed_where_the_file_has_all_it_takes(block, tmp_path):
    made.make_series(tmp_path / "a", block, made.positions(6), modality="PT", change=_pet)
    volume = read_dicom(tmp_path / "a")
    assert volume.acquisition.value_unit == "SUV"
    dose = 350e6 * 2 ** (-3600 / 6586.2)
    assert np.allclose(volume.array[0], block * 100.0 * 70_000 / dose, rtol=1e-6)

    def light(data: Dataset, index: int) -> None:
        _pet(data, index)
        del data.PatientWeight

    made.make_series(tmp_path / "b", block, made.positions(6), modality="PT", change=light)
    volume = read_dicom(tmp_path / "b")
    assert volume.acquisition.value_unit == "Bq/ml"
    assert any("lacks the weight" in note for note in volume.notes)
    assert np.allclose(volume.array[0], block * 100.0)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_compressed_slices_give_the_same_values(syntax, block, tmp_path):
    def change(data: Dataset, index: int) -> None:
        data.PixelRepresentation = 0
        data.compress(syntax, generate_instance_uid=False)

    made.make_series(tmp_path, block, made.positions(6), change=change)
    assert np.array_equal(read_dicom(tmp_path).array[0], block - 1024)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (HTJ2KLossless, imagecodecs.htj2k_encode),
        (JPEG2000Lossless, partial(imagecodecs.jpeg2k_encode, level=0)),
        (JPEGLossless, partial(imagecodecs.ljpeg_encode, bitspersample=16)),
    ],
    ids=["htj2k", "jpeg2000", "jpeg-lossless"],
)
def test_rarer_compressions_give_the_same_values(syntax, encode, rng, tmp_path):
    block = rng.integers(0, 3000, (3, 40, 48)).astype(np.int16)

    def change(data: Dataset, index: int) -> None:
        data.PixelRepresentation = 0
        data.PixelData = pydicom.encaps.encapsulate([bytes(encode(block[index].astype(np.uint16)))])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax

    made.make_series(tmp_path, block, made.positions(3), change=change)
    assert np.array_equal(read_dicom(tmp_path).array[0], block - 1024)


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_jpeg_of_12_bits_is_as_gdcm_reads_it(name):
    if not (PYDICOM_FILES / name).exists():
        pytest.skip("pydicom came without its test files")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(PYDICOM_FILES / name)))
    assert np.array_equal(read_dicom(PYDICOM_FILES / name).array, theirs)


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_real_compressed_files_give_the_values_of_the_plain_one(name):
    if not (PYDICOM_FILES / name).exists():
        pytest.skip("pydicom came without its test files")
    plain = read_dicom(PYDICOM_FILES / "MR_small.dcm")
    assert np.array_equal(read_dicom(PYDICOM_FILES / name).array, plain.array)


# ----------------------------------------------------------------------------------------------------------- bad files


def _unknown_syntax(paths: list[Path]) -> None:
    data = pydicom.dcmread(paths[1])
    data.file_meta.TransferSyntaxUID = MPEG4HP41
    data.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
    data["PixelData"].is_undefined_length = True
    data.save_as(paths[1], enforce_file_format=True)


def _cut(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:-20])


def _short(paths: list[Path]) -> None:
    data = pydicom.dcmread(paths[1])
    data.PixelData = data.PixelData[:-10]
    data.save_as(paths[1], enforce_file_format=True)


def _fewer_rows(paths: list[Path]) -> None:
    for path in paths:
        data = pydicom.dcmread(path)
        data.Rows -= 2
        data.save_as(path, enforce_file_format=True)


def _no_pixels(paths: list[Path]) -> None:
    data = pydicom.dcmread(paths[1])
    del data.PixelData
    data.save_as(paths[1], enforce_file_format=True)


def _empty_folder(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def _shifted(paths: list[Path]) -> None:
    data = pydicom.dcmread(paths[2])
    data.ImagePositionPatient[0] += 40
    data.save_as(paths[2], enforce_file_format=True)


FAULTS = {
    _unknown_syntax: "compressed as MPEG-4",
    _cut: "damaged or incomplete",
    _short: "60 bytes long, but its header asks for 70",
    _fewer_rows: "70 bytes long, but its header asks for 42",
    _no_pixels: "damaged or incomplete",
    _empty_folder: "There is no DICOM image",
    _shifted: "shifted against each other by up to 40 mm",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_one_sentence_without_the_patient(fault, block, tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    fault(made.make_series(tmp_path, block, made.positions(6)))
    with pytest.raises(BadImage) as caught:
        read_dicom(tmp_path)
    assert FAULTS[fault] in str(caught.value)
    seen = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(str(w.message) for w in recwarn)
    assert_anonymous(seen)


def assert_anonymous(seen: str) -> None:
    for secret in (*made.NAME.split("^"), made.NUMBER):
        assert secret.lower() not in seen.lower()


def test_the_patient_is_named_nowhere(block, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)

    def odd(data: Dataset, index: int) -> None:
        data.SeriesDescription = f"{made.NAME} {made.NUMBER} head"
        data.PatientName = f"{made.NAME}\\{made.NAME}^" + "x" * 70  # breaks the rules for names

    with pytest.warns(UserWarning, match="component length"):
        made.make_series(tmp_path, block, made.positions(6), series="1.2.3", change=odd)
    made.make_series(tmp_path, block, made.positions(6), series="1.2.4")
    series = list_series(tmp_path)
    assert "head" in series[0].description
    volume = read_dicom(tmp_path, choose=["1.2.3"])
    with pytest.raises(AmbiguousImage) as caught:
        read_dicom(tmp_path)
    told = repr([series, volume.notes, volume.source, volume.acquisition]) + str(caught.value) + caplog.text
    assert_anonymous(told + "".join(capfd.readouterr()))


@pytest.mark.parametrize(
    "content", [b"", b"plain text, long enough to be looked at" * 20, b"\0" * 128 + b"DICM" + b"\1" * 50]
)
def test_files_that_are_no_dicom_are_refused(content, tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(MedtError):
        read_dicom(path)
    assert list_series(tmp_path) == ()


def test_a_preamble_that_is_a_tiff_still_stands_before_dicom(block, tmp_path):
    path = made.make_series(tmp_path, block[:1], made.positions(1))[0]
    path.write_bytes(b"II*\0".ljust(128, b"\0") + path.read_bytes()[128:])
    assert kind_of(path) == "DICOM"
    assert kind_of(path.rename(tmp_path / "both.tif")) == "TIFF"


def test_any_cut_of_a_file_gives_a_sentence_or_the_image(block, tmp_path):
    path = made.make_series(tmp_path, block[:1], made.positions(1))[0]
    whole = path.read_bytes()
    for end in range(0, len(whole), 23):
        path.write_bytes(whole[:end])
        with pytest.raises(MedtError) as caught:
            read_dicom(path)
        assert_anonymous(str(caught.value))


# ---------------------------------------------------------------------------------------------------------- real files


def test_a_real_series_is_that_of_gdcm(data_folder):
    folder = data_folder / "formats" / "dicom_seg_dcmqi" / "ct-3slice"
    if not folder.is_dir():
        pytest.skip("needs formats/dicom_seg_dcmqi")
    volume = read_dicom(folder)
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    assert np.array_equal(volume.array[0], sitk.GetArrayFromImage(theirs))
    spacing, origin, direction = volume.geometry.to_itk()
    assert np.allclose(spacing, theirs.GetSpacing())
    assert np.allclose(origin, theirs.GetOrigin())
    assert np.allclose(direction, theirs.GetDirection())


def test_a_real_compressed_series_without_identifiers_is_read(data_folder):
    folder = data_folder / "formats" / "totalsegmentator_ct_mr" / "example_ct_dicom"
    if not folder.is_dir():
        pytest.skip("needs formats/totalsegmentator_ct_mr")
    (series,) = list_series(folder)
    assert series.shape == (20, 512, 512)
    volume = read_dicom(folder)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(volume.acquisition.files))
    assert np.array_equal(volume.array[0], theirs)
    assert volume.geometry.spacing == pytest.approx((2, 0.9765625, 0.9765625))


def test_a_film_is_asked_about(tmp_path):
    path = PYDICOM_FILES / "examples_ybr_color.dcm"
    if not path.exists():
        pytest.skip("pydicom came without its test files")
    with pytest.raises(AmbiguousImage, match="30 frames"):
        read_dicom(path)
    moment = read_dicom(path, choose=["t=3"])
    assert moment.is_rgb
    assert read_dicom(path, choose=["as slices"]).array.shape == (3, 30, *moment.spatial_shape)
    assert os.fspath(path) == moment.source


def test_damage_anywhere_in_a_series_is_a_sentence_or_harmless(block, tmp_path, rng):
    paths = made.make_series(tmp_path, block, made.positions(6))
    whole = paths[1].read_bytes()
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[int(rng.integers(132, len(whole)))] = int(rng.integers(256))
        paths[1].write_bytes(damaged)
        list_series(tmp_path)
        with contextlib.suppress(MedtError):
            assert read_dicom(tmp_path).array.size
