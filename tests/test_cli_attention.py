# ruff: noqa: F811  (fixtures of another file)
"""`napari-medt attention` writes what the Python door gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_medt.attention import AttentionExplorer
from napari_medt.core import Geometry, LabelMap, Volume
from napari_medt.io import read, write
from napari_medt.zoo import load_model
from tests.test_cli import call, image, tiny_model  # noqa: F401


@pytest.fixture
def scan(tmp_path: Path, rng: np.random.Generator) -> Path:
    geometry = Geometry(np.array([[3.0, 0, 0, 5], [0, 0, -0.8, 20], [0, 0.8, 0, -7], [0, 0, 0, 1]]), "mm", "patient")
    volume = Volume(rng.random((1, 3, 40, 36), dtype=np.float32), geometry)
    return write(volume, tmp_path / "scan.nii.gz")


@pytest.fixture
def explorer(tiny_model, image):
    return AttentionExplorer(load_model(tiny_model, device="cpu"), read(image))


@pytest.mark.parametrize("name", ["map.tif", "map.nii.gz", "map.ome.zarr"])
def test_writes_the_map_of_the_whole_image(tiny_model, image, explorer, tmp_path, name):
    text = call("attention", image, "-m", tiny_model, "--source", "layer2.1", "--head", 3, "-o", tmp_path / name)
    expected = explorer.overview("layer2.1", 3)
    found = read(tmp_path / name)
    np.testing.assert_allclose(np.asarray(found.array[0]).reshape(expected.data.shape), expected.data, rtol=1e-5)
    assert expected.caption in text
    assert "layer2.1 -> " in text


def test_writes_the_map_of_a_point_where_it_lies(tiny_model, scan, tmp_path):
    text = call(
        "attention", scan, "-m", tiny_model, "--query", "1,30,9", "--source", "layer1.0", "-o", tmp_path / "map.nii.gz"
    )
    explorer = AttentionExplorer(load_model(tiny_model, device="cpu"), read(scan))
    expected = explorer.pick((1, 30, 9), source="layer1.0")[0]
    found = read(tmp_path / "map.nii.gz")
    assert expected.even < 1
    np.testing.assert_allclose(np.asarray(found.array[0]), expected.data / expected.even, rtol=1e-5)
    assert found.geometry.close_to(expected.geometry, shape=expected.data.shape)
    assert "in times even attention" in text, "as the map saved in the dock"


def test_writes_the_map_of_a_structure(tiny_model, image, explorer, tmp_path):
    labels = np.zeros((40, 52), np.uint8)
    labels[5:20, 30:44] = 2
    write(LabelMap(labels, read(image).geometry), tmp_path / "mask.tif")
    mask = f"{tmp_path / 'mask.tif'}:2"
    call("attention", image, "-m", tiny_model, "--structure", mask, "-o", tmp_path / "map.tif")
    expected = explorer.structure(labels == 2, source=explorer.sources()[0])
    np.testing.assert_allclose(np.asarray(read(tmp_path / "map.tif").array[0]), expected.data, rtol=1e-5)


def test_lists_what_can_be_asked(tiny_model, explorer):
    text = call("attention", "--list", "-m", tiny_model)
    assert all(name in text for name in explorer.sources())
    assert "row and column" in text


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (["--query", "1,x"], "The point '1,x' is none; give an index for each axis"),
        (["--query", "1,99"], "lies outside the image of 40 x 52"),
        (["--query", "1,1", "--structure", "a:1"], "are two questions"),
        (["--structure", "mask.tif"], "names no label of a mask"),
        (["--source", "layer9"], "has no attention called"),
        (["--head", "8"], "has no head 8; choose 0 to 7"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tiny_model, image, tmp_path, wishes, sentence):
    assert sentence in call("attention", image, "-m", tiny_model, *wishes, "-o", tmp_path / "map.tif", code=2)
    assert not (tmp_path / "map.tif").exists()


def test_checks_whether_the_map_deserves_belief(tiny_model, image, explorer, tmp_path, monkeypatch):
    """The figures are those of `check_faithfulness`, which has tests of its own; here it is asked the right thing."""
    from napari_medt import attention

    asked = {}

    class Checked:
        def label(self, found):
            return replace(found, caption=f"{found.caption} This map does no better than chance.")

    def check(model, volume, found, *, structure, region, **options):
        asked.update(structure=structure, region=region, found=found)
        return Checked()

    monkeypatch.setattr(attention, "check_faithfulness", check)
    text = call("attention", image, "-m", tiny_model, "--query", "9,9", "--check")
    assert "This map does no better than chance." in " ".join(text.split())
    assert "->" not in text, "no file was asked for"
    assert (asked["structure"], asked["region"]) == (1, None)
    assert asked["found"].query == (9, 9)
    text = call("attention", image, "-m", tiny_model, "--query", "9,9", "--check", "--class", "liver", code=2)
    assert "has no class 'liver'; give --class" in " ".join(text.split())


def test_image_and_output_are_needed(tiny_model):
    assert "An image and -o MAP are needed" in call("attention", "-m", tiny_model, code=2)
