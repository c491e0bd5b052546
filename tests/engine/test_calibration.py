"""Probabilities that say how often they are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Geometry, Volume
from napari_medt.engine import predict
from napari_medt.engine.calibration import calibrate, expected_calibration_error, fit_temperature
from napari_medt.zoo import Model, load_model


class Odds(nn.Module):
    """Three classes whose true log-odds are in the three channels, told too loudly."""

    def __init__(self, loudness):
        super().__init__()
        self.loudness = loudness

    def forward(self, x):
        return x * self.loudness


@pytest.fixture
def make(make_card):
    def make(loudness, dims=2, **changes):
        card = make_card(
            classes=("a", "b", "c"),
            channels=("p", "q", "r"),
            net_options={},
            spatial_dims=dims,
            window=(32,) * dims,
            intensity={"kind": "none"},
            **changes,
        )
        return Model(card, Odds(loudness), torch.device("cpu"))

    return make


def cases(rng, shape, count=3):
    """Images of log-odds, and masks drawn with just these odds."""
    made = []
    for _ in range(count):
        logits = rng.normal(0, 1.5, (3, *shape)).astype(np.float32)
        chances = np.exp(logits) / np.exp(logits).sum(0)
        mask = (rng.random(shape) > chances.cumsum(0)).sum(0).clip(0, 2)
        made.append((Volume(logits, Geometry.from_spacing((1,) * len(shape), units="mm")), mask.astype(np.uint8)))
    return made


@pytest.mark.parametrize("loudness", [0.4, 1, 3, 8])
@pytest.mark.parametrize(("dims", "shape"), [(2, (70, 90)), (2, (4, 40, 50)), (3, (40, 20, 36))])
def test_temperature_is_how_much_too_loud_a_model_is(make, rng, loudness, dims, shape):
    found = fit_temperature(make(loudness, dims), cases(rng, shape))
    assert found == pytest.approx(loudness, rel=0.05)


def test_the_present_temperature_does_not_matter(make, rng):
    given = cases(rng, (40, 50))
    assert fit_temperature(make(3, temperature=7.0), given) == fit_temperature(make(3), given)


def test_the_mask_goes_to_the_grid_of_the_model(make, rng):
    """At half the spacing each sample is there twice, along each axis, with its own label."""
    given = [
        (
            Volume(v.array.repeat(2, 1).repeat(2, 2), Geometry.from_spacing((1, 1), units="mm")),
            m.repeat(2, 0).repeat(2, 1),
        )
        for v, m in cases(rng, (60, 60), count=2)
    ]
    assert fit_temperature(make(3, spacing=(2, 2)), given) == pytest.approx(3, rel=0.1)


def test_calibrated_probabilities_are_right_as_often_as_they_say(make, rng):
    """The engine divides by the temperature of the card; what is likeliest stays so."""
    model = make(5)
    warm = replace(
        model, card=model.card.model_copy(update={"temperature": fit_temperature(model, cases(rng, (60, 60)))})
    )
    errors = []
    for volume, mask in cases(rng, (32, 32), count=4):
        before, after = (predict(m, volume, probabilities=True) for m in (model, warm))
        np.testing.assert_array_equal(before.labels, after.labels)
        errors.append([expected_calibration_error(found.probabilities, mask) for found in (before, after)])
    before, after = np.mean(errors, 0)
    assert before > 0.2
    assert after < 0.05


def test_error_is_that_of_the_formula():
    """Two bins by hand: 0.9 on average and half right, 0.6 and all right."""
    best = np.array([0.9, 0.9, 0.6, 0.6])
    found = expected_calibration_error(np.stack([best, 1 - best]), np.array([0, 1, 0, 0]), bins=5)
    assert found == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1)) / 4)


def test_a_calibrated_model_is_a_new_version_that_says_so(real, make_discs_case):
    learnt = calibrate(real, [make_discs_case])
    assert learnt.card.version == real.card.version + 1
    assert learnt.card.temperature != 1
    assert load_model(learnt.card.key, device="cpu").card.temperature == learnt.card.temperature
    assert learnt.card.notes[-1].startswith("Probabilities were calibrated on 1 image with temperature ")
    assert learnt.card.base.startswith(real.card.key)
    for name, value in real.net.state_dict().items():
        assert torch.equal(value, learnt.net.state_dict()[name]), name


@pytest.fixture
def make_discs_case(rng):
    picture = rng.integers(0, 255, (50, 40, 3), dtype=np.uint8)
    return picture, (picture.mean(-1) > 128).astype(np.uint8)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "There is no image to calibrate on"),
        (
            [(np.zeros((9, 9, 3), np.uint8), np.zeros((8, 9)))],
            r"The mask has \(8, 9\) samples but the image has \(9, 9\)",
        ),
        (
            [(np.zeros((9, 9, 3), np.uint8), np.full((9, 9), 4))],
            "The mask holds values from 4 to 4, but .* knows 0 to 1",
        ),
    ],
)
def test_what_cannot_be_calibrated_on_is_said(real, given, sentence):
    with pytest.raises(BadTrainingData, match=sentence):
        fit_temperature(real, given)


def test_calibrating_is_cancelled(real, make_discs_case):
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        fit_temperature(real, [make_discs_case], cancel=cancel)
