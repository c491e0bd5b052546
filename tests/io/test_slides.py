from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

pytest.importorskip("zarr", reason="needs the extra `lazy`")
pytest.importorskip("dask", reason="needs the extra `lazy`")

from napari_medt.core import AmbiguousImage, BadImage, Volume
from napari_medt.io import read_labels
from napari_medt.io.slides import read_by_openslide, read_slide

APERIO = "Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] (256x256) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2527|ScanScope = x"


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """A colourful 1100 x 1500 picture, smooth, so that JPEG keeps it."""
    y, x = np.mgrid[:1100, :1500]
    colours = [128 + 100 * np.sin(x / 90 + k) * np.cos(y / 70 - k) for k in range(3)]
    return np.stack(colours, -1).astype(np.uint8)


def svs(path: Path, tissue: np.ndarray, **options: Any) -> Path:
    """A slide as Aperio's scanners write it, with thumbnail, label and macro."""
    options = {"photometric": "rgb", "metadata": None, "compression": "deflate"} | options
    text = APERIO.format(w=tissue.shape[1], h=tissue.shape[0])
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(tissue, tile=(256, 256), description=text, **options)
        tiff.write(tissue[::10, ::10], description="Aperio Image Library thumbnail|MPP = 0.2527", **options)
        for step in (4, 16):
            tiff.write(tissue[::step, ::step].copy(), tile=(256, 256), description=text, **options)
        for kind, name in ((1, "label"), (9, "macro")):
            tiff.write(
                tissue[:90, :80], description=f"Aperio Image Library\r\n{name} 80x90", subfiletype=kind, **options
            )
    return path


def pyramid(path: Path, tissue: np.ndarray, steps: tuple[int, ...] = (1, 2, 4), **options: Any) -> Path:
    """A plain tiled TIFF pyramid, 0.5 um a pixel."""
    with tifffile.TiffWriter(path) as tiff:
        for step in steps:
            resolution = (20000 / step, 20000 / step)
            tiff.write(
                tissue[::step, ::step].copy(), tile=(256, 256), photometric="rgb", metadata=None, resolution=resolution,
                resolutionunit="CENTIMETER", subfiletype=int(step > 1), **options,
            )  # fmt: skip
    return path


def channels_first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 0)


def test_an_aperio_slide_is_lazy_with_levels_and_micrometres(tmp_path, tissue):
    volume = read_slide(svs(tmp_path / "a.svs", tissue))
    assert volume.is_rgb
    assert all(hasattr(level, "dask") for level in (volume.array, *volume.levels))
    assert volume.geometry.units == "um"
    assert volume.geometry.spacing == (0.2527, 0.2527)
    assert [level.shape for level in volume.levels] == [(3, 275, 375), (3, 69, 94)]
    np.testing.assert_array_equal(np.asarray(volume.array), channels_first(tissue))
    np.testing.assert_array_equal(np.asarray(volume.levels[1]), channels_first(tissue[::16, ::16]))
    assert volume.notes == ()


def test_jpeg_tiles_and_strips_and_slides_without_a_size(tmp_path, tissue):
    path = pyramid(tmp_path / "jpeg.tif", tissue, compression="jpeg")
    volume = read_slide(path)
    assert volume.geometry.spacing == (0.5, 0.5)
    assert abs(np.asarray(volume.array).astype(int) - channels_first(tissue)).mean() < 3
    text = APERIO.format(w=1500, h=1100).replace("MPP", "unknown")
    bare = tmp_path / "bare.svs"
    tifffile.imwrite(bare, tissue, tile=(256, 256), photometric="rgb", description=text, metadata=None)
    volume = read_slide(bare)
    assert volume.geometry.units == "px"
    assert volume.notes == ("The slide gives no size of its pixels",)


def test_openslide_reads_the_same(tmp_path, tissue):
    openslide = pytest.importorskip("openslide", reason="needs the extra `slides`")
    for path in (svs(tmp_path / "a.svs", tissue), pyramid(tmp_path / "b.tif", tissue)):
        assert openslide.OpenSlide.detect_format(path)
        ours, theirs = read_slide(path), read_by_openslide(path)
        assert theirs.is_rgb
        assert theirs.geometry == ours.geometry
        assert len(theirs.levels) == 2
        np.testing.assert_array_equal(np.asarray(theirs.array), np.asarray(ours.array))
        where = (slice(1, 3), slice(33, 200, 3), 41)
        np.testing.assert_array_equal(np.asarray(theirs.levels[0][where]), np.asarray(ours.levels[0][where]))


