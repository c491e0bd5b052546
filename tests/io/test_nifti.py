"""NIfTI as scanners, converters and careless programs write it."""

from __future__ import annotations

import gzip
import logging
import pickle
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from napari_medt.core import AmbiguousImage, BadImage, Geometry, LabelMap, Prediction, Volume
from napari_medt.io import read, read_labels, read_segmentation, write
from tests.io.sentences import one_sentence

AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xz", (8, -3), degrees=True).as_matrix() * (-0.7, 0.8, 2.5)
AFFINE[:3, 3] = 30, -20, 5


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = AFFINE, **fields: object) -> Path:
    """Write `(x, y, z, ...)` by nibabel, then set fields of the header as they are."""
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    if affine is not None and "sform_code" in fields:  # nibabel writes it anew
        patched(path, 252, struct.pack("<hh", fields["qform_code"], fields["sform_code"]))
    return path


def patched(path: Path, offset: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


@pytest.fixture
def scan(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1000, 2000, (7, 6, 5)).astype(np.int16)


# ---------------------------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize(
    "name",
    [
        "formats/sct_spinal_cord/t2.nii.gz",
        "formats/sct_spinal_cord/t2s.nii.gz",
        "formats/totalsegmentator_ct_mr/example_ct.nii.gz",
        "formats/totalsegmentator_ct_mr/example_mr_sm.nii.gz",
        "hippocampus_mri/images/hippocampus_003.nii.gz",
        "headneck_ct_openkbp/images/okbp_002.nii.gz",
    ],
)
def test_real_scans_lie_where_nibabel_and_itk_say(data_folder, tmp_path, name):
    path = data_folder / name
    if not path.is_file():
        pytest.skip(f"needs {name}")
    volume, image = read(path), nib.load(path)
    np.testing.assert_array_equal(volume.array[0], np.asarray(image.dataobj).T)
    assert volume.geometry.orientation[::-1] == "".join(nib.aff2axcodes(image.affine))
    by_itk = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), tuple(size - 1 for size in volume.spatial_shape)):
        lps = volume.geometry.position(index)[::-1]
        np.testing.assert_allclose(lps, by_itk.TransformIndexToPhysicalPoint(index[::-1]), atol=1e-3)
        np.testing.assert_allclose(lps * (-1, -1, 1), (image.affine @ [*index[::-1], 1])[:3], atol=1e-3)
    mask = np.asarray(volume.array[0] > volume.array.mean(), np.uint8)
    again = nib.load(write(LabelMap(mask, volume.geometry), tmp_path / "mask.nii.gz", source=volume))
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(again.dataobj).T, mask)
    assert int(again.header["sform_code"]) == int(image.header["sform_code"])
    assert int(again.header["qform_code"]) in (int(image.header["qform_code"]), int(image.header["sform_code"]))


def test_real_masks_are_masks(data_folder):
    labels, geometry = read_labels(data_folder / "hippocampus_mri" / "labels" / "hippocampus_001.nii.gz")
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2}
    image = read(data_folder / "hippocampus_mri" / "images" / "hippocampus_001.nii.gz")
    assert geometry.close_to(image.geometry, shape=labels.shape)


# --------------------------------------------------------------------------------------------------------------- forms


def test_forms_that_agree_need_no_question(tmp_path, scan):
    image = nib.Nifti1Image(scan, AFFINE)
    nearly = AFFINE.copy()
    nearly[:3, 3] += 0.01
    image.set_qform(nearly, 1)
    image.set_sform(AFFINE, 2)
    nib.save(image, tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.geometry.to_nifti(), AFFINE, atol=1e-6)
    assert volume.notes == ()


