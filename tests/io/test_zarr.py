from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", reason="needs the extra `lazy`")
pytest.importorskip("dask", reason="needs the extra `lazy`")

from napari_medt.core import AmbiguousImage, BadImage, Geometry  # noqa: E402
from napari_medt.io.lazy import sampling_factor  # noqa: E402
from napari_medt.io.zarr_in import read_zarr  # noqa: E402

UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def make(
    path: Path,
    array: np.ndarray,
    axes: str,
    *,
    scale: list[float],
    version: str = "0.4",
    translation: list[float] | None = None,
    levels: int = 1,
    units: dict[str, str] = UNITS,
    chunks: tuple[int, ...] | None = None,
    outer: list[float] | None = None,
    **more: Any,
) -> Path:
    """An image as another program writes it."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level in range(levels):
        steps = [2**level if axis in "yx" else 1 for axis in axes]
        part = array[tuple(slice(None, None, step) for step in steps)]
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {}
        stored = group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=chunks or "auto", **options)
        stored[...] = part
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [a * b for a, b in zip(scale, steps, strict=True)]}
        ]
        if translation:
            transforms.append({"type": "translation", "translation": translation})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    described = [{"name": a, "type": KINDS[a]} | ({"unit": units[a]} if a in units else {}) for a in axes]
    image: dict[str, Any] = {"axes": described, "datasets": datasets}
    if outer:
        image["coordinateTransformations"] = [{"type": "scale", "scale": outer}]
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": "0.4", **image}], **more})
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image], **more}
    return path


@pytest.fixture
def scan(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 60000, (2, 5, 40, 30), dtype=np.uint16)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_comes_lazily_with_levels_geometry_and_channel_names(tmp_path, scan, version):
    omero = {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP", "color": "00FF00"}]}
    path = make(
        tmp_path / "a.ome.zarr", scan, "czyx", scale=[1, 2, 0.5, 0.25], translation=[0, 10, 20, 30], levels=3,
        version=version, omero=omero,
    )  # fmt: skip
    volume = read_zarr(path)
    assert hasattr(volume.array, "dask")
    np.testing.assert_array_equal(np.asarray(volume.array), scan)
    assert [level.shape for level in volume.levels] == [(2, 5, 20, 15), (2, 5, 10, 8)]
    np.testing.assert_array_equal(np.asarray(volume.levels[1]), scan[:, :, ::4, ::4])
    assert volume.geometry == Geometry.from_spacing((2, 0.5, 0.25), origin=(10, 20, 30), units="um")
    assert volume.channel_names == ("DAPI", "GFP")
    assert volume.notes == ()


def test_the_order_of_axes_and_mixed_units_are_followed(tmp_path, rng):
    array = rng.integers(0, 255, (30, 20, 4), dtype=np.uint8)
    units = {"x": "nanometer", "y": "nanometer", "z": "millimeter"}
    volume = read_zarr(make(tmp_path / "a.zarr", array, "xyz", scale=[500, 250, 0.001], units=units, outer=[2, 2, 2]))
    np.testing.assert_array_equal(np.asarray(volume.array), array.transpose(2, 1, 0)[None])
    assert volume.geometry.units == "um"
    assert volume.geometry.spacing == (2, 0.5, 1)


def test_a_flat_image_in_five_axes_is_flat_and_a_missing_unit_is_told(tmp_path, rng):
    array = rng.integers(0, 255, (1, 3, 1, 20, 30), dtype=np.uint8)
    volume = read_zarr(make(tmp_path / "a.zarr", array, "tczyx", scale=[1, 1, 1, 0.5, 0.5], units={}))
    assert volume.array.shape == (3, 20, 30)
    assert volume.is_rgb
    assert (volume.geometry.units, volume.geometry.spacing) == ("px", (0.5, 0.5))
    volume = read_zarr(
        make(tmp_path / "b.zarr", array[0, :1], "czyx", scale=[1, 1, 0.5, 0.5], units={"x": "micrometer"})
    )
    assert volume.geometry.units == "um"
    assert volume.notes == ("The file gives no unit for the axis y, which is taken to have that of the others",)


def test_a_film_asks_for_the_time_point(tmp_path, rng):
    array = rng.integers(0, 255, (3, 20, 30), dtype=np.uint8)
    path = make(tmp_path / "film.zarr", array, "tyx", scale=[1, 1, 1])
    with pytest.raises(AmbiguousImage, match="film of 3 time points") as raised:
        read_zarr(path)
    assert [choice.key for choice in raised.value.choices] == ["t=0", "t=1", "t=2"]
    np.testing.assert_array_equal(np.asarray(read_zarr(path, choose=["t=2"]).array)[0], array[2])


def test_channels_without_trust_are_numbered(tmp_path, scan):
    omero = {"channels": [{"label": "DAPI"}]}
    volume = read_zarr(make(tmp_path / "a.zarr", scan, "czyx", scale=[1, 1, 1, 1], omero=omero))
    assert volume.channel_names == ("channel 1", "channel 2")
    assert volume.notes == ("The file describes 1 channels but holds 2, so they are numbered",)
    three = np.concatenate([scan, scan[:1]])
    assert read_zarr(make(tmp_path / "b.zarr", three, "czyx", scale=[1] * 4)).channel_names[0] == "channel 1"


def test_several_images_are_asked_about_and_a_single_one_is_opened(tmp_path, rng):
    array = rng.integers(0, 255, (20, 30), dtype=np.uint8)
    root = tmp_path / "many.zarr"
    zarr.open_group(root, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    make(root / "0", array, "yx", scale=[1, 1])
    assert read_zarr(root).array.shape == (1, 20, 30)
    make(root / "10", array.T, "yx", scale=[1, 1])
    make(root / "2", array, "yx", scale=[1, 1])
    with pytest.raises(AmbiguousImage, match="holds 3 images") as raised:
        read_zarr(root)
    assert [(c.key, c.title) for c in raised.value.choices] == [("0", "20 x 30"), ("2", "20 x 30"), ("10", "30 x 20")]
    assert read_zarr(root, choose=["10"]).array.shape == (1, 30, 20)
    zarr.open_group(root / "OME", mode="w", zarr_format=2).attrs["series"] = ["2", "0"]
    with pytest.raises(AmbiguousImage) as raised:
        read_zarr(root)
    assert [choice.key for choice in raised.value.choices] == ["2", "0"]


def test_a_plate_says_how_to_go_on(tmp_path):
    zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2).attrs["plate"] = {"wells": [{"path": "A/1"}]}
    with pytest.raises(
        BadImage, match="p.zarr is a plate of many wells, not one image; choose one field in it, such as .*/A/1/0"
    ):
        read_zarr(tmp_path / "p.zarr")


def test_plain_arrays_are_read_as_what_they_can_be(tmp_path, rng):
    def put(shape: tuple[int, ...], **options: Any) -> Path:
        path = tmp_path / f"{'-'.join(map(str, shape))}.zarr"
        zarr.create_array(path, shape=shape, dtype="uint8", **options)[...] = rng.integers(1, 255, shape)
        return path

    volume = read_zarr(put((8, 20, 30)))
    assert volume.array.shape == (1, 8, 20, 30)
    assert volume.notes == (
        "8-20-30.zarr is a plain Zarr array, which gives no pixel size; its axes are taken as z, y, x",
    )
    assert read_zarr(put((20, 30, 3))).is_rgb
    assert read_zarr(put((4, 20, 31), dimension_names=("channel", "y", "x"))).array.shape == (4, 20, 31)
    four = put((2, 8, 20, 30))
    with pytest.raises(AmbiguousImage, match=r"four axes without names \(2 x 8 x 20 x 30\)"):
        read_zarr(four)
    assert read_zarr(four, choose=["czyx"]).array.shape == (2, 8, 20, 30)
    assert read_zarr(four, choose=["zcyx"]).array.shape == (8, 2, 20, 30)
    with pytest.raises(AmbiguousImage, match="film of 2 time points"):
        read_zarr(four, choose=["tzyx"])
    assert read_zarr(four, choose=["tzyx", "t=1"]).array.shape == (1, 8, 20, 30)


def test_only_what_is_looked_at_is_read_by_many_threads_and_other_processes(tmp_path, rng):
    array = rng.integers(0, 255, (2, 600, 500), dtype=np.uint8)
    volume = read_zarr(make(tmp_path / "a.zarr", array, "cyx", scale=[1, 1, 1], chunks=(1, 64, 64)))
    assert volume.array.numblocks == (2, 1, 1)
    for part in ((0, slice(70, 90), slice(3, 400, 7)), (slice(None, None, -1), slice(None), slice(None, None, -3))):
        np.testing.assert_array_equal(np.asarray(volume.array[part]), array[part])
    for part in (
        (1, [5, 3, 599], slice(9, 30)),
        (slice(None), None, 7),
        (slice(None), [], 7),
        (np.array([1, 0]), 3, 4),
    ):
        np.testing.assert_array_equal(np.asarray(volume.array[part]), array[part])
    # The chunks far from the part looked at may be gone.
    for chunk in (tmp_path / "a.zarr" / "0" / "1").rglob("[0-9]*"):
        if chunk.is_file():
            chunk.write_bytes(b"rubbish")
    again = pickle.loads(pickle.dumps(volume.array))
    np.testing.assert_array_equal(again[0].compute(scheduler="threads", num_workers=4), array[0])
    with pytest.raises(
        BadImage, match="A part of a.zarr cannot be read: it is damaged, or the file is no longer there"
    ):
        again.compute(scheduler="threads")


def test_missing_pieces_are_told(tmp_path, scan):
    path = make(tmp_path / "a.zarr", scan, "czyx", scale=[1, 1, 1, 1], chunks=(1, 1, 40, 30))
    (path / "0" / "0" / "3" / "0" / "0").unlink()
    assert read_zarr(path).notes == ("1 of 10 pieces of the image are not in the file and are read as 0",)


@pytest.mark.parametrize("harm", ["attributes", "array", "level", "numbers", "text", "empty", "compressor"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_damage_is_one_sentence(tmp_path, scan, version, harm):
    path = make(tmp_path / "a.zarr", scan, "czyx", scale=[1, 1, 1, 1], levels=2, version=version)
    group_file, array_file = (".zattrs", ".zarray") if version == "0.4" else ("zarr.json", "zarr.json")
    if harm == "attributes":
        (path / group_file).write_text((path / group_file).read_text()[:-40])
    elif harm == "array":
        (path / "0" / array_file).write_text("{")
    elif harm == "level":
        shutil.rmtree(path / "1")
    elif harm == "numbers":
        (path / group_file).write_text((path / group_file).read_text().replace('"scale": [', '"scale": [null,'))
    elif harm == "text":
        (path / group_file).write_bytes(b"\xff\xfe no text")
    elif harm == "empty":
        for file in path.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    else:
        array = json.loads((path / "0" / array_file).read_text())
        if version == "0.4":
            array["compressor"] = {"id": "unheard-of"}
        else:
            array["codecs"][-1] = {"name": "unheard-of"}
        (path / "0" / array_file).write_text(json.dumps(array))
    with pytest.raises(BadImage, match="a.zarr"):
        np.asarray(read_zarr(path).array)


def test_a_folder_that_is_no_zarr_is_told_apart(tmp_path):
    with pytest.raises(BadImage, match="is a folder without the description that Zarr needs"):
        read_zarr(tmp_path)
    with pytest.raises(BadImage, match="There is no folder"):
        read_zarr(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(BadImage, match="There is no image in empty.zarr"):
        read_zarr(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    ("size", "level", "factor"), [(101, 51, 2), (101, 50, 2), (101, 25, 4), (40, 13, 3), (100, 64, 1.5625)]
)
def test_a_coarser_sample_stands_for_a_whole_number_where_rounding_explains_it(size, level, factor):
    assert sampling_factor(size, level) == factor
