from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", reason="needs the extra `lazy`")
da = pytest.importorskip("dask.array", reason="needs the extra `lazy`")

from napari_medt.core import BadImage, Cancel, Cancelled, Geometry, StorageError, Volume  # noqa: E402
from napari_medt.io.pyramid import coarser, level_shapes  # noqa: E402
from napari_medt.io.zarr_in import read_zarr, read_zarr_labels  # noqa: E402
from napari_medt.io.zarr_out import create_zarr_labels, write_zarr_labels  # noqa: E402

NAMES = {1: "nucleus", 7: "vessel"}
COLOURS = {1: (1.0, 0.0, 0.2), 7: (0.0, 1.0, 1.0)}
UM = Geometry.from_spacing((2, 0.5, 0.5), origin=(1, 2, 3), units="um")


@pytest.fixture
def mask(rng: np.random.Generator) -> np.ndarray:
    """A mask of a few boxes, so that it compresses and has levels that mean something."""
    labels = np.zeros((9, 700, 530), np.uint8)
    for value in (1, 7, 3):
        z, y, x = (int(rng.integers(0, size - 8)) if size > 8 else 0 for size in labels.shape)
        labels[z : z + 5, y : y + 300, x : x + 200] = value
    return labels


def image(path: Path, *, zarr_format: int, levels: list[tuple[int, ...]], labels: list[str] | None = None) -> Path:
    """An image (c, z, y, x) with these shapes of levels, as another program writes it."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "micrometer"} for a in ("z", "y", "x")
    ]
    datasets = []
    for level, shape in enumerate(levels):
        group.create_array(str(level), shape=(2, *shape), dtype="uint16", chunks=(1, 4, 256, 256))[...] = level + 1
        step = [a / b for a, b in zip(levels[0], shape, strict=True)]
        scale = [1, 2 * step[0], 0.5 * step[1], 0.5 * step[2]]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    described: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    if zarr_format == 2:
        described["multiscales"][0]["version"] = "0.4"
        group.attrs.update(described)
    else:
        group.attrs["ome"] = {"version": "0.5", **described}
    return path


def everything(folder: Path, *, but: str = "labels") -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.relative_to(folder).parts[0] != but
    }


def test_a_mask_of_its_own_comes_back_with_geometry_names_and_colours(tmp_path, mask):
    path = write_zarr_labels(mask, tmp_path / "mask.ome.zarr", geometry=UM, names=NAMES, colours=COLOURS)
    (read,) = read_zarr_labels(path)
    np.testing.assert_array_equal(read.array, mask)
    assert read.array.dtype == np.uint8
    assert (read.geometry, read.names, read.colours) == (UM, NAMES, COLOURS)
    assert os.listdir(tmp_path) == ["mask.ome.zarr"]
    attributes = json.loads((path / ".zattrs").read_text())
    assert attributes["image-label"]["version"] == attributes["multiscales"][0]["version"] == "0.4"
    levels = attributes["multiscales"][0]["datasets"]
    assert [zarr.open_array(path / level["path"], mode="r").shape for level in levels] == [(9, 700, 530), (9, 350, 265)]
    assert levels[1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [2, 1, 1]},
        {"type": "translation", "translation": [1, 2.25, 3.25]},
    ]


@pytest.mark.parametrize("turn", ["straight in a patient", "oblique", "flipped"])
def test_a_geometry_that_ome_zarr_has_no_words_for_comes_back_exactly(tmp_path, mask, turn):
    affine = np.diag([3.0, 0.7, 0.8, 1])
    affine[:3, 3] = -100.25, 30, 7
    if turn == "flipped":
        affine[1, 1] = -0.7
    elif turn == "oblique":
        c, s = np.cos(0.3), np.sin(0.3)
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    geometry = Geometry(affine, "mm", "patient")
    path = write_zarr_labels(mask, tmp_path / "m.zarr", geometry=geometry)
    assert read_zarr_labels(path)[0].geometry == geometry
    # Where another program changed the sizes since, its word counts.
    described = json.loads((path / ".zattrs").read_text())
    described["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 1, 1]
    (path / ".zattrs").write_text(json.dumps(described))
    assert read_zarr_labels(path)[0].geometry.spacing == (1, 1, 1)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_inside_an_image_the_mask_takes_its_levels_and_leaves_it_alone(tmp_path, mask, zarr_format):
    levels = [mask.shape, (9, 350, 265), (4, 87, 66)]
    path = image(tmp_path / "i.ome.zarr", zarr_format=zarr_format, levels=levels)
    before = everything(path)
    volume = read_zarr(path)
    target = write_zarr_labels(mask, path, names=NAMES, source=volume)
    assert target == path / "labels" / "segmentation"
    assert write_zarr_labels(mask > 0, path / "labels" / "cells", source=volume).name == "cells"
    assert everything(path) == before
    first, second = read_zarr_labels(path)
    np.testing.assert_array_equal(first.array, mask)
    np.testing.assert_array_equal(second.array, mask > 0)
    assert first.names == NAMES
    assert first.geometry == volume.geometry
    group = zarr.open_group(target, mode="r")
    assert [group[str(level)].shape for level in range(3)] == levels
    assert group.metadata.zarr_format == zarr_format
    ome = group.attrs.asdict() if zarr_format == 2 else group.attrs["ome"]
    assert ome["image-label"]["source"] == {"image": "../../"}
    assert (group["1"][:] != mask[:, ::2, ::2]).mean() < 0.01
    np.testing.assert_array_equal(read_zarr(path).array[0, 0, 0, :3], [1, 1, 1])


def test_an_older_mask_is_replaced_and_foreign_entries_stay_listed(tmp_path, mask):
    path = image(tmp_path / "i.zarr", zarr_format=2, levels=[mask.shape])
    zarr.open_group(path / "labels", mode="w", zarr_format=2).attrs.update({"labels": ["old"], "note": "mine"})
    for value in (1, 2):
        write_zarr_labels(mask * 0 + value, path)
    attributes = zarr.open_group(path / "labels", mode="r").attrs.asdict()
    assert attributes == {"labels": ["old", "segmentation"], "note": "mine"}
    assert (read_zarr_labels(path / "labels" / "segmentation")[0].array == 2).all()
    assert sorted(os.listdir(path / "labels")) == [".zattrs", ".zgroup", "segmentation"]


def test_slabs_may_be_assigned_one_after_another_along_any_axis(tmp_path, mask):
    for axis in range(3):
        labels = create_zarr_labels(
            tmp_path / f"{axis}.zarr", shape=mask.shape, dtype=np.uint16, geometry=UM, names=NAMES, colours=COLOURS
        )
        step = (4, 150, 201)[axis]
        for start in range(0, mask.shape[axis], step):
            where = (*[slice(None)] * axis, slice(start, start + step))
            labels[where] = mask[where]
        assert not (tmp_path / f"{axis}.zarr").exists()
        np.testing.assert_array_equal(read_zarr_labels(labels.finish())[0].array, mask)


def test_what_is_discarded_failed_or_forgotten_leaves_nothing(tmp_path, mask, monkeypatch):
    def begin(name: str = "a.zarr") -> Any:
        labels = create_zarr_labels(tmp_path / name, shape=mask.shape, dtype=np.uint8, geometry=UM)
        labels[:] = mask
        return labels

    begin().discard()
    assert os.listdir(tmp_path) == []
    begin()
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), begin():
        raise KeyError
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        begin().finish(cancel=cancel)
    assert os.listdir(tmp_path) == []

    write_zarr_labels(mask, tmp_path / "a.zarr", geometry=UM)
    labels = begin()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="a.zarr could not be written: the disk is full"):
        labels.finish()
    assert os.listdir(tmp_path) == ["a.zarr"]
    np.testing.assert_array_equal(read_zarr_labels(tmp_path / "a.zarr")[0].array, mask)


def test_when_the_last_step_fails_the_old_mask_is_there(tmp_path, mask, monkeypatch):
    write_zarr_labels(mask, tmp_path / "a.zarr", geometry=UM)
    labels = create_zarr_labels(tmp_path / "a.zarr", shape=mask.shape, dtype=np.uint8, geometry=UM)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "a.zarr" and self.name.endswith(".tmp"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="you may not write there"):
        labels.finish()
    assert os.listdir(tmp_path) == ["a.zarr"]
    np.testing.assert_array_equal(read_zarr_labels(tmp_path / "a.zarr")[0].array, mask)


def test_a_lazy_mask_is_computed_once_block_by_block(tmp_path, mask):
    computed = []

    def block(values: np.ndarray) -> np.ndarray:
        computed.append(values.shape)
        return values.astype(np.int64)

    lazy = da.from_array(mask, chunks=(5, 130, 530)).map_blocks(
        block, dtype=np.int64, meta=np.empty((0, 0, 0), np.int64)
    )
    path = write_zarr_labels(lazy, tmp_path / "a.zarr", geometry=UM)
    assert len(computed) == 12
    np.testing.assert_array_equal(read_zarr_labels(path)[0].array, mask)
    with pytest.raises(BadImage, match="negative"):
        write_zarr_labels(lazy - 1, tmp_path / "b.zarr", geometry=UM)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_what_is_no_mask_or_has_no_place_is_refused(tmp_path, mask):
    with pytest.raises(BadImage, match="which are no labels"):
        write_zarr_labels(mask / 2, tmp_path / "a.zarr")
    with pytest.raises(BadImage, match="negative numbers"):
        write_zarr_labels(mask.astype(int) - 1, tmp_path / "a.zarr")
    with pytest.raises(BadImage, match="does not fit its image"):
        write_zarr_labels(mask, tmp_path / "a.zarr", source=Volume.from_array(mask[:4]))
    with pytest.raises(BadImage, match="does not fit a geometry of 2 axes"):
        write_zarr_labels(mask, tmp_path / "a.zarr", geometry=Geometry.from_spacing((1, 1)))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    with pytest.raises(BadImage, match="is there already, and is no OME-Zarr image"):
        write_zarr_labels(mask, tmp_path / "notes")
    with pytest.raises(StorageError, match="the folder does not exist"):
        write_zarr_labels(mask, tmp_path / "nowhere" / "a.zarr")
    assert os.listdir(tmp_path) == ["notes"]


def test_masks_of_other_programs(tmp_path, rng):
    from tests.io.test_zarr import make

    labels = rng.integers(0, 90, (1, 1, 20, 30)).astype(np.int32)
    table = {
        "colors": [{"label-value": 3, "rgba": [255, 0, 51, 128]}],
        "properties": [{"label-value": 3, "class": "cell"}],
    }
    path = make(tmp_path / "a.zarr", labels, "czyx", scale=[1, 1, 0.5, 0.5], **{"image-label": table})
    (read,) = read_zarr_labels(path)
    np.testing.assert_array_equal(read.array, labels[0, 0])
    assert read.array.dtype == np.uint8
    assert (read.names, read.colours) == ({3: "cell"}, {3: (1, 0, 0.2)})
    path = make(tmp_path / "b.zarr", labels - 5, "czyx", scale=[1, 1, 0.5, 0.5], **{"image-label": {}})
    with pytest.raises(BadImage, match="negative numbers"):
        read_zarr_labels(path)
    zarr.open_group(tmp_path / "none.zarr", mode="w")
    with pytest.raises(BadImage, match="There is no mask in none.zarr"):
        read_zarr_labels(tmp_path / "none.zarr")


def test_coarse_labels_are_the_most_frequent_ones(rng):
    fine = rng.integers(0, 4, (6, 9, 8)).astype(np.uint16)
    part = coarser(fine, (3, 5, 4), (slice(1, 3), slice(0, 5), slice(1, 4)), labels=True)
    padded = np.pad(fine, ((0, 0), (0, 1), (0, 0)), mode="edge")
    for z, y, x in np.ndindex(part.shape):
        samples = padded[2 * z + 2 : 2 * z + 4, 2 * y : 2 * y + 2, 2 * x + 2 : 2 * x + 4].ravel()
        counts = np.bincount(samples)
        assert part[z, y, x] == np.flatnonzero(counts == counts.max())[-1]
    odd = coarser(fine, (4, 9, 8), (slice(0, 4), slice(0, 9), slice(0, 8)), labels=True)
    np.testing.assert_array_equal(odd, fine[[0, 2, 3, 5]])


def test_levels_become_isotropic():
    assert level_shapes((40, 1200, 1100), (4, 1, 1)) == [(40, 1200, 1100), (40, 600, 550), (40, 300, 275)]
    assert level_shapes((600, 1100), (1, 1)) == [(600, 1100), (300, 550), (150, 275)]
    assert level_shapes((1, 1025), (1, 1))[-1] == (1, 257)