def test_forms_that_differ_are_asked_about(tmp_path, scan):
    moved = AFFINE.copy()
    moved[:3, 3] += 10
    image = nib.Nifti1Image(scan, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(moved, 4)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(AmbiguousImage, match=r"two ways where it lies, up to 17\.3 mm apart") as caught:
        read(tmp_path / "a.nii.gz")
    one_sentence(caught.value)
    assert [choice.key for choice in caught.value.choices] == ["sform", "qform"]
    assert "MNI" in caught.value.choices[0].title
    assert "scanner" in caught.value.choices[1].title
    for form, affine in (("sform", moved), ("qform", image.get_qform())):
        np.testing.assert_allclose(read(tmp_path / "a.nii.gz", choose=form).geometry.to_nifti(), affine, atol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [(2, 1.0), (3, 1e-3), (1, 1000.0), (0, 1.0)])
def test_positions_are_in_mm_whatever_the_unit(tmp_path, scan, unit, factor):
    path = save(tmp_path / "a.nii", scan, xyzt_units=unit)
    geometry = read(path).geometry
    assert geometry.units == "mm"
    np.testing.assert_allclose(geometry.to_nifti()[:3], AFFINE[:3] * factor, rtol=1e-5)


def test_without_a_form_left_and_right_are_unknown(tmp_path, scan):
    path = save(tmp_path / "a.nii", scan, np.diag([0.5, 0.6, 2, 1]), sform_code=0, qform_code=0, xyzt_units=2)
    volume = read(path)
    assert volume.geometry == Geometry(volume.geometry.affine, "mm", "image")
    np.testing.assert_allclose(volume.geometry.spacing, (2, 0.6, 0.5), rtol=1e-6)
    assert "which side is left is unknown" in volume.notes[0]
    chosen = read(path, choose="RAS")
    assert chosen.geometry.orientation == "SAR"
    assert read(path, choose="LAS").geometry.orientation == "SAL"


def test_without_form_and_unit(tmp_path, scan):
    plain = read(save(tmp_path / "a.nii", scan, np.eye(4), sform_code=0, qform_code=0, xyzt_units=0))
    assert plain.geometry.units == "px"
    sized = read(save(tmp_path / "b.nii", scan, np.diag([2, 2, 2, 1]), sform_code=0, qform_code=0, xyzt_units=0))
    assert sized.geometry.units == "mm"
    assert "without a unit; mm is taken" in sized.notes[0]
    micron = read(save(tmp_path / "c.nii", scan, np.diag([2, 2, 2, 1]), sform_code=0, qform_code=0, xyzt_units=3))
    assert micron.geometry.units == "um"
    assert micron.geometry.spacing == (2, 2, 2)


def test_a_position_that_is_not_a_number_is_refused_or_the_other_form_is_used(tmp_path, scan):
    path = save(tmp_path / "a.nii", scan)
    patched(path, 280, struct.pack("<f", np.nan))
    with pytest.raises(BadImage, match="position of a.nii in the patient is not finite"):
        read(path)
    patched(path, 280, struct.pack("<f", np.inf))
    with warnings.catch_warnings(action="error"), pytest.raises(BadImage, match="is not finite"):
        read(path)
    image = nib.Nifti1Image(scan, AFFINE)
    image.set_qform(AFFINE, 1)
    nib.save(image, path)
    patched(path, 280, struct.pack("<f", np.nan))
    volume = read(path)
    np.testing.assert_allclose(volume.geometry.spacing, np.linalg.norm(AFFINE[:3, :3], axis=0)[::-1], rtol=1e-5)
    assert "Only the qform" in volume.notes[0]


def test_a_size_of_zero_is_no_size(tmp_path, scan):
    zero = struct.pack("<f", 0)
    path = patched(save(tmp_path / "a.nii", scan, sform_code=0, qform_code=1), 84, zero)
    with pytest.raises(BadImage, match="cannot be computed"):
        read(path)
    path = patched(save(tmp_path / "b.nii", scan, sform_code=0, qform_code=0), 84, zero)
    assert read(path).geometry.units == "px"
    assert "no size of its voxels" in read(path).notes[0]
    flat = patched(save(tmp_path / "c.nii", scan[..., :1], sform_code=0, qform_code=1), 88, zero)
    assert read(flat).geometry.spacing[0] == 1  # of a single slice it says nothing


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "wanted"),
    [
        ("uint16", 1, -1024, "int32"),
        ("uint8", 1, -1024, "int16"),
        ("int16", 0, 7, "int16"),
        ("int16", np.nan, 7, "int16"),
        ("int16", 0.5, 0, "float32"),
        ("int32", 0.1, 3, "float64"),
        ("float32", 2, 1, "float32"),
    ],
)
def test_values_are_scaled_as_the_file_says(tmp_path, rng, dtype, slope, inter, wanted):
    raw = rng.integers(0, 200, (5, 4, 3)).astype(dtype)
    path = save(tmp_path / "a.nii", raw)
    patched(path, 112, struct.pack("<ff", slope, inter))
    array = read(path).array
    assert array.dtype == wanted
    scaled = slope not in (0,) and np.isfinite(slope)
    np.testing.assert_allclose(array[0], raw.T.astype(float) * slope + inter if scaled else raw.T, rtol=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
def test_every_byte_order_and_version(tmp_path, scan, order, kind):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(scan.dtype.newbyteorder(order))
    image = kind(scan, AFFINE, header)
    path = tmp_path / ("a.img" if kind is nib.Nifti1Pair else "a.nii")
    nib.save(image, path)
    for place in (path, path.with_suffix(".hdr")) if kind is nib.Nifti1Pair else (path,):
        volume = read(place)
        np.testing.assert_array_equal(volume.array[0], scan.T)
        assert volume.array.dtype == np.int16
        np.testing.assert_allclose(volume.geometry.to_nifti(), AFFINE, atol=1e-6)


def test_analyze_does_not_know_left_from_right(tmp_path, scan):
    nib.save(nib.AnalyzeImage(scan, np.diag([-2, 2, 3, 1])), tmp_path / "a.img")
    volume = read(tmp_path / "a.hdr")
    np.testing.assert_array_equal(volume.array[0], scan.T)
    assert volume.geometry.spacing == (3, 2, 2)
    assert volume.geometry.frame == "image"
    assert any("which side is left is unknown" in note for note in volume.notes)


def test_colours(tmp_path, rng):
    colours = rng.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    packed = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(packed, AFFINE), tmp_path / "a.nii.gz")
    volume = read(tmp_path / "a.nii.gz")
    assert volume.is_rgb
    np.testing.assert_array_equal(volume.array, colours.transpose(3, 2, 1, 0))
    again = nib.load(write(volume, tmp_path / "b.nii"))
    np.testing.assert_array_equal(np.asarray(again.dataobj), packed)


