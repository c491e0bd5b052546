from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from napari_medt.core import AmbiguousImage, BadImage, Geometry, StorageError
from napari_medt.io import read_labels, write
from napari_medt.io.atomic import atomic_write
from napari_medt.io.ome_tiff_out import _scratch, encode_ome_tiff
from napari_medt.io.picture import RGB, Picture
from napari_medt.io.tiff_in import read_tiff


def put(path: Path, array: Any, geometry: Geometry, **options: Any) -> Path:
    return atomic_write(path, lambda file: encode_ome_tiff(file, array, geometry, **options))


def read(path: Path, *choose: str) -> Picture:
    return read_tiff(path, as_labels=False, choose=choose)


def plain(ndim: int) -> Geometry:
    return Geometry.from_spacing((2.5, 0.5, 0.25)[-ndim:], origin=(3, -4, 5.5)[-ndim:], units="um")


@pytest.mark.parametrize("shape", [(1, 30, 40), (3, 30, 40), (2, 5, 30, 40), (1, 1, 30, 40), (4, 1, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_images_come_back_with_channels_slices_and_place(tmp_path, rng, shape, dtype):
    array = (rng.normal(size=shape) * 100).astype(dtype)
    names = tuple(f"stain {i}" for i in range(shape[0])) if shape[0] > 1 else ("grey",)
    found = read(put(tmp_path / "a.ome.tif", array, plain(len(shape) - 1), channel_names=names))
    np.testing.assert_array_equal(found.array, array)
    assert found.array.dtype == dtype
    assert (found.geometry, found.channel_names, found.levels) == (plain(len(shape) - 1), names, ())


def test_other_programs_find_sizes_and_names(tmp_path, rng):
    array = rng.integers(0, 60000, (2, 5, 30, 40), dtype=np.uint16)
    path = put(tmp_path / "a.ome.tif", array, plain(3), channel_names=("DAPI", "actin"))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].axes == "CZYX"
        for text in ('PhysicalSizeZ="2.5"', 'PhysicalSizeXUnit="µm"', 'Name="actin"', 'PositionZ="13.0"'):
            assert text in tiff.ome_metadata


@pytest.mark.parametrize("shape", [(3, 30, 40), (3, 4, 30, 40)])
def test_colour_stays_colour(tmp_path, rng, shape):
    array = rng.integers(0, 256, shape, dtype=np.uint8)
    path = put(tmp_path / "a.ome.tif", array, plain(len(shape) - 1), channel_names=RGB)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric.name == "RGB"
    found = read(path)
    np.testing.assert_array_equal(found.array, array)
    assert (found.channel_names, found.geometry) == (RGB, plain(len(shape) - 1))


def test_a_patients_oblique_geometry_comes_back_exactly(tmp_path, rng):
    c, s = np.cos(0.4), np.sin(0.4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ np.diag([3, -0.7, 0.6])
    affine[:3, 3] = -12.5, 100, 7
    geometry = Geometry(affine, "mm", "patient")
    mask = rng.integers(0, 9, (4, 30, 40), dtype=np.uint8)
    path = put(tmp_path / "a.ome.tif", mask, geometry, labels=True)
    labels, found = read_labels(path)
    np.testing.assert_array_equal(labels, mask)
    assert found == geometry


@pytest.mark.parametrize("kind", ["mask", "colour", "channels"])
def test_large_images_have_tiles_and_levels_and_stay_on_disk(tmp_path, rng, kind):
    pytest.importorskip("dask", reason="needs the extra `lazy`")
    coarse = rng.integers(0, 200, (3, 43, 53), dtype=np.uint8)
    array = coarse.repeat(57, 1).repeat(61, 2)[:, :2431, :3219]
    options: dict[str, Any] = {"channel_names": RGB if kind == "colour" else ("a", "b", "c")}
    array, options = (array[0], {"labels": True}) if kind == "mask" else (array, options)
    path = put(tmp_path / "a.ome.tif", array, plain(2), **options)
    assert os.listdir(tmp_path) == ["a.ome.tif"]
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].is_tiled
    found = read(path)
    whole = array[None] if kind == "mask" else array
    assert hasattr(found.array, "dask")
    np.testing.assert_array_equal(np.asarray(found.array), whole)
    assert found.geometry == plain(2)
    assert [level.shape[1:] for level in found.levels] == [(1216, 1610), (608, 805)]
    half = np.asarray(found.levels[0])
    assert (half[:, :1215, :1609] == whole[:, : 2 * 1215 : 2, : 2 * 1609 : 2]).mean() > 0.95
    if kind == "mask":
        assert set(np.unique(half)) <= set(np.unique(array))
        np.testing.assert_array_equal(read_labels(path)[0], array)


def test_a_lazy_image_is_written_in_little_memory(tmp_path):
    da = pytest.importorskip("dask.array", reason="needs the extra `lazy`")
    process = psutil.Process()
    memory = []

    def block(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        memory.append(process.memory_info().rss)
        return values + np.uint16(block_info[0]["chunk-location"][0])

    image = da.zeros((6000, 12000), chunks=(1000, 1000), dtype=np.uint16).map_blocks(block, dtype=np.uint16)
    put(tmp_path / "small.ome.tif", image[None, :2100, :2100], plain(2))  # what is imported once is not counted
    memory.clear()
    path = put(tmp_path / "a.ome.tif", image[None], plain(2))
    assert max(memory) - memory[0] < 100e6  # of 144
    found = read(path)
    assert [level.shape for level in found.levels] == [
        (1, 3000, 6000), (1, 1500, 3000), (1, 750, 1500), (1, 375, 750),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(found.levels[-2][0, ::125, 7]), [0, 1, 2, 3, 4, 5])


def test_a_lazy_scan_is_computed_once(tmp_path, rng):
    da = pytest.importorskip("dask.array", reason="needs the extra `lazy`")
    scan = rng.integers(0, 9, (2, 10, 30, 40), dtype=np.uint8)
    computed = []

    def block(values: np.ndarray) -> np.ndarray:
        computed.append(values.shape)
        return values

    lazy = da.from_array(scan, chunks=(1, 4, 30, 40)).map_blocks(block, dtype=scan.dtype, meta=scan[:0, :0, :0, :0])
    np.testing.assert_array_equal(read(put(tmp_path / "a.ome.tif", lazy, plain(3))).array, scan)
    assert len(computed) == 6


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(BadImage, match="does not fit a geometry of 3 axes"):
        put(tmp_path / "a.ome.tif", np.zeros((3, 4, 5)), plain(3))
    with pytest.raises(BadImage, match="complex128 cannot be written to TIFF"):
        put(tmp_path / "a.ome.tif", np.zeros((1, 4, 5), complex), plain(2))
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------------------------- what others write


@pytest.mark.parametrize("form", ["imagej", "ome"])
def test_films_are_asked_about(tmp_path, rng, form):
    film = rng.integers(0, 255, (3, 4, 2, 20, 30), dtype=np.uint8)
    path = tmp_path / "film.tif"
    tifffile.imwrite(path, film, **{form: True}, photometric="minisblack", metadata={"axes": "TZCYX"})
    with pytest.raises(
        AmbiguousImage, match=r"film.tif \(T=3 x Z=4 x C=2 x Y=20 x X=30\) is a film of 3 time points"
    ) as raised:
        read(path)
    assert [choice.key for choice in raised.value.choices] == ["t=0", "t=1", "t=2"]
    np.testing.assert_array_equal(read(path, "t=1").array, film[1].swapaxes(0, 1))


def test_times_may_be_slices(tmp_path, rng):
    film = rng.integers(0, 255, (6, 20, 30), dtype=np.uint8)
    path = tmp_path / "film.tif"
    tifffile.imwrite(path, film, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(AmbiguousImage) as raised:
        read(path)
    assert raised.value.choices[0].key == "slices"
    np.testing.assert_array_equal(read(path, "slices").array, film[None])
    np.testing.assert_array_equal(read(path, "t=5").array, film[5:])
    np.testing.assert_array_equal(read_labels(path)[0], film)


def test_a_file_larger_than_a_quarter_of_the_memory_stays_on_disk(tmp_path, rng, monkeypatch):
    pytest.importorskip("dask", reason="needs the extra `lazy`")
    stack = rng.integers(0, 60000, (2, 6, 80, 90), dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, stack, imagej=True, metadata={"axes": "ZCYX", "unit": "um", "spacing": 2.0}, resolution=(4, 4)
    )
    eager = read(path)
    monkeypatch.setattr("napari_medt.io.tiff_in.fits_memory", lambda size_bytes: size_bytes < 10_000)
    lazy = read(path)
    assert not hasattr(eager.array, "dask")
    assert hasattr(lazy.array, "dask")
    assert (lazy.geometry, lazy.channel_names) == (eager.geometry, eager.channel_names)
    np.testing.assert_array_equal(np.asarray(lazy.array), eager.array)
    palette = tmp_path / "p.tif"
    colours = rng.integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(palette, stack[0, 0].astype(np.uint8).repeat(2, 0), photometric="palette", colormap=colours)
    lazy = read(palette)
    monkeypatch.undo()
    np.testing.assert_array_equal(np.asarray(lazy.array), read(palette).array)
    assert lazy.channel_names == RGB


def test_room_for_the_levels_is_taken_at_once(tmp_path):
    """Where a disk is found full through a map of a file, the process ends without a word."""
    scratch = _scratch(tmp_path / "0", np.zeros((1, 3000, 3000), np.uint8))
    assert (tmp_path / "0").stat().st_blocks * 512 >= scratch.nbytes


def test_a_disk_that_is_full_is_one_sentence(tmp_path, monkeypatch):
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match="disk is full"):
        write(np.zeros((2100, 20), np.uint32), tmp_path / "a.ome.tif")
    assert list(tmp_path.iterdir()) == []