def test_several_threads_and_other_processes_read_at_once(tmp_path, tissue):
    volume = read_slide(pyramid(tmp_path / "a.tif", tissue))
    copy = pickle.loads(pickle.dumps(volume.array))
    wrong: list[int] = []

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(15):
            y, x = int(rng.integers(0, 900)), int(rng.integers(0, 1300))
            got = copy[:, y : y + 200, x : x + 200].compute(scheduler="threads", num_workers=2)
            if not np.array_equal(got, channels_first(tissue[y : y + 200, x : x + 200])):
                wrong.append(seed)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_damaged_tile_is_one_sentence_and_the_others_are_read(tmp_path, tissue):
    path = pyramid(tmp_path / "a.tif", tissue, compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        at, size = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    volume = read_slide(path)
    np.testing.assert_array_equal(np.asarray(volume.array[:, 300:, 300:]), channels_first(tissue[300:, 300:]))
    with pytest.raises(BadImage, match="A part of a.tif cannot be read: it is damaged"):
        np.asarray(volume.array[:, :10, :10])


def test_what_is_no_slide_is_one_sentence(tmp_path):
    pytest.importorskip("openslide", reason="needs the extra `slides`")
    with pytest.raises(BadImage, match="none.svs cannot be opened"):
        read_slide(tmp_path / "none.svs")
    for name, data in {"a.mrxs": b"\xff\xd8\xff\xe0 no slide", "b.vms": b"hello", "c.svs": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadImage, match=f"{name} is"):
            read_slide(tmp_path / name)


def test_a_slide_of_ten_thousand_million_pixels_opens_at_once(tmp_path):
    size = 100_000
    path = tmp_path / "huge.tif"
    tile = np.full((512, 512, 3), 200, np.uint8)
    import imagecodecs

    encoded = imagecodecs.jpeg_encode(tile)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4, 16, 64):
            count = (-(-size // step // 512)) ** 2
            tiff.write(
                (encoded for _ in range(count)), shape=(size // step, size // step, 3), dtype=np.uint8, tile=(512, 512),
                photometric="rgb", compression="jpeg", metadata=None, subfiletype=int(step > 1),
            )  # fmt: skip
    np.asarray(read_slide(path).levels[-1][:, :2, :2])  # what is imported once is not counted
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    volume = read_slide(path)
    seconds = time.perf_counter() - start
    corner = np.asarray(volume.array[:, -300:, -300:])
    assert volume.array.shape == (3, size, size)
    assert corner.shape == (3, 300, 300)
    assert corner.min() > 190
    assert seconds < 5  # every tile of the slide would take minutes
    assert process.memory_info().rss - before < 200e6


def test_napari_shows_the_levels_in_their_place(tmp_path, tissue):
    components = pytest.importorskip("napari.components", reason="needs napari")
    volume = read_slide(svs(tmp_path / "a.svs", tissue))
    viewer = components.ViewerModel()
    for channel in range(3):
        levels = [level[channel] for level in (volume.array, *volume.levels)]
        layer = viewer.add_image(levels, multiscale=True, **volume.geometry.to_layer())
    assert layer.multiscale
    np.testing.assert_allclose(layer.extent.step, (0.2527, 0.2527))
    np.testing.assert_allclose(layer.downsample_factors[1], (4, 4))
    assert layer.get_value((100 * 0.2527, 200 * 0.2527), world=True)[1] is not None


def test_images_of_a_file_and_its_pyramids_are_chosen(tmp_path, rng):
    path = tmp_path / "two.ome.tif"
    first, second = rng.integers(0, 60000, (2, 3, 300, 400), dtype=np.uint16), np.zeros((50, 60), np.uint16)
    names = {"axes": "CZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.4, "PhysicalSizeZ": 2, "Name": "tumour"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            first,
            tile=(128, 128),
            subifds=1,
            photometric="minisblack",
            metadata={**names, "Channel": {"Name": ["a", "b"]}},
        )
        tiff.write(first[..., ::2, ::2], tile=(128, 128), subfiletype=1, photometric="minisblack")
        tiff.write(
            second, photometric="minisblack", metadata={"axes": "YX", "PhysicalSizeX": 3.0, "PhysicalSizeY": 3.0}
        )
    with pytest.raises(AmbiguousImage, match="holds 2 images") as raised:
        read_slide(path)
    assert [choice.key for choice in raised.value.choices] == ["image=0", "image=1"]
    assert "tumour" in raised.value.choices[0].title
    volume: Volume = read_slide(path, choose=["image=0"])
    assert volume.geometry.spacing == (2, 0.4, 0.5)
    assert volume.channel_names == ("a", "b")
    np.testing.assert_array_equal(np.asarray(volume.array), first)
    np.testing.assert_array_equal(np.asarray(volume.levels[0][1, 1:, 7:50:3]), first[1, 1:, 14:100:6, ::2])
    assert read_slide(path, choose=["image=1"]).geometry.spacing == (3, 3)


def test_labels_in_a_pyramid_are_read_into_memory(tmp_path, rng):
    labels = rng.integers(0, 70000, (300, 400), dtype=np.uint32)
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2):
            tiff.write(
                labels[::step, ::step],
                tile=(128, 128),
                photometric="minisblack",
                metadata=None,
                subfiletype=int(step > 1),
            )
    read, _ = read_labels(path)
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, labels)
