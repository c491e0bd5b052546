from __future__ import annotations

import logging
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from napari_medt.core import BadImage, MedtError
from napari_medt.io import read, read_labels
from tests.io.sentences import one_sentence


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------------------------ what is in a file


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_grey_and_colour_are_what_the_file_says(tmp_path, files, grey, colour, kind):
    one = read(put(tmp_path / f"g.{kind.lower()}", files.pillow(grey, kind)))
    three = read(put(tmp_path / f"c.{kind.lower()}", files.pillow(colour, kind)))
    assert one.channel_names == ("grey",)
    np.testing.assert_array_equal(one.array, grey[None])
    assert three.is_rgb
    np.testing.assert_array_equal(three.array, np.moveaxis(colour, -1, 0))
    assert three.geometry.spacing == (1, 1)
    assert three.geometry.units == "px"


def test_alpha_is_dropped_and_what_lies_under_it_is_kept(tmp_path, files, rng):
    rgba = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    for path in (
        put(tmp_path / "a.png", files.pillow(rgba, "PNG")),
        put(tmp_path / "a.tif", files.tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])),
    ):
        volume = read(path)
        assert volume.is_rgb
        np.testing.assert_array_equal(volume.array, np.moveaxis(rgba[..., :3], -1, 0))
    grey_alpha = put(tmp_path / "la.png", files.pillow(Image.fromarray(rgba[..., :2], "LA"), "PNG"))
    np.testing.assert_array_equal(read(grey_alpha).array, rgba[None, ..., 0])


def test_sixteen_bits_stay_sixteen_bits_also_in_colour(tmp_path, files, rng):
    import imagecodecs

    deep = rng.integers(0, 65536, (8, 6, 3), dtype=np.uint16)
    volume = read(put(tmp_path / "deep.png", imagecodecs.png_encode(deep)))
    assert volume.array.dtype == np.uint16
    np.testing.assert_array_equal(volume.array, np.moveaxis(deep, -1, 0))
    flat = read(put(tmp_path / "flat.png", files.pillow(deep[..., 0].copy(), "PNG")))
    assert flat.array.dtype == np.uint16
    np.testing.assert_array_equal(flat.array[0], deep[..., 0])


def test_a_palette_becomes_its_colours_in_an_image_and_stays_indices_in_a_mask(tmp_path, files):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    path = put(tmp_path / "p.png", files.pillow(picture, "PNG"))
    assert read(path).array[:, 0, 1].tolist() == [200, 100, 50]
    np.testing.assert_array_equal(read_labels(path)[0], indices)

    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, 2] = 65535, 0, 257
    path = put(tmp_path / "p.tif", files.tiff(indices, photometric="palette", colormap=colormap))
    assert read(path).array[:, 1, 0].tolist() == [255, 0, 1]
    np.testing.assert_array_equal(read_labels(path)[0], indices)


def test_one_bit_pictures(tmp_path, files):
    bits = np.eye(5, dtype=bool)
    for path in (
        put(tmp_path / "b.png", files.pillow(Image.fromarray(bits), "PNG")),
        put(tmp_path / "b.tif", files.tiff(bits, photometric="minisblack")),
    ):
        np.testing.assert_array_equal(read(path).array[0], np.eye(5) * 255)
        labels, _ = read_labels(path)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, np.eye(5))


def test_white_is_zero_is_turned_for_images_only(tmp_path, files, grey):
    path = put(tmp_path / "w.tif", files.tiff(grey, photometric="miniswhite"))
    np.testing.assert_array_equal(read(path).array[0], 255 - grey)
    np.testing.assert_array_equal(read_labels(path)[0], grey)


