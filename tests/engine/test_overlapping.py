"""Structures that overlap: each has a sigmoid of its own, and nothing of them is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Geometry, Volume, silent
from napari_medt.engine import predict
from napari_medt.engine.calibration import fit_temperature
from napari_medt.engine.parcels import Parcel, cut
from napari_medt.engine.results import Results
from napari_medt.engine.running import set_up
from napari_medt.nets import create_net
from napari_medt.training import evaluate, fine_tune
from napari_medt.zoo import Model, check_model, save_model

NAMES = ("background", "large", "small", "elsewhere")


class Told(nn.Module):
    """Logits that are the channels of the image; the last also depends on which way the window lies."""

    num_classes = in_channels = 3

    def __init__(self, loudness=1.0):
        super().__init__()
        self.loudness, self.drop = loudness, nn.Dropout(0.5)

    def forward(self, x):
        slope = torch.linspace(-1, 1, x.shape[-1], device=x.device)
        return torch.cat((x[:, :2], self.drop(x[:, 2:] + slope)), 1) * self.loudness


@pytest.fixture
def make(make_card):
    def make(dims=2, loudness=1.0, **changes):
        card = make_card(
            classes=NAMES,
            overlapping=True,
            channels=("p", "q", "r"),
            net_options={"num_classes": 3},
            spatial_dims=dims,
            window=(32,) * dims,
            intensity={"kind": "none"},
            **changes,
        )
        return Model(card, Told(loudness).eval(), torch.device("cpu"))

    return make


@pytest.fixture
def image(rng):
    """Logits without any order among the structures: some places are of several, some of none."""
    return Volume(rng.normal(0, 3, (3, 70, 90)).astype(np.float32), Geometry.from_spacing((1, 1), units="mm"))


def test_every_structure_is_found_on_its_own_and_the_last_is_painted(make, image):
    found = predict(make(), image, probabilities=True)
    assert found.structures.shape == found.probabilities.shape == (3, 70, 90)
    assert np.array_equal(found.structures[:2], image.array[:2] > 0)
    assert np.allclose(found.probabilities[:2], 1 / (1 + np.exp(-image.array[:2])), atol=2e-3)
    assert (found.structures.sum(0) > 1).any()
    value = np.where(found.structures[2], 3, np.where(found.structures[1], 2, found.structures[0]))
    assert np.array_equal(found.labels, value)
    masks = found.masks()
    assert [mask.names for mask in masks] == [{1: "large"}, {2: "small"}, {3: "elsewhere"}]
    assert all(np.array_equal(mask.array > 0, inside) for mask, inside in zip(masks, found.structures, strict=True))


def test_temperature_softens_probabilities_and_moves_no_border(make, image):
    sharp, soft = (predict(make(temperature=t), image, probabilities=True) for t in (1.0, 4.0))
    assert np.array_equal(sharp.structures[:2], soft.structures[:2])
    assert np.allclose(soft.probabilities[0], 1 / (1 + np.exp(-image.array[0] / 4)), atol=2e-3)


def test_uncertainty_is_the_largest_doubt_about_any_structure(make, image):
    chances = predict(make(), image, probabilities=True).probabilities.astype(float)
    entropy = (-chances * np.log2(chances + 1e-9) - (1 - chances) * np.log2(1 - chances + 1e-9)).max(0)
    assert np.allclose(predict(make(), image, uncertainty="entropy").uncertainty, entropy, atol=0.02)
    margin = 1 - abs(2 * chances - 1).min(0)
    assert np.allclose(predict(make(), image, uncertainty="margin").uncertainty, margin, atol=0.02)


@pytest.mark.parametrize("kind", ["flips", "dropout"])
def test_passes_disagree_only_where_a_structure_depends_on_them(make, image, kind):
    steady = replace(image, array=image.array * np.float32([1, 1, 0])[:, None, None])
    found = predict(make(loudness=8.0), steady, uncertainty=kind)
    assert 0 <= found.uncertainty.min() < 0.05
    assert 0.2 < found.uncertainty.max() <= 1


def test_parts_made_elsewhere_are_the_whole(make, rng):
    volume = Volume(rng.normal(0, 3, (3, 50, 40, 36)).astype(np.float32), Geometry.from_spacing((2, 1, 1), units="mm"))
    model = make(3, spacing=(2.0, 1.5, 1.5))
    whole = predict(model, volume, uncertainty="flips")
    task = set_up(model, volume, uncertainty="flips")
    joined = Results(volume.spatial_shape, model.card, task.settings.wanted, axes=task.prepared.grid.axes)
    for box in cut(task, 3):
        found, _ = Parcel.of(task, box).open(model, silent, Cancel())
        joined.take(box, found)
    joined.finish()
    assert np.array_equal(joined.structures, whole.structures)
    assert np.array_equal(joined.labels, whole.labels)


def test_a_store_gets_the_painted_labels(make, image):
    store = np.zeros(image.spatial_shape, np.uint8)
    found = predict(make(), image, into=store)
    assert found.structures is None
    assert np.array_equal(store, predict(make(), image).labels)


def test_temperature_is_fitted_to_all_structures(make, rng):
    logits = rng.normal(0, 1.5, (3, 64, 64)).astype(np.float32)
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    volume = Volume(logits, Geometry.from_spacing((1, 1), units="mm"))
    model = make(loudness=3.0)
    model.net.forward = lambda x: 3 * x
    assert fit_temperature(model, [(volume, truth)]) == pytest.approx(3, rel=0.1)
    with pytest.raises(BadTrainingData, match=r"\(64, 64\) samples but the image has \(3, 64, 64\)"):
        fit_temperature(model, [(volume, truth[0])])


def test_each_structure_is_scored_against_its_own_reference(make, image):
    truth = image.array > 0
    table = evaluate(make(), [(image, truth)])
    assert list(table["class"]) == list(NAMES[1:])
    assert table["dice"][0] == table["dice"][1] == 1
    assert table["dice"][2] < 1  # what this network adds to the last one
    with pytest.raises(BadTrainingData, match=r"\(70, 90\) pixels but its image has \(3, 70, 90\)"):
        evaluate(make(), [(image, truth[0])])


def test_a_stored_model_passes_its_check_and_learns_more(make_card, rng, tmp_path, medt_home):
    options = {"in_channels": 4, "num_classes": 3, "spatial_dims": 2, "channels": (4, 8)}
    sequences = ("FLAIR", "T1", "T1c", "T2")
    card = make_card(
        name="tumour", architecture="unet", net_options=options, classes=NAMES, overlapping=True, channels=sequences
    )
    torch.manual_seed(0)
    save_model(medt_home / "models" / "tumour" / "v1", card, create_net("unet", **options))
    assert check_model("tumour").problem == ""
    model = Model(card, create_net("unet", **options).eval(), torch.device("cpu"))
    image = Volume(rng.random((4, 40, 40)).astype(np.float32), Geometry.from_spacing((1, 1), units="mm"))
    truth = np.stack([image.array[0] > 0.2, image.array[0] > 0.6, image.array[0] < 0.3])
    losses = []
    taught = fine_tune(model, [(image, truth)], steps=15, on_step=lambda event: losses.append(event["loss"]))
    assert losses[-1] < losses[0]
    assert taught.card.overlapping
    assert predict(taught, image).structures.shape == (3, 40, 40)
    with pytest.raises(BadTrainingData, match="of each structure its own, since they overlap"):
        fine_tune(model, [(image, truth[0])])