# ---------------------------------------------------------------------------------------------------------------- axes


def test_a_fourth_axis_is_asked_about(tmp_path, rng):
    film = rng.integers(0, 99, (4, 5, 6, 3), dtype=np.uint8)
    path = save(tmp_path / "a.nii.gz", film)
    with pytest.raises(AmbiguousImage, match="4 x 5 x 6 x 3") as caught:
        read(path)
    assert [choice.key for choice in caught.value.choices] == ["channels", "t=0", "t=1", "t=2"]
    np.testing.assert_array_equal(read(path, choose="t=2").array[0], film[..., 2].T)
    channels = read(path, choose=["channels"])
    assert channels.channel_names == ("channel 1", "channel 2", "channel 3")
    np.testing.assert_array_equal(channels.array, film.transpose(3, 2, 1, 0))
    masks = read_segmentation(path, choose="channels")
    assert len(masks) == 3
    np.testing.assert_array_equal(masks[1].array, film[..., 1].T)


def test_a_long_film_is_asked_about_in_one_readable_sentence(tmp_path):
    with pytest.raises(AmbiguousImage) as caught:
        read(save(tmp_path / "a.nii.gz", np.zeros((3, 3, 3, 400), np.uint8)))
    assert len(caught.value.choices) == 401
    assert "t=399" in one_sentence(caught.value)