def test_jpegs_of_three_kinds(tmp_path, files, colour):
    smooth = np.repeat(np.repeat(colour[:6, :9], 16, axis=0), 16, axis=1)
    grey = read(put(tmp_path / "g.jpg", files.pillow(smooth[..., 0].copy(), "JPEG", quality=98)))
    assert grey.channel_names == ("grey",)
    rgb = read(put(tmp_path / "c.jpg", files.pillow(smooth, "JPEG", quality=98, subsampling=0)))
    inks = Image.fromarray(smooth).convert("CMYK")
    cmyk = read(put(tmp_path / "k.jpg", files.pillow(inks, "JPEG", quality=98, subsampling=0)))
    for volume in (rgb, cmyk):
        assert volume.is_rgb
        assert np.abs(np.moveaxis(volume.array, 0, -1).astype(int) - smooth).mean() < 6


def test_colour_tiffs_in_every_layout(tmp_path, files, colour):
    wanted = np.moveaxis(colour, -1, 0)
    layouts = {
        "contig": files.tiff(colour, photometric="rgb"),
        "planar": files.tiff(wanted, photometric="rgb", planarconfig="separate"),
        "tiled": files.tiff(colour, photometric="rgb", tile=(32, 32), compression="lzw", predictor=True),
        "bigtiff": files.tiff(colour, photometric="rgb", bigtiff=True, byteorder=">"),
        "imagej": files.tiff(colour, imagej=True),
        "ome": files.tiff(colour, photometric="rgb", ome=True),
    }
    for name, data in layouts.items():
        volume = read(put(tmp_path / f"{name}.tif", data))
        assert volume.is_rgb, name
        np.testing.assert_array_equal(volume.array, wanted, err_msg=name)
    smooth = np.repeat(np.repeat(colour[:6, :6], 16, axis=0), 16, axis=1)
    ycbcr = read(put(tmp_path / "j.tif", files.tiff(smooth, photometric="rgb", compression="jpeg")))
    with tifffile.TiffFile(tmp_path / "j.tif") as tiff:
        assert tiff.pages[0].photometric.name == "YCBCR"
    assert ycbcr.is_rgb
    assert np.abs(np.moveaxis(ycbcr.array, 0, -1).astype(int) - smooth).mean() < 12


def test_inks_become_light(tmp_path, files):
    inks = np.zeros((2, 2, 4), np.uint8)
    inks[0, 0] = 255, 0, 0, 0  # cyan
    inks[1, 1] = 0, 0, 0, 255  # black
    array = read(put(tmp_path / "k.tif", files.tiff(inks, photometric="separated"))).array
    assert array[:, 0, 0].tolist() == [0, 255, 255]
    assert array[:, 1, 1].tolist() == [0, 0, 0]
    assert array[:, 0, 1].tolist() == [255, 255, 255]


def test_three_pages_are_three_slices_and_not_colours(tmp_path, files, rng):
    stack = rng.integers(0, 256, (3, 20, 30), dtype=np.uint8)
    volume = read(put(tmp_path / "s.tif", files.tiff(stack, photometric="minisblack")))
    assert volume.array.shape == (1, 3, 20, 30)
    assert volume.channel_names == ("grey",)
    narrow = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)  # a scan whose last axis is 3 long
    assert read(put(tmp_path / "n.tif", files.tiff(narrow, photometric="minisblack"))).array.shape == (1, 20, 30, 3)


def test_channels_of_a_stack_come_first_and_keep_their_names(tmp_path, files, rng):
    stack = rng.integers(0, 60000, (4, 2, 10, 12), dtype=np.uint16)
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "actin"]}}
    volume = read(put(tmp_path / "c.ome.tif", files.tiff(stack, ome=True, metadata=metadata)))
    assert volume.channel_names == ("DAPI", "actin")
    np.testing.assert_array_equal(volume.array, stack.swapaxes(0, 1))
    volume = read(put(tmp_path / "c.tif", files.tiff(stack, imagej=True, metadata={"axes": "ZCYX"})))
    assert volume.channel_names == ("channel 1", "channel 2")
    np.testing.assert_array_equal(volume.array, stack.swapaxes(0, 1))


