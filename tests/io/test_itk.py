"""MetaImage, NRRD and Slicer's segmentations, as ITK and Slicer write them."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_medt.core import AmbiguousImage, BadImage, Geometry, LabelMap, Volume
from napari_medt.io import read, read_labels, read_segmentation, write
from tests.io.sentences import one_sentence

PLACE = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"
LPS = f"space: left-posterior-superior\n{PLACE}"


def nrrd(path: Path, array: np.ndarray, fields: str, *, sizes: str = "", encoding: str = "raw") -> Path:
    names = {"int16": "short", "uint8": "uchar", "float32": "float"}
    sizes = sizes or " ".join(map(str, reversed(array.shape)))
    head = f"NRRD0004\ntype: {names[array.dtype.name]}\ndimension: {len(sizes.split())}\nsizes: {sizes}\n"
    head += f"endian: little\nencoding: {encoding}\n{fields}\n\n"
    data = gzip.compress(array.tobytes()) if encoding == "gzip" else array.tobytes()
    path.write_bytes(head.encode() + data)
    return path


def meta(path: Path, data: bytes, fields: str = "", *, size: str = "7 6 5", place: str = "LOCAL") -> Path:
    head = f"ObjectType = Image\nNDims = {len(size.split())}\nBinaryData = True\n{fields}DimSize = {size}\n"
    path.write_bytes(f"{head}ElementType = MET_SHORT\nElementDataFile = {place}\n".encode() + data)
    return path


@pytest.fixture
def scan(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1000, 2000, (5, 6, 7)).astype(np.int16)


def test_our_channels_keep_their_names(tmp_path):
    volume = Volume(np.zeros((2, 3, 4, 5), np.float32), Geometry.from_spacing((1, 1, 1)), ("T1: é", "T2"))
    assert read(write(volume, tmp_path / "a.nrrd")).channel_names == volume.channel_names
    assert sitk.ReadImage(str(tmp_path / "a.nrrd")).GetNumberOfComponentsPerPixel() == 2


# ---------------------------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize("name", ["brain1", "breast1", "prostate_phantom_subvolume"])
def test_real_scans_lie_where_itk_says(data_folder, tmp_path, name):
    folder = data_folder / "formats" / "nrrd_pyradiomics"
    paths = sorted(folder.glob(f"{name}*.nrrd")) if folder.is_dir() else []
    if not paths:
        pytest.skip("needs the NRRD files of pyradiomics")
    for path in paths:
        volume, image = read(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
        assert volume.notes == ()
        corner = tuple(size - 1 for size in volume.spatial_shape)
        for index in ((0, 0, 0), corner):
            lps = image.TransformIndexToPhysicalPoint(index[::-1])
            np.testing.assert_allclose(volume.geometry.position(index)[::-1], lps, atol=1e-6)
        if "label" in path.name:
            labels, geometry = read_labels(path)
            for ending in (".seg.nrrd", ".mha", ".nii.gz", ".ome.tif"):
                (again,) = read_segmentation(write(LabelMap(labels, geometry, {1: "lesion"}), tmp_path / f"a{ending}"))
                np.testing.assert_array_equal(again.array, labels)
                assert again.geometry.close_to(volume.geometry, shape=labels.shape, tolerance=1e-4)


def test_real_masks_drawn_on_dicom(data_folder):
    folder = data_folder / "formats" / "dicom_seg_dcmqi"
    if not folder.is_dir():
        pytest.skip("needs the segmentations of dcmqi")
    image = read(folder / "ct-3slice")
    for name in ("heart_seg", "liver_seg", "spine_seg"):
        (mask,) = read_segmentation(folder / f"{name}.nrrd", like=image)
        assert mask.array.any()
        assert mask.geometry.close_to(image.geometry, shape=image.spatial_shape)


# ---------------------------------------------------------------------------------------------------------------- NRRD


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_every_space_becomes_the_patients(tmp_path, scan, space, signs):
    volume = read(nrrd(tmp_path / "a.nrrd", scan, f"space: {space}\n{PLACE}"))
    assert volume.geometry.frame == "patient"
    np.testing.assert_allclose(volume.geometry.position((0, 0, 0))[::-1], np.multiply(signs, (10, 20, 30)))
    np.testing.assert_allclose(volume.geometry.position((1, 1, 1))[::-1], np.multiply(signs, (12, 23, 34)))
    assert volume.notes == ()


@pytest.mark.parametrize(
    "fields", ["spacings: 2 3 4", f"space dimension: 3\n{PLACE}", f"space: scanner-xyz\n{PLACE}", "content: x"]
)
def test_without_a_space_of_the_patient_left_and_right_are_unknown(tmp_path, scan, fields):
    volume = read(nrrd(tmp_path / "a.nrrd", scan, fields))
    assert volume.geometry.frame == "image"
    assert any("which side is left is unknown" in note for note in volume.notes)
    assert volume.geometry.units == ("px" if fields == "content: x" else "mm")
    assert volume.geometry.spacing == ((1, 1, 1) if fields == "content: x" else (4, 3, 2))


def test_micrometres_become_millimetres_in_a_patient(tmp_path, scan):
    volume = read(nrrd(tmp_path / "a.nrrd", scan, f'{LPS}\nspace units: "um" "um" "um"'))
    np.testing.assert_allclose(volume.geometry.spacing, (4e-3, 3e-3, 2e-3))
    assert volume.geometry.units == "mm"


def test_channels_first_or_last_and_colour(tmp_path, rng):
    array = rng.integers(0, 99, (5, 6, 7, 2)).astype(np.int16)
    kinds = f"space: left-posterior-superior\nkinds: vector domain domain domain\n{PLACE.replace(': (2', ': none (2')}"
    np.testing.assert_array_equal(read(nrrd(tmp_path / "a.nrrd", array, kinds)).array, np.moveaxis(array, -1, 0))
    last = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    kinds = f"space: left-posterior-superior\nkinds: domain domain domain list\n{PLACE.replace('4)', '4) none', 1)}"
    np.testing.assert_array_equal(read(nrrd(tmp_path / "b.nrrd", last, kinds)).array, last)
    colour = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    picture = read(nrrd(tmp_path / "c.nrrd", colour, "kinds: RGB-color domain domain"))
    assert picture.is_rgb
    np.testing.assert_array_equal(picture.array, np.moveaxis(colour, -1, 0))


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_a_fourth_axis_is_asked_about(tmp_path, rng, kind):
    film = rng.integers(0, 99, (3, 5, 6, 7)).astype(np.int16)
    if kind == "nrrd":
        path = nrrd(tmp_path / "a.nrrd", film, "spacings: 1 2 3 4")
    else:
        path = meta(tmp_path / "a.mha", film.tobytes(), size="7 6 5 3")
    with pytest.raises(AmbiguousImage) as caught:
        read(path)
    assert [choice.key for choice in caught.value.choices] == ["channels", "t=0", "t=1", "t=2"]
    np.testing.assert_array_equal(read(path, choose="t=1").array[0], film[1])
    np.testing.assert_array_equal(read(path, choose="channels").array, film)


# -------------------------------------------------------------------------------------------------- Slicer's segments


def test_layers_of_a_segmentation_may_overlap(tmp_path):
    array = np.zeros((2, 3, 4, 2), np.uint8)
    array[0, ..., 0], array[1, ..., 0], array[:, 1, :, 1] = 1, 2, 1
    fields = f"space: left-posterior-superior\nkinds: list domain domain domain\n{PLACE.replace(': (2', ': none (2')}\n"
    for number, (name, value, layer) in enumerate((("left lung", 1, 0), ("right lung", 2, 0), ("tumour", 1, 1))):
        fields += f"Segment{number}_ID:=S{number}\nSegment{number}_Name:={name}\nSegment{number}_Color:=1 0.5 0\n"
        fields += f"Segment{number}_LabelValue:={value}\nSegment{number}_Layer:={layer}\n"
    path = nrrd(tmp_path / "a.seg.nrrd", array, fields.rstrip(), encoding="gzip")
    lungs, tumour = read_segmentation(path)
    assert lungs.names == {1: "left lung", 2: "right lung"}
    assert tumour.names == {1: "tumour"}
    assert tumour.colours == {1: (1, 0.5, 0)}
    np.testing.assert_array_equal(lungs.array, array[..., 0])
    np.testing.assert_array_equal(tumour.array, array[..., 1])
    again = read_segmentation(write([lungs, tumour], tmp_path / "b.seg.nrrd"))
    assert [mask.names for mask in again] == [lungs.names, tumour.names]
    assert [mask.colours for mask in again] == [lungs.colours, tumour.colours]
    np.testing.assert_array_equal([mask.array for mask in again], [lungs.array, tumour.array])
    assert again[0].geometry.close_to(lungs.geometry, shape=(2, 3, 4))
    with pytest.raises(BadImage, match=r"Masks that overlap need labels of their own in NIfTI"):
        write([lungs, tumour], tmp_path / "c.nii.gz")


def test_old_segmentations_have_a_layer_for_each_segment(tmp_path):
    array = np.zeros((2, 3, 4, 2), np.uint8)
    array[0, ..., 0] = array[..., 2, 1] = 1
    fields = f"space: left-posterior-superior\nkinds: list domain domain domain\n{PLACE.replace(': (2', ': none (2')}\n"
    fields += "Segment0_ID:=A\nSegment0_Name:=liver\nSegment1_ID:=B\nSegment1_Name:=vein"
    masks = read_segmentation(nrrd(tmp_path / "a.seg.nrrd", array, fields))
    assert [mask.names for mask in masks] == [{1: "liver"}, {1: "vein"}]


def test_what_itk_sees_of_our_segmentation(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint16)
    labels[1, 2, 3], labels[3, 4, 5] = 300, 7
    geometry = Geometry.from_spacing((2, 0.5, 0.25), origin=(-7, 8, 9), units="mm", frame="patient")
    path = write(LabelMap(labels, geometry, {7: "aorta\nabdominalis"}), tmp_path / "a.seg.nrrd")
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels)
    assert image.GetSpacing() == (0.25, 0.5, 2)
    assert image.GetOrigin() == (9, 8, -7)
    told = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
    assert told["Segment0_Name"] == "aorta abdominalis"
    assert told["Segment0_LabelValue"] == "7"
    assert told["Segment1_LabelValue"] == "300"
    assert told["Segment1_Layer"] == "0"
    assert told["Segment0_Extent"] == "0 5 0 4 0 3"


# ----------------------------------------------------------------------------------------------------------- MetaImage


def test_data_beside_the_header(tmp_path, scan):
    matrix = "TransformMatrix = 0 1 0 1 0 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 2 3 4\n"
    path = meta(tmp_path / "a.mhd", b"", matrix, place="a.raw")
    with pytest.raises(BadImage, match=r"pixels of a\.mhd are missing; put a\.raw beside it"):
        read(path)
    (tmp_path / "a.raw").write_bytes(scan.tobytes())
    volume = read(path)
    np.testing.assert_array_equal(volume.array[0], scan)
    np.testing.assert_allclose(volume.geometry.position((0, 0, 1))[::-1], (1, 4, 3))
    assert volume.geometry.frame == "patient"


def test_without_a_direction_left_and_right_are_unknown(tmp_path, scan):
    volume = read(meta(tmp_path / "a.mha", scan.tobytes(), "ElementSpacing = 2 3 4\n"))
    assert volume.geometry.frame == "image"
    assert volume.geometry.spacing == (4, 3, 2)
    assert any("which side is left" in note for note in volume.notes)


# -------------------------------------------------------------------------------------------------------- broken files


def whole_files(folder: Path, array: np.ndarray) -> list[Path]:
    packed = zlib.compress(array.tobytes())
    size = " ".join(map(str, reversed(array.shape)))
    return [
        nrrd(folder / "a.nrrd", array, LPS),
        nrrd(folder / "b.nrrd", array, LPS, encoding="gzip"),
        meta(folder / "a.mha", array.tobytes(), size=size),
        meta(folder / "b.mha", packed, f"CompressedData = True\nCompressedDataSize = {len(packed)}\n", size=size),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_file_cut_off_is_one_sentence(tmp_path, rng, number, share, capfd):
    path = whole_files(tmp_path, rng.integers(0, 2000, (30, 30, 30)).astype(np.int16))[number]
    assert read(path).array.shape == (1, 30, 30, 30)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadImage) as caught:
        read(path)
    assert "damaged or incomplete" in one_sentence(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [1, 3])
def test_a_changed_bit_in_packed_data_is_found(tmp_path, rng, number, capfd):
    path = whole_files(tmp_path, rng.integers(0, 2000, (30, 30, 30)).astype(np.int16))[number]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadImage) as caught:
        read(path)
    one_sentence(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "fields",
    [
        "space: left-posterior-superior\nspace directions: (nan,0,0) (0,3,0) (0,0,4)\nspace origin: (0,0,0)",
        "space: left-posterior-superior\nspace directions: (0,0,0) (0,3,0) (0,0,4)\nspace origin: (0,0,0)",
        "space: left-posterior-superior\nspace directions: (2,0,0) (2,0,0) (0,0,4)\nspace origin: (0,0,0)",
        "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0)",
        "encoding: unheard-of",
        "spacings: 0 0 0",
    ],
)
def test_a_place_that_makes_no_sense_is_one_sentence(tmp_path, scan, fields):
    with pytest.raises(BadImage) as caught:
        read(nrrd(tmp_path / "a.nrrd", scan, fields))
    one_sentence(caught.value)


def test_sizes_and_units_that_are_not_clear_are_told(tmp_path, scan):
    packed = scan.tobytes()
    for path, said in (
        (nrrd(tmp_path / "a.nrrd", scan, f'{LPS}\nspace units: "um" "um" "mm"'), "units of length"),
        (nrrd(tmp_path / "b.nrrd", scan, "spacings: 2 nan 3"), "along every axis"),
        (meta(tmp_path / "a.mha", packed, "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"), "along every axis"),
    ):
        assert any(said in note for note in read(path).notes)


def test_units_of_a_film(tmp_path, scan):
    fields = 'space: left-posterior-superior-time\nkinds: domain domain domain time\nspace units: "um" "um" "um" "s"\n'
    fields += "space directions: (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)\nspace origin: (0,0,0,0)"
    volume = read(nrrd(tmp_path / "a.nrrd", np.stack([scan, scan + 1]), fields), choose="t=1")
    np.testing.assert_array_equal(volume.array[0], scan + 1)
    assert volume.geometry.spacing == pytest.approx((0.004, 0.003, 0.002))


@pytest.mark.parametrize("beside", [False, True])
def test_nrrd_packed_by_bzip2(tmp_path, scan, beside):
    path = nrrd(tmp_path / ("a.nhdr" if beside else "a.nrrd"), scan, LPS, encoding="bzip2")
    head, packed = path.read_bytes()[: -scan.nbytes], bz2.compress(scan.tobytes())
    data = tmp_path / "a b.bz2" if beside else path
    path.write_bytes(head[:-1] + b"data file: a b.bz2\n\n" if beside else head + packed)
    if beside:
        with pytest.raises(BadImage, match="put a b.bz2 beside it"):
            read(path)
        data.write_bytes(packed)
    np.testing.assert_array_equal(read(path).array[0], scan)
    assert read(path).geometry.spacing == (4, 3, 2)
    assert read(path).source == str(path)
    data.write_bytes(data.read_bytes()[:-20])
    with pytest.raises(BadImage, match="damaged or incomplete NRRD"):
        read(path)


@pytest.mark.parametrize("place", ["LIST\ns1.raw\ns2.raw\ns3.raw\ns4.raw\ns5.raw", "s%d.raw 1 5 1", "s%d.raw"])
def test_slices_in_files_of_their_own(tmp_path, scan, place, capfd):
    for number, plane in enumerate(scan, 1):
        (tmp_path / f"s{number}.raw").write_bytes(plane.tobytes())
    path = meta(tmp_path / "a.mhd", b"", place=place)
    np.testing.assert_array_equal(read(path).array[0], scan)
    (tmp_path / "s3.raw").write_bytes(b"12")
    with pytest.raises(BadImage, match="some of its pixels are missing"):
        read(path)
    (tmp_path / "s3.raw").unlink()
    with pytest.raises(BadImage, match="put s3.raw beside it"):
        read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["NDims = 3", "DimSize = 7 6 5", "ElementType = MET_SHORT", "ElementDataFile = LOCAL"])
def test_a_header_with_a_line_missing(tmp_path, scan, line, capfd):
    path = meta(tmp_path / "a.mha", scan.tobytes())
    path.write_bytes(path.read_bytes().replace(f"{line}\n".encode(), b"Comment = NDims\n"))
    with pytest.raises(BadImage) as caught:
        read(path)
    assert f"no {line.split()[0]}" in one_sentence(caught.value)
    assert capfd.readouterr() == ("", "")


def test_memory_that_runs_out_is_no_damage(tmp_path, scan, monkeypatch):
    def full(self):
        raise RuntimeError("Failed to allocate memory for image.")

    monkeypatch.setattr(sitk.ImageFileReader, "Execute", full)
    with pytest.raises(BadImage, match="GB of memory"):
        read(nrrd(tmp_path / "a.nrrd", scan, LPS))


def test_too_many_axes(tmp_path):
    with pytest.raises(BadImage, match="5 axes"):
        read(nrrd(tmp_path / "a.nrrd", np.zeros((2, 2, 2, 2, 2), np.uint8), "spacings: 1 1 1 1 1"))
    with pytest.raises(BadImage, match="one axis only"):
        read(nrrd(tmp_path / "a.nrrd", np.zeros(2, np.uint8), "spacings: 1"))


def test_a_size_beyond_the_memory_is_refused_before_it_is_read(tmp_path, scan):
    with pytest.raises(BadImage) as caught:
        read(nrrd(tmp_path / "a.nrrd", scan, LPS, sizes="60000 60000 60000"))
    one_sentence(caught.value)