def test_a_fifth_axis_holds_channels_unless_there_is_a_fourth(tmp_path, rng):
    field = rng.random((4, 5, 6, 1, 3)).astype(np.float32)
    volume = read(save(tmp_path / "a.nii", field, intent_code=1007))
    np.testing.assert_array_equal(volume.array, field[..., 0, :].transpose(3, 2, 1, 0))
    both = rng.random((4, 5, 6, 2, 3)).astype(np.float32)
    path = save(tmp_path / "b.nii", both)
    with pytest.raises(AmbiguousImage, match="film of 2 time points"):
        read(path)
    np.testing.assert_array_equal(read(path, choose="t=1").array, both[..., 1, :].transpose(3, 2, 1, 0))
    with pytest.raises(BadImage, match="more axes than one image or one scan"):
        read(save(tmp_path / "c.nii", np.zeros((2, 2, 2, 1, 2, 2), np.uint8)))


def test_two_axes(tmp_path, rng):
    flat = rng.integers(0, 99, (6, 5), dtype=np.uint8)
    volume = read(save(tmp_path / "a.nii", flat, np.diag([-0.5, -0.25, 1, 1])))
    np.testing.assert_array_equal(volume.array, flat.T[None])
    assert volume.geometry.spacing == (0.25, 0.5)
    tilted = read(save(tmp_path / "b.nii", flat, AFFINE))
    assert tilted.array.shape == (1, 1, 5, 6)
    np.testing.assert_allclose(tilted.geometry.to_nifti(), AFFINE, atol=1e-6)
    one_slice = read(save(tmp_path / "c.nii", flat[..., None], AFFINE))
    assert one_slice.array.shape == (1, 1, 5, 6)


# -------------------------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_a_file_cut_off_is_one_sentence(tmp_path, rng, ending, share):
    whole = save(tmp_path / f"whole{ending}", rng.integers(0, 2000, (30, 30, 30)).astype(np.int16)).read_bytes()
    path = tmp_path / f"cut{ending}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadImage) as caught:
        read(path)
    assert "damaged or incomplete NIfTI" in one_sentence(caught.value)


def test_a_changed_bit_in_a_packed_file_is_found(tmp_path, rng):
    path = save(tmp_path / "a.nii.gz", rng.integers(0, 2000, (30, 30, 30)).astype(np.int16))
    size = path.stat().st_size
    for offset in (size // 2, size - 6):  # in the voxels, and in the checksum
        content = bytearray(path.read_bytes())
        content[offset] ^= 4
        (tmp_path / "b.nii.gz").write_bytes(content)
        with pytest.raises(BadImage) as caught:
            read(tmp_path / "b.nii.gz")
        assert "damaged or incomplete" in one_sentence(caught.value)


def test_values_scaled_by_infinity_are_read_as_stored(tmp_path, scan):
    volume = read(patched(save(tmp_path / "a.nii", scan), 112, struct.pack("<f", np.inf)))
    np.testing.assert_array_equal(volume.array[0], scan.T)
    assert "infinity" in volume.notes[0]


def test_a_file_that_is_too_long_says_so(tmp_path, scan):
    path = save(tmp_path / "a.nii", scan)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert read(path).notes == ("The file is 100 bytes longer than its voxels",)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (40, struct.pack("<h", 9)),  # nine axes
        (42, struct.pack("<h", -5)),
        (42, struct.pack("<h", 0)),
        (70, struct.pack("<h", 77)),  # a type nobody knows
        (70, struct.pack("<h", 32)),  # complex
        (70, struct.pack("<h", 1)),  # bits
        (108, struct.pack("<f", np.nan)),
        (108, struct.pack("<f", 1e20)),
        (112, struct.pack("<ff", 1, np.inf)),
    ],
)
def test_a_header_that_makes_no_sense_is_one_sentence(tmp_path, scan, offset, data, capfd):
    path = patched(save(tmp_path / "a.nii", scan), offset, data)
    with pytest.raises(BadImage) as caught:
        read(path)
    one_sentence(caught.value)
    assert capfd.readouterr() == ("", "")