@pytest.mark.parametrize("dtype", [np.int16, np.float16, np.float32, np.float64, np.uint32])
def test_values_and_types_stay_as_they_are(tmp_path, files, rng, dtype):
    values = (rng.random((10, 11)) * 1000).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        values[2, 3], values[4, 5] = np.nan, np.inf
    array = read(put(tmp_path / "v.tif", files.tiff(values))).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[0], values)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_stored_turned_is_upright(tmp_path, files, kind, turn):
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8], stored[8:, :8] = 240, 120
    exif = Image.Exif()
    exif[0x0112] = turn
    data = (
        files.pillow(stored, kind, exif=exif)
        if kind != "TIFF"
        else files.tiff(stored, extratags=[(274, 3, 1, turn, True)], resolution=(2e4, 1e4), resolutionunit="CENTIMETER")
    )
    (tmp_path / "a").write_bytes(data)
    volume = read(tmp_path / "a")
    upright = Image.fromarray(stored)
    upright.getexif()[0x0112] = turn
    wanted = np.asarray(ImageOps.exif_transpose(upright))
    assert abs(volume.array[0].astype(int) - wanted).max() < 6  # JPEG rounds
    assert len(volume.notes) == (turn > 1)
    if kind == "TIFF":
        assert volume.geometry.spacing == ((0.5, 1) if turn > 4 else (1, 0.5))


def test_damaged_words_of_ome_are_told(tmp_path, files, rng):
    array = rng.integers(0, 99, (4, 9, 12), dtype=np.uint8)
    data = files.tiff(array, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 2.0})
    (tmp_path / "a.ome.tif").write_bytes(data.replace(b"</OME>", b"<<<<<<"))
    assert "damaged" in read(tmp_path / "a.ome.tif").notes[0]


def test_a_single_pixel_is_an_image(tmp_path, files):
    for name, data in {
        "a.tif": files.tiff(np.array([[7]], np.uint8)),
        "a.png": files.pillow(np.array([[7]], np.uint8), "PNG"),
    }.items():
        assert read(put(tmp_path / name, data)).array.tolist() == [[[7]]]


def test_what_is_inside_counts_and_not_the_ending(tmp_path, files, grey):
    np.testing.assert_array_equal(read(put(tmp_path / "x.tif", files.pillow(grey, "PNG"))).array[0], grey)
    np.testing.assert_array_equal(read(put(tmp_path / "y", files.tiff(grey))).array[0], grey)


