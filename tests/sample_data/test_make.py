"""The script: the same seed gives the same pictures, today's script those that lie beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import napari_medt.sample_data as samples
from napari_medt.sample_data.cells import fluorescence_field
from napari_medt.sample_data.make import PICTURES, SEED, digest, main, make_picture
from napari_medt.sample_data.phantom import ct_phantom_volume
from napari_medt.sample_data.scanner import scan_error
from napari_medt.sample_data.shapes import Outline, draw, poisson, renumber
from napari_medt.sample_data.slide import tissue_field

SMALL = {
    "fluorescence": lambda rng: fluorescence_field(rng, (96, 128)),
    "tissue": lambda rng: tissue_field(rng, (112, 128)),
    "ct_phantom": lambda rng: ct_phantom_volume(rng, (12, 36, 40)),
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _close(made: np.ndarray, kept: np.ndarray, step: float) -> None:
    """Equal but for rounding: another library version may move single values, never a structure."""
    assert made.shape == kept.shape
    assert made.dtype == kept.dtype
    away = np.abs(made.astype(float) - kept.astype(float))
    assert (away > step).mean() < 1e-3


@pytest.mark.parametrize("name", PICTURES)
def test_same_seed_same_picture_other_seed_other_picture(name):
    one, two, other = (SMALL[name](_rng(seed)) for seed in (3, 3, 4))
    assert [digest(array) for array in one] == [digest(array) for array in two]
    assert digest(one[0]) != digest(other[0])


@pytest.mark.parametrize("name", PICTURES)
def test_small_forms_have_image_and_mask(name):
    image, mask = SMALL[name](_rng(5))
    assert image.shape[: mask.ndim] == mask.shape
    assert mask.any()
    assert not mask.all()


@pytest.mark.parametrize("name", ["fluorescence", pytest.param("tissue", marks=pytest.mark.slow)])
def test_fields_that_come_along_are_what_the_script_makes(name):
    for stem, array in make_picture(name).items():
        kept = tifffile.imread(Path(samples.__file__).parent / f"{stem}.tif")
        _close(array, kept, step=0 if stem != name else 3)


@pytest.mark.slow
def test_phantom_that_comes_along_is_what_the_script_makes():
    for stem, array in make_picture("ct_phantom").items():
        kept = tifffile.imread(Path(samples.__file__).parent / f"{stem}.tif")
        _close(array, kept, step=0 if stem.endswith("organs") else 3)


def test_command_writes_files_and_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("napari_medt.sample_data.make.tissue_field", lambda rng: tissue_field(rng, (80, 96)))
    assert main(["--out", str(tmp_path / "new"), "--only", "tissue", "--seed", "9"]) == 0
    record = json.loads((tmp_path / "new" / "samples.json").read_text(encoding="utf-8"))
    assert sorted(record) == ["tissue", "tissue_nuclei"]
    for stem, entry in record.items():
        array = tifffile.imread(tmp_path / "new" / f"{stem}.tif")
        assert (entry["seed"], entry["shape"], entry["sha256"]) == (9, list(array.shape), digest(array))
    assert "tissue_nuclei.tif" in capsys.readouterr().out


def test_unknown_picture_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no sample picture 'retina'; choose one of fluorescence, tissue, ct_phantom"):
        make_picture("retina", seed=SEED)


def test_outline_covers_the_area_of_its_ellipse():
    footprint = draw(Outline(40.3, 50.7, 14.0, 8.0, 0.6, np.zeros((1, 3))), (90, 100))
    assert footprint is not None
    assert footprint.cover().sum() == pytest.approx(np.pi * 14 * 8, rel=0.02)
    y, x = np.mgrid[footprint.box]
    weight = footprint.cover()
    assert ((y * weight).sum() / weight.sum(), (x * weight).sum() / weight.sum()) == pytest.approx(
        (40.3, 50.7), abs=0.05
    )


def test_outline_outside_the_image_is_not_drawn():
    assert draw(Outline(-60.0, 20.0, 10.0, 6.0, 0.0, np.zeros((1, 3))), (64, 64)) is None


@pytest.mark.parametrize("expected", [0.4, 6.0, 300.0])
def test_shot_noise_has_the_mean_and_variance_of_poisson(expected):
    counts = poisson(_rng(1), np.full(200_000, expected))
    assert counts.mean() == pytest.approx(expected, rel=0.02)
    assert counts.var() == pytest.approx(expected, rel=0.03)


def test_renumber_drops_slivers_and_gaps():
    labels = np.zeros((20, 20), dtype=np.uint16)
    labels[:5, :5], labels[10, 10], labels[12:18, 2:9] = 4, 7, 9
    assert np.unique(renumber(labels)).tolist() == [0, 1, 2]
    assert renumber(labels)[10, 10] == 0


def test_noise_of_the_scanner_is_stronger_within_a_wider_body():
    y, x = np.mgrid[-40:40, -40:40]
    thin, wide = (np.where((x / 30) ** 2 + (y / r) ** 2 < 1, 40.0, -1000.0) for r in (10, 36))
    error = scan_error(_rng(2), np.stack([thin] * 4 + [wide] * 4), (4.5, 4.5))
    core = np.s_[:, 35:45, 35:45]
    assert error[4:][core].std() > 2 * error[:4][core].std()


def test_bone_darkens_what_lies_between():
    y, x = np.mgrid[-40:40, -40:40]
    water = np.where(x**2 + y**2 < 34**2, 20.0, -1000.0)
    bones = np.where(((np.abs(x) - 18) ** 2 + y**2) < 36, 1200.0, water)
    error = [scan_error(_rng(2), np.repeat(part[None], 6, 0), (4.0, 4.0)).mean(0) for part in (water, bones)]
    between, elsewhere = (np.abs(x) < 8) & (np.abs(y) < 3), (np.abs(x) < 8) & (np.abs(y - 22) < 3)
    difference = error[1] - error[0]
    assert difference[between].mean() < difference[elsewhere].mean() - 5


def test_touching_nuclei_have_labels_of_their_own():
    """The field is worth separating: some nuclei touch, and each keeps its number."""
    mask = samples.fluorescence()[1][0]
    blobs = ndimage.label(mask > 0)[1]
    assert blobs < mask.max() - 5