def test_noise_in_a_header_gives_an_image_or_a_sentence_and_nothing_on_the_console(tmp_path, scan, rng, caplog, capfd):
    whole = save(tmp_path / "a.nii", scan).read_bytes()
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            noisy = bytearray(whole)
            for at in rng.integers(0, 352, 4):
                noisy[at] = rng.integers(0, 256)
            (tmp_path / "b.nii").write_bytes(noisy)
            with suppress(BadImage):
                assert read(tmp_path / "b.nii").array.size
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_other_half_of_a_pair_is_missing(tmp_path, scan):
    nib.save(nib.Nifti1Pair(scan, AFFINE), tmp_path / "a.img")
    (tmp_path / "a.img").unlink()
    with pytest.raises(BadImage, match=r"voxels of a.hdr are missing; put a.img beside it"):
        read(tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "b.img")
    (tmp_path / "b.img").write_bytes(scan.tobytes())
    with pytest.raises(BadImage, match=r"header of b.img is missing; put b.hdr beside it"):
        read(tmp_path / "b.img")


def test_a_packed_pair(tmp_path, scan):
    nib.save(nib.Nifti1Pair(scan, AFFINE), tmp_path / "a.img.gz")
    for name in ("a.img.gz", "a.hdr.gz"):
        volume = read(tmp_path / name)
        np.testing.assert_array_equal(volume.array[0], scan.T)
        np.testing.assert_allclose(volume.geometry.to_nifti(), AFFINE, atol=1e-5)


def test_packed_files_that_are_something_else(tmp_path, scan):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"all is well " * 100))
    with pytest.raises(BadImage, match="named like a NIfTI but is none"):
        read(tmp_path / "a.nii.gz")
    (tmp_path / "a.nrrd.gz").write_bytes(gzip.compress(b"NRRD0004"))
    with pytest.raises(BadImage, match="unpack it first"):
        read(tmp_path / "a.nrrd.gz")


def test_voxels_never_begin_within_the_header(tmp_path, scan):
    path = patched(save(tmp_path / "a.nii", scan), 108, struct.pack("<f", 0))
    np.testing.assert_array_equal(read(path).array[0], scan.T)


# -------------------------------------------------------------------------------------------------------------- large


def test_a_large_file_stays_on_disk(tmp_path, scan, monkeypatch):
    monkeypatch.setattr("napari_medt.io.nifti._LAZY_BYTES", 100)
    path = save(tmp_path / "a.nii", scan)
    patched(path, 112, struct.pack("<ff", 2, 1))
    volume = read(path)
    assert hasattr(volume.array, "dask")
    wanted = scan.T.astype(int) * 2 + 1
    np.testing.assert_array_equal(np.asarray(volume.array[0, 1:3, ::-1, 4]), wanted[1:3, ::-1, 4])
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(volume.array))[0]), wanted)
    film = save(tmp_path / "b.nii", np.stack([scan, scan + 1], -1))
    np.testing.assert_array_equal(np.asarray(read(film, choose="t=1").array[0]), scan.T + 1)
    copy = write(volume, tmp_path / "c.nii.gz")
    np.testing.assert_array_equal(read(copy).array[0], wanted)


def test_a_packed_file_larger_than_the_memory_tells_how_to_read_it(tmp_path, scan, monkeypatch):
    class Memory:
        available = 100

    monkeypatch.setattr("napari_medt.io.picture.psutil.virtual_memory", Memory)
    with pytest.raises(BadImage, match="unpack it"):
        read(save(tmp_path / "a.nii.gz", scan))


# ------------------------------------------------------------------------------------------------------------- writing


def test_a_mask_keeps_names_and_tells_nobodys(tmp_path):
    geometry = Geometry.from_nifti(AFFINE)
    mask = LabelMap(np.eye(4, dtype=np.uint8)[None], geometry, {1: "Leber"}, {1: (0.5, 0.25, 1)})
    path = write(mask, tmp_path / "Müller_Anna.nii.gz")
    (found,) = read_segmentation(path)
    assert found.names == {1: "Leber"}
    assert found.colours == {1: (0.5, 0.25, 1)}
    assert b"Anna" not in path.read_bytes()
    assert b"Anna" not in gzip.decompress(path.read_bytes())
    prediction = Prediction(mask.array, geometry, ("background", "liver"))
    assert read_segmentation(write(prediction, tmp_path / "p.nii"))[0].names == {1: "liver"}
    assert read_segmentation(write(prediction, tmp_path / "p.nii", names={1: "spleen"}))[0].names == {1: "spleen"}


