from __future__ import annotations

import dataclasses
import logging
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from napari_medt.core import AxisMap, BadImage, Geometry, LabelMap, Prediction, Volume  # noqa: E402
from napari_medt.io.dicom_codes import code_for  # noqa: E402
from napari_medt.io.dicom_in import read_dicom  # noqa: E402
from napari_medt.io.dicom_seg_in import read_dicom_seg  # noqa: E402
from napari_medt.io.dicom_seg_out import write_dicom_seg  # noqa: E402
from tests.io import dicom_made as made  # noqa: E402

ORIENTATIONS = {
    "axial": made.AXIAL,
    "coronal": made.CORONAL,
    "sagittal": made.SAGITTAL,
    "turned": made.TURNED,
    "oblique": made.OBLIQUE,
}


@pytest.fixture
def block(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3000, (6, 5, 7)).astype(np.int16)


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    """Three labels without symmetry; the last slice is empty."""
    array = rng.integers(0, 4, (6, 5, 7)).astype(np.uint8)
    array[5] = 0
    return array


def scan(folder: Path, block: np.ndarray, *, orientation: tuple[float, ...] = made.AXIAL, **more: object) -> Volume:
    made.make_series(folder, block, made.positions(6, orientation=orientation), orientation=orientation, **more)
    return read_dicom(folder)


def values_by_place(mask: LabelMap | Volume) -> dict[tuple[float, ...], float]:
    """Values that are not zero, by their place in the patient to a tenth of a mm."""
    array = mask.array[0] if mask.array.ndim == 4 else mask.array
    where = np.argwhere(array)
    places = np.round(mask.geometry.position(where), 1) + 0.0
    return {tuple(place): float(array[tuple(index)]) for place, index in zip(places.tolist(), where, strict=True)}


# ----------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_mask_comes_back_voxel_by_voxel_on_its_source_and_without_it(name, block, labels, tmp_path):
    volume = scan(tmp_path / "s", block, orientation=ORIENTATIONS[name], order=[4, 2, 0, 1, 3, 5])
    given = LabelMap(labels, volume.geometry, {1: "liver", 2: "left kidney", 3: "thing"}, {2: (0.2, 0.4, 0.6)})
    path = write_dicom_seg(given, tmp_path / "m.dcm", source=volume)
    (found,) = read_dicom_seg(path, like=volume)
    assert np.array_equal(found.array, labels)
    assert found.geometry == volume.geometry
    assert found.names == given.names
    assert found.colours[2] == pytest.approx((0.2, 0.4, 0.6), abs=0.01)
    (alone,) = read_dicom_seg(path)
    assert values_by_place(alone) == values_by_place(found)
    assert len(alone.array) == 5  # the empty slice is not in the file