def test_only_the_full_picture_of_a_pyramid_is_read(tmp_path, grey):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(grey, subifds=1, tile=(16, 16))
        tiff.write(grey[::2, ::2], subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(read(path).array[0], grey)


# ------------------------------------------------------------------------------------------------------------------ masks


def test_mask_types(tmp_path, files):
    mask = np.array([[0, 3], [70000, 1]])
    for dtype in (np.int64, np.float64, np.uint32, np.int32):
        labels, _ = read_labels(put(tmp_path / "m.tif", files.tiff(mask.astype(dtype))))
        assert labels.dtype == np.uint32
        np.testing.assert_array_equal(labels, mask)
    labels, _ = read_labels(put(tmp_path / "m.tif", files.tiff((mask % 7).astype(np.float32))))
    assert labels.dtype == np.uint8


def test_a_mask_whose_slices_were_called_channels_is_a_scan(tmp_path, files, rng):
    mask = rng.integers(0, 4, (5, 8, 9), dtype=np.uint8)
    labels, _ = read_labels(put(tmp_path / "m.tif", files.tiff(mask, imagej=True)))
    np.testing.assert_array_equal(labels, mask)


def test_a_grey_mask_saved_as_colour_is_still_a_mask(tmp_path, files, grey, colour):
    path = put(tmp_path / "m.png", files.pillow(np.stack([grey] * 3, axis=-1), "PNG"))
    np.testing.assert_array_equal(read_labels(path)[0], grey)
    with pytest.raises(BadImage, match="3 different channels, so it is a picture and not a mask"):
        read_labels(put(tmp_path / "c.png", files.pillow(colour, "PNG")))


def test_what_is_no_mask_is_refused(tmp_path, files, colour):
    with pytest.raises(BadImage, match="fractions"):
        read_labels(put(tmp_path / "f.tif", files.tiff(np.array([[0.5, 1]], np.float32))))
    with pytest.raises(BadImage, match="fractions"):
        read_labels(put(tmp_path / "n.tif", files.tiff(np.array([[np.nan, 1]], np.float32))))
    with pytest.raises(BadImage, match="negative"):
        read_labels(put(tmp_path / "i.tif", files.tiff(np.array([[-1, 1]], np.int16))))
    with pytest.raises(BadImage, match="JPEG, which blurs"):
        read_labels(put(tmp_path / "j.jpg", files.pillow(colour, "JPEG")))


# -------------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("reader", [read, read_labels])
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.tif", b"", "is empty (0 bytes)"),
        ("letter.tif", b"Dear colleague, the slide is attached.\n", "is named like a TIFF but is none"),
        ("letter.png", b"Dear colleague", "is named like a PNG but is none"),
        ("scan.nii", b"\x5c\x01\x00\x00" + bytes(400), "is a damaged or incomplete NIfTI"),
        ("letter.nii", b"Dear colleague", "is named like a NIfTI but is none"),
        ("letter.nii.gz", b"Dear colleague", "is named like a NIfTI but is none"),
        ("letter.dcm", b"Dear colleague", "is named like a DICOM but is none"),
        ("letter.mha", b"Dear colleague", "is named like a MetaImage but is none"),
        ("letter.nrrd", b"Dear colleague", "is named like a NRRD but is none"),
        ("scan.xyz", b"Dear colleague", "Files of the kind .xyz are not read"),
        ("notes", b"hello", "of a kind without an ending are not read"),
        ("head.tif", b"II*\0\x08\0\0\0", "is a damaged or incomplete TIFF"),
    ],
)
def test_a_file_that_is_no_image_gets_one_sentence(tmp_path, reader, name, data, said):
    with pytest.raises(BadImage) as caught:
        reader(put(tmp_path / name, data))
    assert said in one_sentence(caught.value)


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(BadImage, match=r"There is no file .*nothing\.tif"):
        read(tmp_path / "nothing.tif")
    with pytest.raises(BadImage):
        read(tmp_path)  # an empty folder
    with pytest.raises(BadImage, match="is a folder of 0 files; choose the file of the masks"):
        read_labels(tmp_path)
    with pytest.raises(BadImage, match=r"There is no file|not a valid name"):
        read("a\0b.tif")


def test_formats_that_are_read_are_named(tmp_path):
    with pytest.raises(
        BadImage, match="NIfTI, DICOM, NRRD, MetaImage, TIFF, OME-Zarr, slides, PNG, JPEG and BMP are read"
    ):
        read(put(tmp_path / "x.dcm", bytes(200)))


def test_images_without_pixels(tmp_path, files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nothing = files.tiff(np.zeros((0, 5), np.uint8))
    for name, data in {"a.tif": nothing, "a.png": files.png_claiming(0, 5)}.items():
        with pytest.raises(BadImage, match="has no pixels"):
            read(put(tmp_path / name, data))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, files):
    with pytest.raises(BadImage) as caught:
        read(put(tmp_path / "bomb.png", files.png_claiming(100_000, 100_000)))
    assert "10,000 million pixels" in one_sentence(caught.value)