def test_both_forms_are_written_and_a_shear_only_in_one(tmp_path):
    path = write(LabelMap(np.ones((2, 3, 4), np.uint8), Geometry.from_nifti(AFFINE)), tmp_path / "a.nii")
    image = nib.load(path)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-3)
    np.testing.assert_allclose(image.get_sform(), AFFINE, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.8
    path = write(LabelMap(np.ones((2, 3, 4), np.uint8), Geometry.from_nifti(sheared)), tmp_path / "b.nii")
    image = nib.load(path)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    np.testing.assert_allclose(read(path).geometry.to_nifti(), sheared, atol=1e-6)


def test_the_codes_of_the_image_are_taken_over(tmp_path, scan):
    image = nib.Nifti1Image(scan, AFFINE)
    image.set_qform(AFFINE, 2)
    image.set_sform(AFFINE, 4)
    nib.save(image, tmp_path / "a.nii.gz")
    source = read(tmp_path / "a.nii.gz")
    mask = nib.load(write(scan.T > 0, tmp_path / "m.nii.gz", source=source))
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (2, 4)
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-6)


def test_a_mask_of_an_image_without_form_lies_over_it_for_others_too(tmp_path, scan):
    source = read(save(tmp_path / "a.nii", scan, np.diag([0.5, 0.6, 2, 1]), sform_code=0, qform_code=0, xyzt_units=2))
    path = write(LabelMap(np.asarray(scan.T > 0, np.uint8), source.geometry), tmp_path / "m.nii", source=source)
    np.testing.assert_allclose(nib.load(path).affine, nib.load(tmp_path / "a.nii").affine, atol=1e-6)
    one, other = (sitk.ReadImage(str(tmp_path / name)) for name in ("a.nii", "m.nii"))
    assert one.GetDirection() == other.GetDirection()
    assert one.GetOrigin() == other.GetOrigin()


def test_a_side_too_long_for_the_first_version_goes_into_the_second(tmp_path):
    array = np.zeros((1, 2, 40_000), np.uint8)
    array[0, 1, 39_999] = 7
    path = write(LabelMap(array, Geometry.from_nifti(AFFINE)), tmp_path / "a.nii.gz")
    assert isinstance(nib.load(path), nib.Nifti2Image)
    np.testing.assert_array_equal(read_labels(path)[0], array)


def test_a_file_changed_by_another_program_is_believed(tmp_path):
    geometry = Geometry.from_spacing((2, 1, 1), units="um")
    path = write(LabelMap(np.ones((2, 3, 4), np.uint8), geometry, {1: "cell"}), tmp_path / "a.nii")
    image = nib.load(path)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "b.nii")
    (found,) = read_segmentation(tmp_path / "b.nii")
    assert found.names == {1: "cell"}
    np.testing.assert_allclose(found.geometry.to_nifti(), AFFINE, atol=1e-5)


def test_a_small_picture_stays_in_micrometres(tmp_path):
    geometry = Geometry.from_spacing((0.4, 0.3), origin=(1, 2), units="um")
    back = read(write(Volume(np.zeros((1, 5, 6), np.uint16), geometry), tmp_path / "a.nii.gz")).geometry
    assert (back.units, back.spacing, back.origin) == ("um", (0.4, 0.3), (1, 2))


def test_types_nifti_does_not_have_are_widened(tmp_path):
    geometry = Geometry.from_nifti(AFFINE)
    for dtype, wanted in ((bool, "uint8"), (np.float16, "float32"), (np.dtype(">i2"), "int16")):
        volume = read(write(Volume(np.ones((1, 2, 3, 4), dtype), geometry), tmp_path / "a.nii"))
        assert volume.array.dtype == wanted