@pytest.mark.parametrize(("dtype", "value"), [(bool, 1), (np.uint32, 4_000_000_000), (np.int64, 300)])
def test_masks_of_any_whole_numbers_are_written(dtype, value, block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    mask = LabelMap((labels > 1).astype(dtype) * dtype(value), volume.geometry)
    (found,) = read_dicom_seg(write_dicom_seg(mask, tmp_path / "m.dcm", source=volume), like=volume)
    assert np.array_equal(found.array, labels > 1)
    assert found.names == {1: f"label {value}"}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_highdicom_finds_the_mask_in_the_same_place(name, block, labels, tmp_path):
    volume = scan(tmp_path / "s", block, orientation=ORIENTATIONS[name])
    path = write_dicom_seg(LabelMap(labels, volume.geometry), tmp_path / "m.dcm", source=volume)
    theirs = hd.seg.segread(path).get_volume(combine_segments=True)
    seen = {}
    for index in np.argwhere(theirs.array):
        lps = theirs.affine[:3, :3] @ index + theirs.affine[:3, 3]
        seen[tuple((np.round(lps[::-1], 1) + 0.0).tolist())] = float(theirs.array[tuple(index)])
    assert seen == values_by_place(LabelMap(labels, volume.geometry))


def test_each_frame_refers_to_the_file_that_lies_where_it_lies(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block, orientation=made.TURNED, order=[3, 5, 0, 1, 2, 4])
    seg = pydicom.dcmread(write_dicom_seg(labels, tmp_path / "m.dcm", source=volume))
    places = {}
    for file in volume.acquisition.files:
        header = pydicom.dcmread(file)
        places[header.SOPInstanceUID] = list(header.ImagePositionPatient)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == pytest.approx(places[source])


@pytest.mark.parametrize(
    ("order", "flips"), list(zip(permutations(range(3)), list(product((True, False), repeat=3))[:6], strict=True))
)
def test_axes_of_the_mask_in_any_order_and_direction_reach_the_right_slices(order, flips, block, labels, tmp_path):
    volume = scan(tmp_path / "s", block, orientation=made.OBLIQUE)
    axes = AxisMap(order, flips)
    geometry = volume.geometry.rearranged(axes, labels.shape)
    path = write_dicom_seg(LabelMap(axes.apply(labels), geometry), tmp_path / "m.dcm", source=volume)
    assert np.array_equal(read_dicom_seg(path, like=volume)[0].array, labels)
    turned = dataclasses.replace(volume, array=axes.apply(volume.array), geometry=geometry)
    assert np.array_equal(read_dicom_seg(path, like=turned)[0].array, axes.apply(labels))


def test_a_part_of_the_image_is_enough(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    part = LabelMap(labels[1:4, 2:5, 1:6], volume.geometry.part((1, 2, 1)))
    (found,) = read_dicom_seg(write_dicom_seg(part, tmp_path / "m.dcm", source=volume), like=volume)
    expected = np.zeros_like(labels)
    expected[1:4, 2:5, 1:6] = labels[1:4, 2:5, 1:6]
    assert np.array_equal(found.array, expected)


def test_a_tilted_scan_and_one_with_a_filled_gap_keep_their_slices(block, labels, tmp_path):
    made.make_series(tmp_path / "t", block, made.positions(6, step=(0, -0.8, 3)))
    tilted = read_dicom(tmp_path / "t")
    (found,) = read_dicom_seg(write_dicom_seg(labels, tmp_path / "m.dcm", source=tilted), like=tilted)
    assert np.array_equal(found.array, labels)
    made.make_series(tmp_path / "g", block, made.positions(6))[2].unlink()
    filled = read_dicom(tmp_path / "g", choose=["fill gaps"])
    (found,) = read_dicom_seg(write_dicom_seg(labels, tmp_path / "m.dcm", source=filled), like=filled)
    assert np.array_equal(found.array[[0, 1, 3, 4, 5]], labels[[0, 1, 3, 4, 5]])
    assert not found.array[2].any()


def test_overlapping_structures_come_back_in_as_few_layers_as_can_be(block, tmp_path):
    volume = scan(tmp_path / "s", block)
    maps = []
    for label, rows in ((1, slice(0, 3)), (2, slice(2, 5)), (3, slice(3, 5))):
        array = np.zeros((6, 5, 7), np.uint8)
        array[1:3, rows] = label
        maps.append(LabelMap(array, volume.geometry, {label: f"part {label}"}))
    found = read_dicom_seg(write_dicom_seg(maps, tmp_path / "m.dcm", source=volume), like=volume)
    assert [sorted(one.names) for one in found] == [[1, 3], [2]]
    assert np.array_equal(found[0].array, maps[0].array + maps[2].array)
    assert np.array_equal(found[1].array, maps[1].array)


def test_fractions_stay_fractions(block, tmp_path, rng):
    volume = scan(tmp_path / "s", block)
    shares = (rng.integers(0, 256, (6, 5, 7)) / 255).astype(np.float32)
    given = LabelMap(shares, volume.geometry, {1: "lesion"}, fraction=True)
    (found,) = read_dicom_seg(write_dicom_seg(given, tmp_path / "m.dcm", source=volume), like=volume)
    assert found.fraction
    assert found.names == {1: "lesion"}
    assert np.allclose(found.array, shares, atol=0.5 / 255)


def test_enhanced_files_and_pictures_carry_masks(block, labels, tmp_path):
    places = made.positions(6, orientation=made.OBLIQUE)
    shuffled = [3, 1, 0, 5, 4, 2]
    path = made.make_enhanced(tmp_path / "e.dcm", block[shuffled], places[shuffled], orientations=[made.OBLIQUE] * 6)
    volume = read_dicom(path)
    mask = write_dicom_seg(labels, tmp_path / "m.dcm", source=volume)
    assert np.array_equal(read_dicom_seg(mask, like=volume)[0].array, labels)
    for frame in pydicom.dcmread(mask).PerFrameFunctionalGroupsSequence:
        number = int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        at = list(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert at == pytest.approx(places[shuffled[number - 1]].tolist(), abs=1e-4)
    made.make_series(tmp_path / "x", block[:1], None, modality="DX", frame_of_reference="")
    picture = read_dicom(tmp_path / "x")
    mask = write_dicom_seg(labels[0], tmp_path / "m.dcm", source=picture)
    assert np.array_equal(read_dicom_seg(mask, like=picture)[0].array, labels[0])
    assert np.array_equal(read_dicom_seg(mask)[0].array, labels[0])


def test_a_mask_of_another_grid_keeps_its_own_and_says_so(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    path = write_dicom_seg(labels, tmp_path / "m.dcm", source=volume)
    other = Volume(block[None], Geometry.from_spacing((2.0, 1, 1), units="mm", frame="patient"))
    (found,) = read_dicom_seg(path, like=other)
    assert values_by_place(found) == values_by_place(LabelMap(labels, volume.geometry))
    assert any("keeps its own" in note for note in found.notes)


# -------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("mandible", "91609006", None),
        ("Parotid_left", "45289007", "Left"),
        ("Spinal cord", "2748008", None),
        ("brainstem", "119238007", None),
        ("OpticNerve_R", "18234004", "Right"),
        ("left ventricle", "87878005", None),
        ("kidneys", "64033007", None),
        ("nuclei", "84640000", None),
        ("tumour", "108369006", None),
        ("class 3", "85756007", None),
        ("left", "85756007", None),
        ("", "85756007", None),
    ],
)
def test_names_become_codes(name, code, side):
    found = code_for(name)
    assert found.kind.value == code
    assert (found.side and found.side.meaning) == side


@pytest.mark.parametrize("name", [made.NAME, "Geheimrat", "Xaver Geheimrat " * 6])
def test_patient_and_study_go_into_the_file_and_nowhere_else(name, block, labels, tmp_path, caplog, capfd, recwarn):
    def change(data: pydicom.Dataset, index: int) -> None:
        data.PatientName = data.ReferringPhysicianName = name

    volume = scan(tmp_path / "s", block, change=change)
    recwarn.clear()
    capfd.readouterr()
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    path = write_dicom_seg(
        LabelMap(labels, volume.geometry, {1: "Leber, groß"}),
        tmp_path / "m.dcm",
        source=volume,
        algorithm=("Net", "2.1"),
    )
    data, source = pydicom.dcmread(path), pydicom.dcmread(volume.acquisition.files[0])
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert data[keyword].value == source[keyword].value
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    first = data.SegmentSequence[0]
    assert first.SegmentLabel == "Leber, groß"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "2.1"
    found = read_dicom_seg(path)
    told = caplog.text + "".join(capfd.readouterr()) + "".join(str(w.message) for w in recwarn) + repr(found[0].notes)
    for secret in (*made.NAME.split("^"), made.NUMBER):
        assert secret.lower() not in told.lower()


def test_predictions_names_and_codes_are_taken(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    prediction = Prediction(labels, volume.geometry, ("background", "liver", "spleen", "mass"))
    write_dicom_seg(prediction, tmp_path / "m.dcm", source=volume, names={2: "milt"}, codes={2: code_for("spleen")})
    segments = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["liver", "milt", "mass"]
    assert segments[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Spleen"


def test_labels_are_numbered_anew_and_an_empty_mask_is_a_mask(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    sparse = np.array([0, 5, 300, 7], np.uint16)[labels]
    (found,) = read_dicom_seg(write_dicom_seg(sparse, tmp_path / "m.dcm", source=volume), like=volume)
    assert found.names == {1: "label 5", 2: "label 7", 3: "label 300"}
    assert np.array_equal(found.array, np.array([0, 1, 3, 2])[labels])
    (empty,) = read_dicom_seg(write_dicom_seg(labels * 0, tmp_path / "m.dcm", source=volume), like=volume)
    assert not empty.array.any()


# --------------------------------------------------------------------------------------------------------------- faults


def test_what_cannot_be_written_leaves_the_old_file(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    path = tmp_path / "m.dcm"
    path.write_bytes(b"old")
    plain = Volume(block[None], volume.geometry)
    lost = dataclasses.replace(volume, geometry=volume.geometry.part((0.5, 0, 0)))
    for mask, source, said in (
        (labels, None, "refers to the DICOM files"),
        (labels, plain, "refers to the DICOM files"),
        (labels, lost, "does not lie on the grid"),
        (labels[0], volume, "one for each voxel"),
        (labels.astype(np.float32), volume, "whole numbers"),
        (labels.astype(np.int16) - 1, volume, "negative"),
    ):
        with pytest.raises(BadImage, match=said):
            write_dicom_seg(mask, path, source=source)
    assert path.read_bytes() == b"old"


def test_a_source_without_identifiers_is_refused_by_name_of_what_it_lacks(block, labels, tmp_path):
    def change(data: pydicom.Dataset, index: int) -> None:
        data.StudyInstanceUID = ""

    volume = scan(tmp_path / "s", block, change=change)
    with pytest.raises(BadImage, match="lack StudyInstanceUID,"):
        write_dicom_seg(labels, tmp_path / "m.dcm", source=volume)


def test_damaged_segmentations_are_one_sentence(block, labels, tmp_path):
    volume = scan(tmp_path / "s", block)
    path = write_dicom_seg(labels, tmp_path / "m.dcm", source=volume)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 4, 301):
        path.write_bytes(whole[:end])
        with pytest.raises(BadImage) as caught:
            read_dicom_seg(path)
        assert made.NAME.split("^")[0] not in str(caught.value)
    with pytest.raises(BadImage, match="no DICOM segmentation"):
        read_dicom_seg(Path(volume.acquisition.files[0]))
    path.write_bytes(whole)
    with pytest.raises(BadImage, match="is a segmentation and no image"):
        read_dicom(path)


# ----------------------------------------------------------------------------------------------------------- real files


@pytest.fixture(scope="module")
def real(data_folder: Path) -> Path:
    folder = data_folder / "formats"
    if not (folder / "dicom_highdicom").is_dir() or not (folder / "dicom_seg_dcmqi").is_dir():
        pytest.skip("needs formats/dicom_highdicom and formats/dicom_seg_dcmqi")
    return folder


def test_a_segmentation_of_dcmqi_is_the_mask_it_was_made_from(real):
    sitk = pytest.importorskip("SimpleITK")
    folder = real / "dicom_seg_dcmqi"
    volume = read_dicom(folder / "ct-3slice")
    (found,) = read_dicom_seg(folder / "liver.dcm", like=volume)
    assert np.array_equal(found.array > 0, sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "liver_seg.nrrd"))) > 0)
    assert found.geometry == volume.geometry
    assert found.names == {1: "Liver"}
    assert found.colours[1] == pytest.approx((221 / 255, 130 / 255, 101 / 255), abs=0.01)
    (alone,) = read_dicom_seg(folder / "liver.dcm")
    assert values_by_place(alone) == values_by_place(found)


@pytest.mark.parametrize(
    "name", ["binary", "binary_overlap", "binary_single_frame", "true_fractional", "binary_fractional"]
)
def test_segmentations_of_highdicom_are_as_its_own_reader_gives_them(name, real):
    path = real / "dicom_highdicom" / f"seg_image_ct_{name}.dcm"
    seg = hd.seg.segread(path)
    theirs = seg.get_volume(combine_segments=False)
    found = read_dicom_seg(path)
    assert len(found) == {"binary_overlap": 2}.get(name, 1)
    for number, one in enumerate(found):
        expected = {}
        for index in np.argwhere(theirs.array[..., number]):
            lps = theirs.affine[:3, :3] @ index + theirs.affine[:3, 3]
            expected[tuple((np.round(lps[::-1], 1) + 0.0).tolist())] = float(theirs.array[(*index, number)])
        ours = {
            place: float(value > 0 and (value if one.fraction else 1)) for place, value in values_by_place(one).items()
        }
        assert ours == pytest.approx(expected)
        assert one.fraction == ("fractional" in name)


@pytest.mark.parametrize(
    "name", ["control", "control_labelmap", "control_labelmap_palette_color", "numbers", "dots", "dots_tiled_full"]
)
def test_tiled_segmentations_make_one_picture(name, real):
    path = real / "dicom_highdicom" / f"seg_image_sm_{name}.dcm"
    (found,) = read_dicom_seg(path)
    theirs = hd.seg.segread(path).get_total_pixel_matrix(combine_segments=True)
    assert found.array.shape == (50, 50)
    assert np.array_equal(found.array, theirs)
    assert bool(found.colours) == ("palette" in name)