def test_a_large_but_honest_picture_is_read_without_a_warning(tmp_path, files):
    path = put(tmp_path / "large.png", files.pillow(np.zeros((9_500, 9_500), np.uint8), "PNG", compress_level=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path).array.shape == (1, 9_500, 9_500)


def test_a_mask_larger_than_the_memory_is_refused(tmp_path, files, grey, monkeypatch):
    path = put(tmp_path / "a.tif", files.tiff(grey))
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr("napari_medt.io.picture.psutil", memory)
    with pytest.raises(BadImage, match="of memory, but only"):
        read_labels(path)
    np.testing.assert_array_equal(np.asarray(read(path).array)[0], grey)  # an image stays on disk


def test_axes_beyond_one_scan_are_named(tmp_path, files):
    film = np.zeros((3, 4, 8, 9), np.uint8)
    with pytest.raises(BadImage, match="T=3 x Z=4"):
        read(put(tmp_path / "film.tif", files.tiff(film, imagej=True, metadata={"axes": "TZYX"})))


ENCODED = {
    "plain.tif": ("tiff", {}),
    "packed.tif": ("tiff", {"compression": "zlib"}),
    "tiled.tif": ("tiff", {"tile": (16, 16), "compression": "lzw"}),
    "imagej.tif": ("stack", {"imagej": True}),
    "pages.tif": ("stack", {"compression": "zlib", "photometric": "minisblack"}),
    "ome.tif": ("stack", {"ome": True, "photometric": "minisblack"}),
    "a.png": ("pillow", {"kind": "PNG"}),
    "a.jpg": ("pillow", {"kind": "JPEG"}),
    "a.bmp": ("pillow", {"kind": "BMP"}),
}


@pytest.fixture(params=list(ENCODED))
def encoded(request, files, grey) -> tuple[str, bytes]:
    form, options = ENCODED[request.param]
    if form == "pillow":
        return request.param, files.pillow(grey, **options)
    return request.param, files.tiff(grey if form == "tiff" else np.stack([grey] * 6), **options)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
def test_a_file_cut_off_is_never_read_as_whole(tmp_path, encoded, share):
    name, data = encoded
    path = put(tmp_path / name, data[: max(17, int(len(data) * share))])
    with pytest.raises(BadImage) as caught:
        read(path)
    assert "damaged or incomplete" in one_sentence(caught.value)


def test_noise_in_a_file_gives_an_image_or_a_sentence_and_nothing_on_the_console(tmp_path, encoded, rng, caplog, capfd):
    name, data = encoded
    caplog.set_level(logging.DEBUG)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for trial in range(60):
            noisy = bytearray(data)
            ends = rng.integers(0, min(len(noisy), 400), 3)
            for at in (*ends, *(len(noisy) - 1 - ends), *rng.integers(0, len(noisy), 2)):
                noisy[at] = rng.integers(0, 256)
            path = put(tmp_path / f"{trial}{Path(name).suffix}", bytes(noisy))
            try:
                assert read(path).array.size > 0
            except BadImage as error:
                one_sentence(error)
                refused += 1
    assert refused > 0
    assert not [record for record in caplog.records if record.name == "tifffile"]
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


def test_tifffile_may_still_speak_to_others(caplog):
    logging.getLogger("tifffile").warning("about another file")
    assert "about another file" in caplog.text


def test_the_room_opens_without_the_libraries_of_single_formats():
    code = "import sys, napari_medt.io; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"nibabel", "SimpleITK", "pydicom", "highdicom", "dask", "zarr", "openslide", "torch"} & set(loaded)


@pytest.mark.parametrize(
    ("name", "module"), [("a.nii", "nibabel"), ("a.nrrd", "SimpleITK"), ("a.dcm", "pydicom"), ("a.zarr", "zarr")]
)
def test_a_missing_library_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch, name, module):
    path = tmp_path / name
    if name == "a.zarr":
        path.mkdir()
    else:
        head = {"a.nii": struct.pack("<i", 348), "a.nrrd": b"NRRD0004\n", "a.dcm": bytes(128) + b"DICM"}[name]
        path.write_bytes(head + bytes(400))
    monkeypatch.setattr("napari_medt.io.needs.find_spec", lambda wanted: None if wanted == module else wanted)
    with pytest.raises(MedtError, match=rf"needs {module}; pip install 'napari-medt\[(volumes|lazy)\]'\."):
        read(path)


def test_a_slide_is_no_mask(tmp_path):
    with pytest.raises(BadImage, match="a.svs is a slide, which is a picture and not a mask"):
        read_labels(put(tmp_path / "a.svs", b"II*\0" + bytes(100)))
