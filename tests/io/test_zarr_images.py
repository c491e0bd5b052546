"""Images to OME-Zarr."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", reason="needs the extra `lazy`")
da = pytest.importorskip("dask.array", reason="needs the extra `lazy`")

from napari_medt.core import BadImage, Geometry, LabelMap, StorageError, Volume  # noqa: E402
from napari_medt.io import read, read_segmentation, write  # noqa: E402

TURN = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])


def oblique(spacing: tuple[float, ...]) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURN * spacing, (10, -20, 30)
    return Geometry(affine, "mm", "patient")


@pytest.fixture
def scan(rng: np.random.Generator) -> Volume:
    array = rng.integers(-1000, 2000, (2, 9, 600, 530)).astype(np.int16)
    return Volume(array, oblique((4, 0.5, 0.6)), ("T1", "T2"))


def test_an_image_comes_back_with_its_place_its_channels_and_its_levels(tmp_path, scan):
    back = read(write(scan, tmp_path / "a b ü.ome.zarr"))
    np.testing.assert_array_equal(back.array, scan.array)
    np.testing.assert_allclose(back.geometry.affine, scan.geometry.affine)
    assert (back.channel_names, back.notes, back.array.dtype) == (("T1", "T2"), (), np.int16)
    (level,) = back.levels  # only the fine axes are halved
    assert level.shape == (2, 9, 300, 265)
    means = scan.array.reshape(2, 9, 300, 2, 265, 2).mean(axis=(3, 5))
    assert abs(np.asarray(level) - means).max() <= 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["a b ü.ome.zarr"]


def test_others_find_what_the_standard_asks_for(tmp_path, scan):
    path = write(scan, tmp_path / "a.ome.zarr")
    described = json.loads((path / ".zattrs").read_text())
    image, channels = described["multiscales"][0], described["omero"]["channels"]
    assert image["version"] == "0.4"
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]] == [
        ("c", "channel", None),
        *((name, "space", "millimeter") for name in "zyx"),
    ]
    fine, coarse = ([step[step["type"]] for step in level["coordinateTransformations"]] for level in image["datasets"])
    np.testing.assert_allclose(fine[0], (1, 4, 0.5, 0.6))
    np.testing.assert_allclose(coarse[0], (1, 4, 1, 1.2))
    np.testing.assert_allclose(np.subtract(coarse[1], fine[1]), (0, 0, 0.25, 0.3))  # centres of pixels
    assert [channel["label"] for channel in channels] == ["T1", "T2"]
    assert channels[0]["window"]["end"] == scan.array[0].max()
    stored = json.loads((path / "0" / ".zarray").read_text())
    assert (stored["dimension_separator"], stored["chunks"]) == ("/", [1, 9, 128, 128])


@pytest.mark.parametrize("shape", [(1, 1, 6, 7), (1, 5, 1, 1), (3, 20, 30), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.dtype(">i4"), np.bool_])
def test_every_shape_and_type(tmp_path, rng, shape, dtype):
    array = rng.integers(0, 2, shape).astype(dtype)
    volume = Volume(array, Geometry.from_spacing((2.0, 0.5, 0.25)[-(len(shape) - 1) :], units="um"))
    back = read(write(volume, tmp_path / "a.zarr"))
    np.testing.assert_array_equal(back.array, array)
    assert back.geometry.close_to(volume.geometry, shape=shape[1:])
    assert back.channel_names == volume.channel_names or (dtype != np.uint8 and shape[0] == 3)
    assert back.notes == ()


def test_a_lazy_image_is_never_whole_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_medt.io.zarr_image_out._SLAB_BYTES", 2**20)
    largest = []

    def plane(block_info):
        (where,) = (info for key, info in block_info.items() if key is None)
        return np.full(where["chunk-shape"], where["array-location"][1][0], np.float32)

    lazy = da.map_blocks(
        plane, chunks=((1,), (1,) * 130, (90,), (80,)), dtype=np.float32, meta=np.empty((0,) * 4, "f4")
    )
    asked = type(lazy).__array__
    monkeypatch.setattr(type(lazy), "__array__", lambda a, *o, **k: (largest.append(a.nbytes), asked(a, *o, **k))[1])
    path = write(Volume(lazy, Geometry.from_spacing((1, 1, 1))), tmp_path / "a.zarr")
    assert max(largest) < 2**21 < lazy.nbytes
    assert np.asarray(read(path).array[0, :, 3, 4]).tolist() == list(range(130))


def test_a_map_of_numbers_that_are_not_finite(tmp_path):
    values = np.full((8, 8), np.nan, np.float32)
    back = read(write(values, tmp_path / "a.zarr"))
    np.testing.assert_array_equal(back.array[0], values)


def test_what_is_there_is_replaced_only_where_nothing_is_lost(tmp_path, scan):
    place = tmp_path / "a.zarr"
    write(scan, place)
    small = Volume(np.ones((1, 4, 5, 6), np.uint8), Geometry.from_spacing((1, 1, 1)))
    write(small, place)
    assert read(place).spatial_shape == (4, 5, 6)
    write(LabelMap(np.ones((4, 5, 6), np.uint8), small.geometry, {1: "cell"}), place)
    with pytest.raises(BadImage, match="masks that would be lost"):
        write(scan, place)
    assert read_segmentation(place)[0].names == {1: "cell"}
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadImage, match="no OME-Zarr image"):
        write(scan, tmp_path / "mine.zarr")


def test_names_the_disk_refuses(tmp_path, scan):
    for what in (scan, LabelMap(np.ones((4, 5, 6), np.uint8), oblique((1, 1, 1)))):
        with pytest.raises(StorageError, match="name is too long"):
            write(what, tmp_path / f"{'a' * 260}.ome.zarr")


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, scan, monkeypatch, there):
    place = tmp_path / "a.zarr"
    small = Volume(np.ones((1, 4, 5, 6), np.uint8), Geometry.from_spacing((1, 1, 1)))
    if there:
        write(small, place)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_medt.io.zarr_pyramid.sync_files", full)
    with pytest.raises(StorageError, match="disk is full"):
        write(scan, place)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"] * there
    if there:
        assert read(place).spatial_shape == (4, 5, 6)
