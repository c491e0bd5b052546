"""What a prediction will take is known before it starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medt.core import BadImage
from napari_medt.engine import plan as plan_module
from napari_medt.engine import predict
from napari_medt.engine.plan import plan
from napari_medt.zoo.model import Model


class Wide(torch.nn.Module):
    """Holds 64 channels of a window between its layers."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.repeat(1, 64, 1, 1, 1)[:, :14] * 2


@pytest.fixture
def model(make_card):
    classes = tuple(f"class {number}" for number in range(14))
    card = make_card(
        classes=classes,
        net_options={},
        channels="grey",
        spatial_dims=3,
        window=(32, 32, 32),
        intensity={"kind": "none"},
    )
    return Model(card, Wide(), torch.device("cpu"))


@pytest.mark.parametrize("options", [{}, {"overlap": 0.0}, {"roi": (slice(0, 5), slice(0, 5), slice(0, 5))}])
def test_windows_are_those_that_will_pass(model, rng, options):
    told = []
    scan = rng.random((40, 50, 60), dtype=np.float32)
    predict(model, scan, progress=lambda *step: told.append(step), **options)
    found = plan(model, scan, **options)
    assert found.windows == told[-1][1]
    assert found.sentence.startswith(f"{found.windows} windows" if found.windows > 1 else "One window")


def test_memory_grows_with_the_plane_not_with_the_number_of_slices(model):
    small, deep, wide = (
        plan(model, np.zeros(shape, np.int8)) for shape in ((64, 64, 64), (256, 64, 64), (64, 128, 128))
    )
    labels = 3 * 64**3 / 1e6
    assert deep.memory_mb - small.memory_mb == pytest.approx(labels, rel=0.01)
    assert wide.memory_mb > small.memory_mb + 14 * 4 * 16 * 64**2 * 3 / 1e6


def test_nothing_passes_through_the_network_unless_asked(model):
    scan = np.zeros((40, 40, 40), np.float32)
    guessed = plan(model, scan)
    assert model.net.calls == 0
    assert guessed.seconds is None
    measured = plan(model, scan, measure=True)
    assert model.net.calls == 2
    assert measured.seconds > 0
    assert measured.memory_mb - guessed.memory_mb > 64 * 4 * 32**3 / 1e6  # what lies between the layers
    assert "about" in measured.sentence


def test_too_little_memory_is_told_beforehand(model, monkeypatch):
    free = type("Memory", (), {"available": 30_000_000})
    monkeypatch.setattr(plan_module.psutil, "virtual_memory", lambda: free)
    found = plan(model, np.zeros((64, 300, 300), np.float32))
    assert found.sentence.endswith("; only 30 MB are free, so less may be done at a time.")


def test_what_cannot_be_predicted_cannot_be_planned(model):
    with pytest.raises(BadImage, match="segments 3D scans"):
        plan(model, np.zeros((5, 5)))
