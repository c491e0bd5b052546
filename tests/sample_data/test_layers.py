"""The samples as napari gets them, and as they lie in their files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import napari_medt.sample_data as samples
from napari_medt.sample_data.make import SEED, digest
from napari_medt.sample_data.phantom import ORGANS, SPACING_MM

FOLDER = Path(samples.__file__).parent
FILES = ("fluorescence", "fluorescence_nuclei", "tissue", "tissue_nuclei", "ct_phantom", "ct_phantom_organs")


@pytest.fixture(params=["fluorescence", "tissue", "ct_phantom"])
def layers(request):
    return getattr(samples, request.param)()


def test_image_first_then_a_hidden_mask_at_the_same_place(layers):
    (image, look, kind), (mask, hidden, mask_kind) = layers
    assert (kind, mask_kind) == ("image", "labels")
    assert hidden["visible"] is False
    assert hidden["name"].startswith("reference")
    assert image.shape[: mask.ndim] == mask.shape
    assert look["scale"] == hidden["scale"]
    assert look["units"] == hidden["units"]
    assert len(look["scale"]) == mask.ndim


def test_layers_say_that_they_are_synthetic(layers):
    assert all("synthetic" in options["metadata"]["medt_sample"]["origin"] for _, options, _ in layers)


def test_labels_are_numbered_without_gaps(layers):
    mask = layers[1][0]
    assert np.array_equal(np.unique(mask), np.arange(mask.max() + 1))


def test_opening_needs_neither_torch_nor_scikit_image():
    code = (
        "import sys, napari_medt.sample_data as s\n"
        "assert 'numpy' not in sys.modules and 'tifffile' not in sys.modules, 'imported too early'\n"
        "s.fluorescence(); s.tissue(); s.ct_phantom()\n"
        "assert not {'torch', 'monai', 'skimage'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", FILES)
def test_files_are_those_of_the_record(name):
    record = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    array = tifffile.imread(FOLDER / f"{name}.tif")
    assert record[name]["seed"] == SEED
    assert record[name]["sha256"] == digest(array), "a picture was changed without its record, or the other way round"


@pytest.mark.parametrize(
    ("name", "spacing", "units"),
    [
        ("fluorescence", (0.65, 0.65), "um"),
        ("tissue_nuclei", (0.4, 0.4), "um"),
        ("ct_phantom_organs", SPACING_MM, "mm"),
    ],
)
def test_files_keep_their_scale(name, spacing, units):
    from napari_medt.io import read

    volume = read(FOLDER / f"{name}.tif")
    assert volume.geometry.spacing == pytest.approx(spacing)
    assert volume.geometry.units == units


def test_all_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 3_000_000


def test_fluorescent_nuclei_shine():
    (image, *_), (mask, *_) = samples.fluorescence()
    assert 80 <= mask.max() <= 200
    level = ndimage.mean(image, mask, np.arange(1, mask.max() + 1))
    around = ndimage.binary_dilation(mask > 0, iterations=8)
    assert (level > 1.4 * np.median(image[~around])).all()
    assert (image == 4095).mean() < 1e-3, "the camera should not be saturated"


def test_nuclei_of_the_tissue_take_up_haematoxylin():
    (image, *_), (mask, *_) = samples.tissue()
    assert 250 <= mask.max() <= 700
    density = -np.log((image.astype(float) + 1) / 256)
    # Red is what haematoxylin takes away and eosin lets pass.
    assert density[mask > 0, 0].mean() > 3 * density[mask == 0, 0].mean()
    assert density[mask > 0].mean() > 2 * density[mask == 0].mean()


def test_organs_have_the_hounsfield_units_of_their_kind():
    (image, *_), (mask, options, _) = samples.ct_phantom()
    assert options["metadata"]["classes"] == {0: "background", **ORGANS}

    def inner(organ):
        label = next(number for number, name in ORGANS.items() if name == organ)
        return float(np.median(image[ndimage.binary_erosion(mask == label)]))

    assert image[0, 0, 0] == pytest.approx(-1000, abs=40)
    assert inner("lungs") < -700
    assert -15 < inner("kidney cyst") < 25 < inner("liver lesion") < 85 < inner("liver") < 125
    assert inner("right kidney") == pytest.approx(inner("left kidney"), abs=25)
    assert inner("aorta") > 180
    assert 5 < image[ndimage.binary_erosion(mask == 1, iterations=2)].std() < 25, "noise as of a scan"


def test_organs_lie_where_they_lie_in_a_body():
    """z upwards, y to the back, x to the patient's left."""
    mask = samples.ct_phantom()[1][0]
    centre = {name: ndimage.center_of_mass(mask == label) for label, name in ORGANS.items()}
    middle = (mask.shape[2] - 1) / 2
    assert centre["liver"][2] < middle < centre["spleen"][2]
    assert centre["right kidney"][2] < middle < centre["left kidney"][2]
    assert centre["vertebrae"][1] > centre["aorta"][1] > centre["stomach"][1]
    assert centre["lungs"][0] > centre["liver"][0] > centre["right kidney"][0]


def test_volumes_of_organs_are_plausible():
    mask = samples.ct_phantom()[1][0]
    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    millilitres = {name: float((mask == label).sum()) * voxel_ml for label, name in ORGANS.items()}
    assert 700 < millilitres["liver"] < 2200
    assert 60 < millilitres["spleen"] < 400
    assert 90 < millilitres["right kidney"] < 250
    assert 90 < millilitres["left kidney"] < 250
